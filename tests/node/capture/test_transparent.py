"""Capture without NAT in real namespaces: what comes to the proxy, and every way past it that is closed."""

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.core.names import (
    DNS_MARK,
    OUTBOUND_MARK,
    PLAINTEXT_MARK,
    PROBE_ADDRESS_V4,
    PROBE_ADDRESS_V6,
    PROXY_MARK,
)
from ambit.node.capture import apply, ruleset, trial
from ambit.node.netns import counters, sockets, steering
from ambit.node.netns.enter import in_namespace
from ambit.node.netns.transparent import make_transparent
from tests.node.capture.test_capture import NODE, NODE6, POD, POD6, TIMEOUT, Pair, dial, listen, reaches

pytestmark = pytest.mark.netns
OWN = (ipaddress.ip_address(POD), ipaddress.ip_address(POD6))
CAPTURE = ruleset.Capture(transparent=True, addresses=OWN)
FAR, FAR6 = "192.0.2.1", "2001:db8::1"
OUTWARD = pytest.mark.parametrize(("loopback", "far"), [("127.0.0.1", FAR), ("::1", FAR6)])
INWARD = pytest.mark.parametrize(
    ("everywhere", "pod", "node", "probe"),
    [("0.0.0.0", POD, NODE, PROBE_ADDRESS_V4), ("::", POD6, NODE6, PROBE_ADDRESS_V6)],
)
IP_BIND_ADDRESS_NO_PORT = 24
SHORT = 0.3
"""Seconds that an attempt lasts which nobody may answer."""


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(f"acap{os.getpid()}") as pair:
        asyncio.run(apply.redirect(str(pair.pod), CAPTURE))
        yield pair


def proxy(pair: Pair, address: str, port: int, mark: int) -> socket.socket:
    """A listener as the proxy has it."""

    def make() -> socket.socket:
        server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        make_transparent(server, mark)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen()
        server.settimeout(TIMEOUT)
        return server

    return in_namespace(pair.pod, make)


def accepted(server: socket.socket, client: socket.socket) -> tuple[str, int]:
    """The address that the server has for its own, of the connection that this client opened; bytes go both ways."""
    with client, server, server.accept()[0] as end:
        end.settimeout(TIMEOUT)
        client.sendall(b"question")
        assert end.recv(8) == b"question"
        end.sendall(b"answer")
        assert client.recv(6) == b"answer"
        assert end.getpeername()[:2] == client.getsockname()[:2]
        return str(end.getsockname()[0]), int(end.getsockname()[1])


def unheard(*servers: socket.socket) -> bool:
    """Whether nobody has come."""
    for server in servers:
        server.settimeout(0)
        with contextlib.suppress(BlockingIOError), server.accept()[0]:
            return False
    return True


def attempt(
    netns: Path, address: str, port: int, *, source: str = "", device: str = "", patience: float = TIMEOUT
) -> None:
    def make() -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(patience)
            if device:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            if source:
                client.bind((source, 0))
            client.connect(socket.getaddrinfo(address, port)[0][4])

    in_namespace(netns, make)


def setting(netns: Path, name: str, value: int) -> None:
    in_namespace(netns, lambda: Path(f"/proc/sys/net/{name}").write_text(str(value)))


@OUTWARD
def test_what_the_pod_opens_goes_to_the_proxy_as_it_is(pair: Pair, loopback: str, far: str) -> None:
    """Also from a port that it uses for another destination, and nothing is tracked."""
    for _ in range(2):
        server = proxy(pair, loopback, 15001, OUTBOUND_MARK)
        assert accepted(server, dial(pair.pod, far, 80)) == (far, 80)
    tracked = in_namespace(pair.pod, Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text)
    assert int(tracked) == 0


@OUTWARD
def test_dns_goes_to_the_agent_unless_it_is_left_out(pair: Pair, loopback: str, far: str) -> None:
    server = proxy(pair, loopback, 15053, DNS_MARK)
    assert accepted(server, dial(pair.pod, far, 53)) == (far, 53)
    family = socket.AF_INET6 if ":" in far else socket.AF_INET

    def bound() -> socket.socket:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.settimeout(TIMEOUT)
        made.bind((loopback, 15053))
        return made

    with (
        in_namespace(pair.pod, bound) as agent,
        in_namespace(pair.pod, lambda: socket.socket(family, socket.SOCK_DGRAM)) as client,
    ):
        client.settimeout(TIMEOUT)
        client.sendto(b"question", (far, 53))
        question, asker = agent.recvfrom(100)
        agent.sendto(question + b" answered", asker)
        reply, whence = client.recvfrom(100)
        assert (reply, whence[0]) == (b"question answered", far)
    without = ruleset.Capture(dns=False, transparent=True, addresses=OWN)
    asyncio.run(apply.redirect(str(pair.pod), without))
    assert asyncio.run(apply.is_redirected(str(pair.pod), without))
    server = proxy(pair, loopback, 15001, OUTBOUND_MARK)
    assert accepted(server, dial(pair.pod, far, 53)) == (far, 53)


@OUTWARD
def test_nothing_leaves_from_loopback(pair: Pair, loopback: str, far: str) -> None:
    """The kernel's own rule for what goes out over a wire, which a route to loopback does not have."""
    server, agent = proxy(pair, loopback, 15001, OUTBOUND_MARK), proxy(pair, loopback, 15053, DNS_MARK)
    with server, agent:
        for device in ("", "lo"):
            for port in (80, 53):
                with pytest.raises(ConnectionRefusedError):
                    attempt(pair.pod, far, port, source=loopback, device=device)
        assert unheard(server, agent)


def test_loopback_and_the_proxy_itself_are_not_captured(pair: Pair) -> None:
    for address in ("127.0.0.1", POD, "::1", POD6):
        server = listen(pair.pod, address, 8080)
        assert reaches(server, dial(pair.pod, address, 8080))
    for address in (NODE, NODE6):
        server = listen(pair.node, address, 8080)
        assert reaches(server, dial(pair.pod, address, 8080, mark=PROXY_MARK))


@INWARD
def test_what_reaches_the_pod(pair: Pair, everywhere: str, pod: str, node: str, probe: str) -> None:
    """The ports of the proxy itself are as any other, apart from HBONE's; the host's probes go straight in."""
    for port in (8080, 15001, 15006, 15053):
        server = proxy(pair, everywhere, 15006, PLAINTEXT_MARK)
        assert accepted(server, dial(pair.node, pod, port)) == (pod, port)
    hbone = proxy(pair, everywhere, 15008, PROXY_MARK)
    assert accepted(hbone, dial(pair.node, pod, 15008)) == (pod, 15008)
    with proxy(pair, everywhere, 15006, PLAINTEXT_MARK) as plaintext:
        server = listen(pair.pod, pod, 8080)
        assert reaches(server, dial(pair.node, pod, 8080, source=probe))
        assert unheard(plaintext)


@INWARD
def test_the_proxy_delivers_from_the_clients_address(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str
) -> None:
    """Where nobody listens it is refused at once, also while the pod is leaving."""

    def deliver() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in pod else socket.AF_INET, socket.SOCK_STREAM)
        make_transparent(made, PROXY_MARK)
        made.settimeout(TIMEOUT)
        made.bind((FAR6 if ":" in pod else FAR, 0))
        made.connect((pod, 8080))
        return made

    for change in (apply.redirect, apply.release):
        asyncio.run(change(str(pair.pod), CAPTURE))
        with pytest.raises(ConnectionRefusedError):
            in_namespace(pair.pod, deliver)
        server = listen(pair.pod, pod, 8080)
        assert accepted(server, in_namespace(pair.pod, deliver)) == (pod, 8080)


@INWARD
def test_a_handshake_by_cookies_ends_at_the_proxy(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str
) -> None:
    """As in a flood of requests. The application's own listener, which would accept the cookie, gets nothing."""
    setting(pair.pod, "ipv4/tcp_syncookies", 2)
    with listen(pair.pod, everywhere, 8080) as application:
        with dial(pair.node, pod, 8080, source=probe), application.accept()[0]:
            pass
        server = proxy(pair, everywhere, 15006, PLAINTEXT_MARK)
        assert accepted(server, dial(pair.node, pod, 8080)) == (pod, 8080)
        loopback, far = ("::1", FAR6) if ":" in pod else ("127.0.0.1", FAR)
        server = proxy(pair, loopback, 15001, OUTBOUND_MARK)
        assert accepted(server, dial(pair.pod, far, 8080)) == (far, 8080)
        assert unheard(application)


@INWARD
def test_while_the_proxy_is_away_everything_is_refused_and_nothing_goes_past_it(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str
) -> None:
    far = FAR6 if ":" in pod else FAR
    with listen(pair.pod, everywhere, 8080) as application, listen(pair.node, node, 8080) as outside:
        for netns, address, port in (
            (pair.node, pod, 8080),
            (pair.node, pod, 9090),
            (pair.node, pod, 15008),
            (pair.pod, node, 8080),
            (pair.pod, far, 8080),
            (pair.pod, far, 53),
        ):
            with pytest.raises(ConnectionRefusedError):
                attempt(netns, address, port)
        assert unheard(application, outside)


@INWARD
def test_who_goes_on_with_a_proxy_that_is_gone_is_reset(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str
) -> None:
    """From inside and from outside, by HBONE and in plain text: the end of the connection was lost with the proxy."""
    loopback, far = ("::1", FAR6) if ":" in pod else ("127.0.0.1", FAR)
    for server, netns, address, port in (
        (proxy(pair, everywhere, 15006, PLAINTEXT_MARK), pair.node, pod, 8080),
        (proxy(pair, everywhere, 15008, PROXY_MARK), pair.node, pod, 15008),
        (proxy(pair, loopback, 15001, OUTBOUND_MARK), pair.pod, far, 8080),
    ):
        with dial(netns, address, port) as client:
            end = server.accept()[0]
            server.close()
            forget(pair, end)
            client.sendall(b"on")
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def forget(pair: Pair, end: socket.socket) -> None:
    """Closes it without a word to the other side, as when the kernel's last word was lost."""
    rule = "nft add table inet mute; nft add chain inet mute out { type filter hook output priority 300\\; }"
    drop = f"nft add rule inet mute out tcp sport {end.getsockname()[1]} drop"
    inside = ["nsenter", f"--net={pair.pod}", "sh", "-e", "-c"]
    subprocess.run([*inside, f"{rule}; {drop}"], check=True)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
    subprocess.run([*inside, "nft delete table inet mute"], check=True)


@INWARD
def test_a_socket_bound_to_the_interface_is_captured_like_any_other(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str
) -> None:
    """And does not get out when there is no proxy; when the pod is leaving it does."""
    loopback = "::1" if ":" in pod else "127.0.0.1"
    with listen(pair.node, node, 8080) as outside:
        with pytest.raises(ConnectionRefusedError):
            attempt(pair.pod, node, 8080, device="eth0")
        server = proxy(pair, loopback, 15001, OUTBOUND_MARK)
        assert accepted(server, dial(pair.pod, node, 8080, device="eth0")) == (node, 8080)
        if ":" in pod:
            server = proxy(pair, loopback, 15001, OUTBOUND_MARK)
            assert accepted(server, dial(pair.pod, "fe80::9%eth0", 8080)) == ("fe80::9", 8080)
        assert unheard(outside)
        asyncio.run(apply.release(str(pair.pod), CAPTURE))
        attempt(pair.pod, node, 8080, device="eth0")
        outside.settimeout(TIMEOUT)
        outside.accept()[0].close()


@INWARD
def test_what_the_pod_opens_to_the_probes_address_does_not_get_out(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str
) -> None:
    with listen(pair.node, probe, 8080) as outside:
        with pytest.raises(OSError):
            attempt(pair.pod, probe, 8080, patience=SHORT)
        assert unheard(outside)


@INWARD
def test_the_pods_own_address_from_outside_is_dropped(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str
) -> None:
    """The kernel's own look at sources is off, for the sake of the routing."""
    family = socket.AF_INET6 if ":" in pod else socket.AF_INET

    def bound(address: str) -> socket.socket:
        made = socket.socket(family, socket.SOCK_DGRAM)
        make_transparent(made, 0)
        made.settimeout(TIMEOUT)
        made.bind((address, 9999))
        return made

    with (
        in_namespace(pair.pod, lambda: bound(pod)) as server,
        in_namespace(pair.node, lambda: bound(pod)) as forger,
        in_namespace(pair.node, lambda: bound(node)) as honest,
    ):
        forger.sendto(b"forged", (pod, 9999))
        honest.sendto(b"honest", (pod, 9999))
        assert server.recv(100) == b"honest"


def test_a_strict_look_at_sources_is_loosened_where_it_would_refuse_all() -> None:
    with Pair(f"acap{os.getpid()}") as pair:
        for interface in ("all", "eth0", "default"):
            setting(pair.pod, f"ipv4/conf/{interface}/rp_filter", 1)
        asyncio.run(apply.redirect(str(pair.pod), CAPTURE))
        server = proxy(pair, "0.0.0.0", 15006, PLAINTEXT_MARK)
        assert accepted(server, dial(pair.node, POD, 8080)) == (POD, 8080)


def test_the_proxys_ends_are_told_by_their_marks(pair: Pair) -> None:
    """So the agent can end what the pod opened, without knowing where to."""
    with (
        proxy(pair, "127.0.0.1", 15001, OUTBOUND_MARK) as server,
        dial(pair.pod, FAR, 80) as client,
        server.accept()[0] as end,
    ):
        port = client.getsockname()[1]
        found = [each for each in sockets.listing(str(pair.pod)) if each.mark == OUTBOUND_MARK]
        assert [(str(each.local), each.local_port, each.peer_port) for each in found] == [(FAR, 80, port)]
        assert not sockets.reset_outbound(str(pair.pod), OWN[0], port + 1)
        assert sockets.reset_outbound(str(pair.pod), OWN[0], port)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert end.fileno() > 0
        # The kernel takes a listener for what is gone; it must not be ended in its place.
        assert not sockets.reset_outbound(str(pair.pod), OWN[0], port)
        with dial(pair.pod, FAR, 80), server.accept()[0]:
            pass


async def test_rules_are_read_back_and_differences_are_seen(pair: Pair) -> None:
    netns = str(pair.pod)
    assert await apply.is_redirected(netns, CAPTURE)
    assert not await apply.is_redirected(netns, ruleset.Capture())
    for change in (
        "nft insert rule inet ambit give tcp dport 22 return",
        "ip rule del pref 60",
        "ip -6 rule del pref 50",
    ):
        await asyncio.to_thread(
            subprocess.run, ["nsenter", f"--net={netns}", *change.split()], check=True, capture_output=True
        )
        assert not await apply.is_redirected(netns, CAPTURE)
        await apply.redirect(netns, CAPTURE)
        assert await apply.is_redirected(netns, CAPTURE)


@OUTWARD
def test_open_connections_outlive_the_writing_of_rules(pair: Pair, loopback: str, far: str) -> None:
    with (
        proxy(pair, loopback, 15001, OUTBOUND_MARK) as server,
        dial(pair.pod, far, 80) as client,
        server.accept()[0] as end,
    ):
        end.settimeout(TIMEOUT)
        for number in range(3):
            asyncio.run(apply.redirect(str(pair.pod), CAPTURE))
            client.sendall(b"%d" % number)
            assert end.recv(1) == b"%d" % number


@INWARD
def test_a_pod_that_leaves_and_comes_back(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str
) -> None:
    """What is open goes on in each of the three times, whatever way it has; what is new takes the way of its time."""
    loopback, far = ("::1", FAR6) if ":" in pod else ("127.0.0.1", FAR)
    netns = str(pair.pod)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        outbound = enter(proxy(pair, loopback, 15001, OUTBOUND_MARK))
        plaintext = enter(proxy(pair, everywhere, 15006, PLAINTEXT_MARK))
        application = enter(listen(pair.pod, pod, 8080))
        outside = enter(listen(pair.node, node, 8080))
        pairs: list[tuple[socket.socket, socket.socket]] = []

        def opened(client: socket.socket, server: socket.socket) -> None:
            pairs.append((enter(client), enter(server.accept()[0])))
            for one, other in pairs:
                for sender, receiver in ((one, other), (other, one)):
                    receiver.settimeout(TIMEOUT)
                    sender.sendall(b"x" * 3000)
                    assert receiver.recv(3000, socket.MSG_WAITALL) == b"x" * 3000

        opened(dial(pair.pod, far, 80), outbound)
        opened(dial(pair.node, pod, 8080), plaintext)
        asyncio.run(apply.release(netns, CAPTURE))
        opened(dial(pair.pod, node, 8080), outside)
        opened(dial(pair.node, pod, 8080), application)
        again = ruleset.Capture(transparent=True, addresses=OWN, spared=True)
        asyncio.run(apply.redirect(netns, again))
        assert asyncio.run(apply.is_redirected(netns, again))
        opened(dial(pair.pod, far, 80), outbound)
        opened(dial(pair.node, pod, 8080), plaintext)
        asyncio.run(apply.release(netns, CAPTURE))
        for one, other in pairs[:2] + pairs[4:]:
            one.close()
            other.close()
        del pairs[4:], pairs[:2]
        asyncio.run(apply.remove(netns, CAPTURE))
        opened(dial(pair.pod, node, 8080), outside)
        opened(dial(pair.node, pod, 8080), application)
        assert unheard(outbound, plaintext, outside, application)


@INWARD
@pytest.mark.parametrize("is_idle", [True, False])
def test_a_direct_connection_from_the_port_of_a_delivered_one_leaves_that_alone(
    pair: Pair, everywhere: str, pod: str, node: str, probe: str, is_idle: bool
) -> None:
    """The proxy chooses its port without knowing those of the client, which may come directly now."""

    def deliver() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in pod else socket.AF_INET, socket.SOCK_STREAM)
        make_transparent(made, PROXY_MARK)
        made.settimeout(TIMEOUT)
        made.bind((node, 0))
        made.connect((pod, 8080))
        return made

    def collide() -> None:
        with socket.socket(socket.AF_INET6 if ":" in pod else socket.AF_INET, socket.SOCK_STREAM) as direct:
            direct.settimeout(SHORT)
            direct.bind((node, delivered.getsockname()[1]))
            with contextlib.suppress(OSError):
                direct.connect((pod, 8080))

    def talk() -> None:
        for sender, receiver in ((delivered, served), (served, delivered)):
            receiver.settimeout(TIMEOUT)
            sender.sendall(b"x" * 3000)
            assert receiver.recv(3000, socket.MSG_WAITALL) == b"x" * 3000

    with (
        listen(pair.pod, pod, 8080) as server,
        in_namespace(pair.pod, deliver) as delivered,
        server.accept()[0] as served,
    ):
        talk()
        asyncio.run(apply.release(str(pair.pod), CAPTURE))
        if not is_idle:
            talk()
        in_namespace(pair.node, collide)
        talk()


def test_what_a_leaving_pod_opens_comes_from_other_ports_than_what_proxies_deliver_for_it(pair: Pair) -> None:
    """Both kernels would take the same ones, in the same order."""

    def deliver() -> int:
        with socket.socket() as made:
            make_transparent(made, PROXY_MARK)
            made.settimeout(TIMEOUT)
            made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            made.bind((NODE, 0))
            made.connect((POD, 8080))
            return int(made.getsockname()[1]) % 2

    def opened() -> int:
        with dial(pair.pod, NODE, 8080) as made:
            return int(made.getsockname()[1]) % 2

    netns = str(pair.pod)
    with listen(pair.pod, POD, 8080), listen(pair.node, NODE, 8080):
        assert in_namespace(pair.pod, deliver) == 0
        asyncio.run(apply.release(netns, CAPTURE))
        assert {opened() for _ in range(10)} == {1}
        asyncio.run(apply.redirect(netns, CAPTURE))
        assert in_namespace(pair.pod, deliver) == 0
        asyncio.run(apply.release(netns, CAPTURE))
        asyncio.run(apply.remove(netns, CAPTURE))
        assert {opened() for _ in range(10)} == {0}


def test_removal_leaves_nothing() -> None:
    def state() -> str:
        commands = (
            "nft list ruleset",
            "ip rule",
            "ip -6 rule",
            "ip route show table 100",
            "sysctl net.ipv4.ip_local_port_range",
        )
        return "".join(
            subprocess.run(
                ["nsenter", f"--net={made.pod}", *each.split()], check=False, capture_output=True, text=True
            ).stdout
            for each in commands
        )

    with Pair(f"acap{os.getpid()}") as made:
        before = state()
        asyncio.run(apply.redirect(str(made.pod), CAPTURE))
        assert state() != before
        for _ in range(2):
            asyncio.run(apply.remove(str(made.pod), CAPTURE))
        assert state() == before


def test_other_udp_passes_and_is_counted(pair: Pair) -> None:
    with (
        in_namespace(pair.node, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server,
        in_namespace(pair.pod, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client,
    ):
        server.settimeout(TIMEOUT)
        server.bind((NODE, 9999))
        client.sendto(b"1234", (NODE, 9999))
        assert server.recv(100) == b"1234"
    assert counters.read(str(pair.pod), ruleset.TABLE)["udp_sent"] == counters.Count(1, 20 + 8 + 4)


def test_when_a_namespace_is_not_for_this() -> None:
    with Pair(f"acap{os.getpid()}") as pair:
        netns = str(pair.pod)
        assert steering.objection(netns, OWN) == ""
        assert "fd09::2" in steering.objection(netns, OWN[:1])
        subprocess.run(
            ["ip", "-n", pair.pod.name, "rule", "add", "pref", "1000", "fwmark", "7", "lookup", "7"],
            check=True,
        )
        assert "1000" in steering.objection(netns, OWN)


def test_the_kernel_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trial.problem() == ""
    monkeypatch.setattr(ruleset, "redirect", lambda _: "table inet ambit { rubbish }")
    assert "nft" in trial.problem()
    monkeypatch.setattr(ruleset, "redirect", lambda _: "")
    monkeypatch.setattr(trial, "_TIMEOUT", SHORT)
    assert trial.problem() != ""
