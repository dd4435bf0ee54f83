"""What enters over a pod's virtual interfaces counts as sent by the pod: the rules, in real namespaces."""

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambit.node.capture import apply, ruleset
from ambit.node.enrol import virtual
from ambit.node.enrol.sandbox import Sandbox
from tests.node.capture.test_capture import (
    POD,
    POD6,
    SO_ORIGINAL_DST,
    Pair,
    dial,
    listen,
    reaches,
)
from tests.plan.dataplane.network import add_namespace

pytestmark = pytest.mark.netns
INSIDE, INSIDE6 = "172.17.0.2", "fd17::2"
ADDRESSES = (ip_address(POD), ip_address(POD6))
FAR = ("192.0.2.1", "2001:db8::1")
EVERYWHERE = {FAR[0]: "0.0.0.0", FAR[1]: "::"}


@pytest.fixture
def nested() -> Iterator[tuple[Pair, Path]]:
    """A pod, and a namespace that reaches others only through the pod, over its interface `docker0`."""
    with Pair(f"avir{os.getpid()}") as pair:
        inner = Path("/run/netns") / f"avir{os.getpid()}-in"
        add_namespace(inner.name)
        try:
            nest(pair.pod.name, inner.name)
            yield pair, inner
        finally:
            subprocess.run(["ip", "netns", "del", inner.name], check=False, capture_output=True)


def nest(pod: str, inner: str) -> None:
    for command in (
        f"-n {pod} link add docker0 type veth peer name eth0 netns {inner}",
        f"-n {pod} link set docker0 up",
        f"-n {inner} link set eth0 up",
        f"-n {pod} addr add 172.17.0.1/24 dev docker0",
        f"-n {pod} addr add fd17::1/64 dev docker0 nodad",
        f"-n {inner} addr add {INSIDE}/24 dev eth0",
        f"-n {inner} addr add {INSIDE6}/64 dev eth0 nodad",
        f"-n {inner} route add default via 172.17.0.1",
        f"-n {inner} -6 route add default via fd17::1",
    ):
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def capture(**more: bool) -> ruleset.Capture:
    return ruleset.Capture(addresses=ADDRESSES, interfaces=("docker0", "virbr0"), **more)


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("inbound", [True, False])
async def test_what_enters_there_goes_to_the_proxy_as_sent_by_the_pod(
    nested: tuple[Pair, Path], far: str, inbound: bool
) -> None:
    pair, inner = nested
    await apply.redirect(str(pair.pod), capture(inbound=inbound))
    server = listen(pair.pod, EVERYWHERE[far], 15001)

    def met() -> tuple[str, bytes]:
        with server, dial(inner, far, 80) as client:
            accepted, peer = server.accept()
            with accepted:
                accepted.sendall(b"x")
                assert client.recv(1) == b"x"
                level = socket.IPPROTO_IPV6 if ":" in far else socket.SOL_IP
                return peer[0], accepted.getsockopt(level, SO_ORIGINAL_DST, 28)

    peer, wanted = await asyncio.to_thread(met)
    assert peer == (POD6 if ":" in far else POD)
    assert socket.inet_pton(socket.AF_INET6 if ":" in far else socket.AF_INET, far) in wanted


async def test_everybody_else_is_inbound_traffic_as_ever(nested: tuple[Pair, Path]) -> None:
    pair, _ = nested
    await apply.redirect(str(pair.pod), capture())
    outbound, plaintext = (listen(pair.pod, EVERYWHERE[FAR[0]], port) for port in (15001, 15006))
    with outbound:
        assert await asyncio.to_thread(lambda: reaches(plaintext, dial(pair.node, POD, 15001)))


async def test_rules_can_be_read_back_and_leave_with_the_pod(nested: tuple[Pair, Path]) -> None:
    pair, inner = nested
    await apply.redirect(str(pair.pod), capture())
    assert await apply.is_redirected(str(pair.pod), capture())
    server = listen(pair.pod, EVERYWHERE[FAR[0]], 15001)
    client = await asyncio.to_thread(dial, inner, FAR[0], 80)
    with client, server, server.accept()[0] as accepted:
        await apply.release(str(pair.pod), capture())
        accepted.sendall(b"still")
        assert await asyncio.to_thread(client.recv, 5) == b"still"
    await apply.remove(str(pair.pod), capture())
    own = listen(pair.pod, "172.17.0.1", 8080)
    assert await asyncio.to_thread(lambda: reaches(own, dial(inner, "172.17.0.1", 8080)))


def test_only_interfaces_within_the_pod_are_taken(nested: tuple[Pair, Path]) -> None:
    pair, _ = nested
    named = ("docker0", "eth0", "lo", 'x" accept', "toolongforthekernel", "later0")
    sandbox = Sandbox("shop", "web", "u", "s", str(pair.pod), (POD, POD6), interfaces=named)
    assert virtual.without_own(sandbox).interfaces == ("docker0", "later0")
