"""Capture in real namespaces: what is redirected, what is not, and that what is there can be read back."""

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from ambit.core.errors import EnvironmentProblem
from ambit.core.names import PROBE_ADDRESS_V4, PROBE_ADDRESS_V6, PROXY_MARK
from ambit.node.capture import apply, ruleset
from ambit.node.netns import counters, nft
from ambit.node.netns.enter import in_namespace
from tests.plan.dataplane.network import add_namespace

pytestmark = pytest.mark.netns
POD, POD6, NODE, NODE6 = "10.9.0.2", "fd09::2", "10.9.0.1", "fd09::1"
TIMEOUT = 60.0
SO_ORIGINAL_DST = 80


class Pair:
    """A pod and its node, each a namespace."""

    def __init__(self, name: str) -> None:
        self.pod = Path("/run/netns") / f"{name}-pod"
        self.node = Path("/run/netns") / f"{name}-node"

    def __enter__(self) -> Self:
        pod, node = self.pod.name, self.node.name
        add_namespace(pod)
        add_namespace(node)
        for command in (
            f"-n {node} link add veth0 type veth peer name eth0 netns {pod}",
            f"-n {pod} link set lo up",
            f"-n {pod} link set eth0 up",
            f"-n {node} link set lo up",
            f"-n {node} link set veth0 up",
            f"-n {pod} addr add {POD}/24 dev eth0",
            f"-n {pod} addr add {POD6}/64 dev eth0 nodad",
            f"-n {node} addr add {NODE}/24 dev veth0",
            f"-n {node} addr add {NODE6}/64 dev veth0 nodad",
            f"-n {node} addr add {PROBE_ADDRESS_V4}/32 dev lo",
            f"-n {node} addr add {PROBE_ADDRESS_V6}/128 dev lo",
            f"-n {pod} route add default via {NODE}",
            f"-n {pod} -6 route add default via {NODE6}",
        ):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (self.pod, self.node):
            subprocess.run(["ip", "netns", "del", namespace.name], check=False, capture_output=True)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(f"acap{os.getpid()}") as pair:
        yield pair


def listen(netns: Path, address: str, port: int) -> socket.socket:
    def make() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        server.settimeout(TIMEOUT)
        return server

    return in_namespace(netns, make)


def dial(
    netns: Path, address: str, port: int, *, source: str = "", mark: int = 0, device: str = ""
) -> socket.socket:
    def make() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        client = socket.socket(family, socket.SOCK_STREAM)
        client.settimeout(TIMEOUT)
        if mark:
            client.setsockopt(socket.SOL_SOCKET, 36, mark)
        if source:
            client.bind((source, 0))
        if device:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        client.connect(socket.getaddrinfo(address, port)[0][4])
        return client

    return in_namespace(netns, make)


def reaches(server: socket.socket, client: socket.socket) -> bool:
    """Whether this client is the one that the server accepts."""
    with client, server, server.accept()[0] as accepted:
        accepted.sendall(b"x")
        return client.recv(1) == b"x"


@pytest.mark.parametrize(("loopback", "far"), [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")])
async def test_what_the_pod_opens_goes_to_the_proxy(pair: Pair, loopback: str, far: str) -> None:
    await apply.redirect(str(pair.pod), ruleset.Capture())
    server = listen(pair.pod, loopback, 15001)
    assert await asyncio.to_thread(lambda: reaches(server, dial(pair.pod, far, 80)))


@pytest.mark.parametrize(("loopback", "far"), [("127.0.0.1", "192.0.2.1"), ("::1", "2001:db8::1")])
async def test_dns_goes_to_the_agent_unless_it_is_left_out(pair: Pair, loopback: str, far: str) -> None:
    await apply.redirect(str(pair.pod), ruleset.Capture())
    server = listen(pair.pod, loopback, 15053)
    assert await asyncio.to_thread(lambda: reaches(server, dial(pair.pod, far, 53)))
    await apply.redirect(str(pair.pod), ruleset.Capture(dns=False))
    server = listen(pair.pod, loopback, 15001)
    assert await asyncio.to_thread(lambda: reaches(server, dial(pair.pod, far, 53)))


@pytest.mark.parametrize(("family", "far"), [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")])
async def test_questions_are_not_refused_while_nobody_answers(pair: Pair, family: int, far: str) -> None:
    """The agent is restarting: the resolver hears nothing and asks again, instead of failing at once."""

    def asked(port: int) -> type[OSError] | None:
        with in_namespace(pair.pod, lambda: socket.socket(family, socket.SOCK_DGRAM)) as client:
            client.settimeout(0.2)
            client.connect((far, port))
            client.send(b"question")
            try:
                client.recv(1)
            except OSError as problem:
                return type(problem)
            return None

    await apply.redirect(str(pair.pod), ruleset.Capture())
    assert await asyncio.to_thread(asked, 53) is TimeoutError
    loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
    far = loopback
    assert await asyncio.to_thread(asked, 9) is ConnectionRefusedError


async def test_loopback_and_the_proxy_itself_are_not_captured(pair: Pair) -> None:
    await apply.redirect(str(pair.pod), ruleset.Capture())
    for address in ("127.0.0.1", POD, "::1", POD6):
        server = listen(pair.pod, address, 8080)
        assert await asyncio.to_thread(lambda s=server, a=address: reaches(s, dial(pair.pod, a, 8080)))
    for address in (NODE, NODE6):
        server = listen(pair.node, address, 8080)
        assert await asyncio.to_thread(
            lambda s=server, a=address: reaches(s, dial(pair.pod, a, 8080, mark=PROXY_MARK))
        )


@pytest.mark.parametrize(
    ("any_address", "pod", "probe"), [("0.0.0.0", POD, PROBE_ADDRESS_V4), ("::", POD6, PROBE_ADDRESS_V6)]
)
async def test_what_reaches_the_pod(pair: Pair, any_address: str, pod: str, probe: str) -> None:
    await apply.redirect(str(pair.pod), ruleset.Capture())
    server = listen(pair.pod, any_address, 15006)
    assert await asyncio.to_thread(lambda: reaches(server, dial(pair.node, pod, 8080)))
    for port, source in ((15008, ""), (8080, probe)):
        server = listen(pair.pod, any_address, port)
        assert await asyncio.to_thread(
            lambda s=server, p=port, f=source: reaches(s, dial(pair.node, pod, p, source=f))
        )
    await apply.redirect(str(pair.pod), ruleset.Capture(inbound=False))
    server = listen(pair.pod, any_address, 8080)
    assert await asyncio.to_thread(lambda: reaches(server, dial(pair.node, pod, 8080)))


@pytest.mark.parametrize("is_server", [True, False])
async def test_what_was_open_before_goes_on_in_both_directions(pair: Pair, is_server: bool) -> None:
    """The kernel tracks a connection only from these rules on: the middle of one is no reason to redirect it."""
    ends = (pair.pod, POD, pair.node) if is_server else (pair.node, NODE, pair.pod)
    with listen(ends[0], ends[1], 9080) as server, dial(ends[2], ends[1], 9080) as client:
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(TIMEOUT)
            client.sendall(b"asked before")
            assert accepted.recv(100) == b"asked before"
            await apply.redirect(str(pair.pod), ruleset.Capture())
            accepted.sendall(b"answered after")
            assert client.recv(100) == b"answered after"
            client.sendall(b"asked after")
            assert accepted.recv(100) == b"asked after"


@pytest.mark.parametrize(("pod", "node"), [(POD, NODE), (POD6, NODE6)])
async def test_an_older_connection_that_was_reset_opens_no_way_past_the_proxy(
    pair: Pair, pod: str, node: str
) -> None:
    """As the agent resets those that policy refuses. The kernel does not redirect what it takes for the same one."""

    def dial_from(port: int, patience: float) -> socket.socket:
        def make() -> socket.socket:
            client = socket.socket(socket.AF_INET6 if ":" in pod else socket.AF_INET, socket.SOCK_STREAM)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.settimeout(patience)
            client.bind((node, port))
            client.connect((pod, 8080))
            return client

        return in_namespace(pair.node, make)

    with listen(pair.pod, pod, 8080) as server:
        with dial_from(0, TIMEOUT) as client, server.accept()[0] as accepted:
            port = client.getsockname()[1]
            await apply.redirect(str(pair.pod), ruleset.Capture())
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with pytest.raises(TimeoutError):
            dial_from(port, 0.5)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_a_blocked_pod_reaches_nobody_but_itself(pair: Pair) -> None:
    await apply.block(str(pair.pod))
    assert await nft.listing(str(pair.pod), ruleset.TABLE) == ruleset.block()
    refused = listen(pair.node, NODE, 8080)

    def attempt(netns: Path, address: str) -> None:
        def make() -> None:
            with socket.socket() as client:
                client.settimeout(0.2)
                client.connect((address, 8080))

        in_namespace(netns, make)

    with refused, listen(pair.pod, POD, 8080) as own:
        for netns, address in ((pair.pod, NODE), (pair.node, POD)):
            with pytest.raises(OSError):
                await asyncio.to_thread(attempt, netns, address)
        assert await asyncio.to_thread(lambda: reaches(own, dial(pair.pod, POD, 8080)))


async def test_rules_are_read_back_and_differences_are_seen(pair: Pair) -> None:
    netns, capture = str(pair.pod), ruleset.Capture()
    assert not await apply.is_redirected(netns, capture)
    await apply.redirect(netns, capture)
    await apply.redirect(netns, capture)
    assert await apply.is_redirected(netns, capture)
    assert not await apply.is_redirected(netns, ruleset.Capture(dns=False))
    rule = ["nft", "insert", "rule", "inet", "ambit", "redirect_leaving", "tcp", "dport", "22", "return"]
    await asyncio.to_thread(subprocess.run, ["nsenter", f"--net={netns}", *rule], check=True)
    assert not await apply.is_redirected(netns, capture)
    await apply.redirect(netns, capture)
    assert await apply.is_redirected(netns, capture)


async def test_a_pod_that_leaves_opens_from_other_ports_until_it_comes_back_or_has_left(pair: Pair) -> None:
    """`test_transparent` has what for."""

    def first() -> str:
        path = Path("/proc/sys/net/ipv4/ip_local_port_range")
        return in_namespace(pair.pod, path.read_text).split()[0]

    capture, netns = ruleset.Capture(), str(pair.pod)
    for change, wanted in (
        (apply.redirect, "32768"),
        (apply.release, "32769"),
        (apply.redirect, "32768"),
        (apply.release, "32769"),
        (apply.remove, "32768"),
    ):
        await change(netns, capture)
        assert first() == wanted


async def test_removal_leaves_nothing(pair: Pair) -> None:
    def state() -> str:
        commands = (
            "nft list ruleset",
            "ip rule",
            "ip -6 rule",
            "ip route show table all",
            "ip -6 route show table all",
            "cat /proc/sys/net/ipv4/tcp_timestamps",
        )
        told = "".join(
            subprocess.run(
                ["nsenter", f"--net={pair.pod}", *each.split()], check=True, capture_output=True, text=True
            ).stdout
            for each in commands
        )
        # The kernel adds the link's own address once it has looked whether somebody else has it, and routes with it.
        return "\n".join(line for line in told.splitlines() if "fe80::" not in line and "ff00::" not in line)

    before = state()
    await apply.redirect(str(pair.pod), ruleset.Capture())
    assert state() != before
    await apply.remove(str(pair.pod), ruleset.Capture())
    await apply.remove(str(pair.pod), ruleset.Capture())
    assert state() == before


async def test_a_namespace_that_is_gone_is_a_clear_error() -> None:
    with pytest.raises(EnvironmentProblem, match="/run/netns/not-there"):
        await apply.block("/run/netns/not-there")
    with pytest.raises(EnvironmentProblem, match="/run/netns/not-there"):
        await apply.redirect("/run/netns/not-there", ruleset.Capture())


def test_other_udp_passes_and_is_counted(pair: Pair) -> None:
    """In both directions and families; DNS, TCP and what stays in the pod are no part of it."""
    assert counters.read(str(pair.pod), ruleset.TABLE) == {}
    asyncio.run(apply.redirect(str(pair.pod), ruleset.Capture()))
    nothing = counters.Count()
    assert counters.read(str(pair.pod), ruleset.TABLE) == {"udp_sent": nothing, "udp_received": nothing}

    def asker() -> tuple[socket.socket, socket.socket]:
        found = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)]
        for each in found:
            each.settimeout(TIMEOUT)
        return found[0], found[1]

    def bound() -> tuple[socket.socket, socket.socket]:
        four, six = asker()
        four.bind((NODE, 9999))
        six.bind((NODE6, 9999))
        return four, six

    for client, server, address in zip(
        in_namespace(pair.pod, asker), in_namespace(pair.node, bound), (NODE, NODE6), strict=True
    ):
        with client, server:
            client.sendto(b"1234", (address, 9999))
            said, whence = server.recvfrom(100)
            server.sendto(said + said, whence)
            assert client.recvfrom(100)[0] == b"12341234"
            client.sendto(b"question", (address, 53))
            client.sendto(b"inside", ("127.0.0.1" if address == NODE else "::1", 9999))
    found = counters.read(str(pair.pod), ruleset.TABLE)
    headers = 20 + 8 + 40 + 8
    assert found["udp_sent"] == counters.Count(2, headers + 2 * 4)
    assert found["udp_received"] == counters.Count(2, headers + 2 * 8)
    assert asyncio.run(apply.is_redirected(str(pair.pod), ruleset.Capture()))


def test_counters_of_a_namespace_that_is_gone() -> None:
    with pytest.raises(FileNotFoundError):
        counters.read("/run/netns/never-there", ruleset.TABLE)
