"""Probes of a kubelet pass a captured pod's proxy; nothing else that comes from the host does."""

import asyncio
import ipaddress
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.core.errors import EnvironmentProblem
from ambit.core.names import PROBE_ADDRESS_V4, PROBE_ADDRESS_V6
from ambit.node.capture import apply, probes, ruleset
from ambit.node.capture.probes import HostProbes
from ambit.node.netns import nft
from ambit.node.netns.enter import in_namespace
from tests.node.capture.test_capture import NODE, NODE6, POD, POD6, TIMEOUT, Pair, dial, listen

pytestmark = pytest.mark.netns
ADDRESSES = (ipaddress.ip_address(POD), ipaddress.ip_address(POD6))
NOBODY = 65534


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The node has only its own addresses, as a kubelet's host."""
    with Pair(f"aprb{os.getpid()}") as pair:
        for address in (f"{PROBE_ADDRESS_V4}/32", f"{PROBE_ADDRESS_V6}/128"):
            ip("-n", pair.node.name, "addr", "del", address, "dev", "lo")
        yield pair


def met(pair: Pair, address: str, port: int, *, user: int = 0) -> tuple[int, str]:
    """Which port of the pod a connection from the host meets, 15006 being the proxy, and from which address."""
    wildcard = "::" if ":" in address else "0.0.0.0"
    with (
        listen(pair.pod, wildcard, port) as application,
        listen(pair.pod, wildcard, 15006) as proxy,
        _opened(pair.node, address, port, user),
    ):
        for server in select.select([application, proxy], [], [], TIMEOUT)[0]:
            accepted, (source, *_) = server.accept()
            accepted.close()
            return server.getsockname()[1], source
    raise AssertionError("nobody was reached")


def _opened(netns: Path, address: str, port: int, user: int) -> socket.socket:
    """A connection whose socket belongs to `user` (the kernel looks at the file's owner, as thread credential)."""
    import ctypes

    def make() -> socket.socket:
        # setfsuid of this thread only: glibc does not spread it, and the thread ends afterwards.
        ctypes.CDLL(None).setfsuid(user)
        client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(TIMEOUT)
        client.connect((address, port))
        return client

    return in_namespace(netns, make)


@pytest.mark.feature("F16")
@pytest.mark.parametrize(
    ("pod", "node", "probe"), [(POD, NODE, PROBE_ADDRESS_V4), (POD6, NODE6, PROBE_ADDRESS_V6)]
)
async def test_probes_pass_and_other_traffic_of_the_host_does_not(
    pair: Pair, pod: str, node: str, probe: str
) -> None:
    await apply.redirect(str(pair.pod), ruleset.Capture())
    assert await asyncio.to_thread(met, pair, pod, 8080) == (15006, node)
    host = HostProbes(str(pair.node))
    await host.admit("a", ADDRESSES, (8080,))
    assert await asyncio.to_thread(met, pair, pod, 8080) == (8080, probe)
    assert await asyncio.to_thread(met, pair, pod, 9090) == (15006, node)
    assert await asyncio.to_thread(lambda: met(pair, pod, 8080, user=NOBODY)) == (15006, node)


async def test_what_went_through_a_service_is_no_probe(pair: Pair) -> None:
    service = "10.96.0.7"
    rules = (
        "add table ip proxy\n"
        "add chain ip proxy out { type nat hook output priority -100; }\n"
        f"add rule ip proxy out ip daddr {service} tcp dport 80 dnat to {POD}:8080\n"
    )
    await nft.load(str(pair.node), rules)
    ip("-n", pair.node.name, "route", "add", service, "dev", "veth0")
    await apply.redirect(str(pair.pod), ruleset.Capture())
    await HostProbes(str(pair.node)).admit("a", ADDRESSES, (8080,))

    def through_the_service() -> str:
        with listen(pair.pod, "0.0.0.0", 15006) as proxy, dial(pair.node, service, 80):
            accepted, (source, _) = proxy.accept()
            accepted.close()
            return source

    assert await asyncio.to_thread(through_the_service) != PROBE_ADDRESS_V4


@pytest.mark.feature("F16")
async def test_a_pod_cannot_pretend_to_be_a_probe(pair: Pair) -> None:
    for command in (
        f"-n {pair.pod.name} addr add {PROBE_ADDRESS_V4}/32 dev lo",
        f"-n {pair.node.name} route add {PROBE_ADDRESS_V4} dev veth0",
    ):
        ip(*command.split())

    def arrives(patience: float) -> bool:
        def make() -> bool:
            with socket.socket() as client:
                client.settimeout(patience)
                client.bind((PROBE_ADDRESS_V4, 0))
                return client.connect_ex((NODE, 8080)) == 0

        return in_namespace(pair.pod, make)

    with listen(pair.node, NODE, 8080):
        assert await asyncio.to_thread(arrives, TIMEOUT)
        await HostProbes(str(pair.node)).admit("a", ADDRESSES, (8080,))
        assert not await asyncio.to_thread(arrives, 0.3)


@pytest.mark.feature("N19")
async def test_the_table_follows_pods_and_is_put_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_LOOK_SECONDS", 0.02)
    netns, host = str(pair.node), HostProbes(str(pair.node))
    host.note("restored", ADDRESSES, (80,))
    await asyncio.gather(*(host.admit(f"pod{n}", ADDRESSES, (n,)) for n in range(8000, 8010)))
    running = asyncio.ensure_future(host.run())
    wanted = frozenset((address, port) for address in ADDRESSES for port in (80, *range(8000, 8010)))

    async def until_written(targets: frozenset[probes.Target]) -> None:
        async with asyncio.timeout(60):
            while await nft.listing(netns, probes.TABLE, "-t") != probes.terse(targets):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    await until_written(wanted)
    assert (await nft.listing(netns, probes.TABLE)).count(f"{POD} . 80") == 11
    for spoiling in ("flush ruleset", f"flush table inet {probes.TABLE}"):
        await nft.load(netns, spoiling)
        await until_written(wanted)
    for pod in (*(f"pod{n}" for n in range(8000, 8010)), "not there"):
        host.dismiss(pod)
    await until_written(frozenset((address, 80) for address in ADDRESSES))
    host.note("without probes", ADDRESSES, ())
    host.dismiss("restored")
    await until_written(frozenset())
    host.dismiss("without probes")
    async with asyncio.timeout(60):
        while await nft.listing(netns, probes.TABLE):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()


async def test_a_host_that_cannot_be_entered_is_an_error() -> None:
    with pytest.raises(EnvironmentProblem):
        await HostProbes("/proc/1/ns/nothing").admit("a", ADDRESSES, (80,))
