"""Pods as network namespaces on one bridge, which lives in a namespace of its own: the host is not
touched."""

import contextlib
import ipaddress
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from ambit.core.address import Address
from ambit.node.netns.enter import in_namespace
from ambit.testing.aftermath import after_death

_numbers = itertools.count(2)
TIMEOUT = 20.0
"""Seconds for one attempt: whoever looks again and again (`until`) makes several in its time."""
REFUSED = "refused"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def add_namespace(name: str) -> None:
    """Whoever adds it deletes it with `ip netns del`; should this process be killed before, that is done, too."""
    after_death("ip", "netns", "del", name)
    ip("netns", "add", name)


class Network:
    """A bridge and the namespaces on it; removes them all at the end."""

    def __init__(self) -> None:
        self._prefix = f"ambt{os.getpid()}"
        self._bridge = f"{self._prefix}-br"
        self._namespaces = [self._bridge]
        self._ports: dict[str, str] = {}
        add_namespace(self._bridge)
        ip("-n", self._bridge, "link", "add", "bridge", "type", "bridge")
        ip("-n", self._bridge, "link", "set", "bridge", "up")

    def close(self) -> None:
        for namespace in reversed(self._namespaces):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)

    def host(self, name: str) -> "Host":
        """A namespace with a dual-stack address; it runs nothing yet."""
        number = next(_numbers)
        namespace = f"{self._prefix}-{name}"
        self._namespaces.append(namespace)
        self._ports[namespace] = f"v{number}"
        add_namespace(namespace)
        ip(
            "-n",
            self._bridge,
            "link",
            "add",
            f"v{number}",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            namespace,
        )
        ip("-n", self._bridge, "link", "set", f"v{number}", "master", "bridge", "up")
        ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", namespace, "link", "set", "eth0", "up")
        four, six = f"10.77.{number // 250}.{number % 250}", f"fd77::{number:x}"
        ip("-n", namespace, "addr", "add", f"{four}/16", "dev", "eth0")
        ip("-n", namespace, "-6", "addr", "add", f"{six}/64", "dev", "eth0", "nodad")
        # Virtual addresses need a route to leave by, as in any cluster.
        ip("-n", namespace, "route", "add", "default", "via", "10.77.255.254")
        ip("-n", namespace, "-6", "route", "add", "default", "via", "fd77::ffff")
        return Host(Path("/run/netns") / namespace, ipaddress.ip_address(four), ipaddress.ip_address(six))

    def only(self, host: "Host", family: int) -> None:
        """Takes the other family away from the host: as in a cluster of one family, where a namespace has either no
        IPv6 at all, or no IPv4 but on loopback."""
        other = "-4" if family == 6 else "-6"
        ip("-n", host.netns.name, other, "addr", "flush", "dev", "eth0")
        if family == 4:
            off = ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]
            subprocess.run(["ip", "netns", "exec", host.netns.name, *off], check=True)

    @contextmanager
    def unplugged(self, host: "Host") -> Iterator[None]:
        """Nothing reaches the host and nothing comes from it, and nobody is told."""
        port = ("-n", self._bridge, "link", "set", self._ports[host.netns.name])
        ip(*port, "nomaster")
        try:
            yield
        finally:
            ip(*port, "master", "bridge")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Host:
    """One namespace: sockets are made in it by this process."""

    def __init__(self, netns: Path, four: Address, six: Address) -> None:
        self.netns = netns
        self.four = four
        self.six = six

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (self.four, self.six)

    def connect(self, address: Address | str, port: int, *, timeout: float = TIMEOUT) -> socket.socket:
        """A connection from here. Raises OSError."""
        return in_namespace(self.netns, lambda: socket.create_connection((str(address), port), timeout))

    def ask(self, address: Address | str, port: int, question: bytes = b"hi") -> str:
        """What a server says in answer; REFUSED when the connection ends without an answer."""
        try:
            with self.connect(address, port) as connection:
                connection.sendall(question)
                connection.shutdown(socket.SHUT_WR)
                answer = read_all(connection)
        except TimeoutError:
            return "timeout"
        except OSError:
            return REFUSED
        return answer.decode() or REFUSED

    def datagrams(self, address: Address | str, port: int, *, timeout: float = TIMEOUT) -> socket.socket:
        """A socket of UDP here that sends there, and hears nobody else."""

        def made() -> socket.socket:
            family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
            sending = socket.socket(family, socket.SOCK_DGRAM)
            sending.settimeout(timeout)
            sending.connect((str(address), port))
            return sending

        return in_namespace(self.netns, made)

    def listen_udp(self, port: int, answer: Callable[[bytes], bytes]) -> socket.socket:
        """Answers datagrams on `port` in both families until the returned socket is closed."""
        server = in_namespace(self.netns, lambda: udp_listener(port))
        threading.Thread(target=_answer, args=(server, answer), daemon=True).start()
        return server

    def listen(self, port: int, serve: Callable[[socket.socket, str], None] | None = None) -> socket.socket:
        """Serves both families on `port` until the returned socket is closed."""
        server = in_namespace(self.netns, lambda: listener(port))
        threading.Thread(target=_accept, args=(server, serve or say_client), daemon=True).start()
        return server


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def say_client(connection: socket.socket, client: str) -> None:
    """Reads all, then tells who it sees and what it heard."""
    heard = read_all(connection)
    connection.sendall(f"{client} {len(heard)}".encode())


class Listener(socket.socket):
    """Ends for good: a thread in accept() would keep the port."""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        super().close()


def listener(port: int) -> socket.socket:
    """A socket that listens on all addresses of both families."""
    server = Listener(socket.AF_INET6, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    server.listen(256)
    return server


def udp_listener(port: int) -> socket.socket:
    """A socket that hears datagrams to all addresses of both families."""
    server = Listener(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    return server


def _answer(server: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    while True:
        try:
            asked, peer = server.recvfrom(65536)
            if not peer:
                return
            server.sendto(answer(asked), peer)
        except OSError:
            return


def _accept(server: socket.socket, serve: Callable[[socket.socket, str], None]) -> None:
    while True:
        try:
            connection, peer = server.accept()
        except OSError:
            return
        threading.Thread(target=_serve, args=(connection, peer[0], serve), daemon=True).start()


def _serve(connection: socket.socket, peer: str, serve: Callable[[socket.socket, str], None]) -> None:
    address = ipaddress.ip_address(peer)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    with connection:
        try:
            serve(connection, str(mapped or address))
        except OSError:
            return
