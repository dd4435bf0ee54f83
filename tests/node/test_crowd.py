"""As many pods on one node as a kubelet takes: bare namespaces, a whole agent and a real Envoy."""

import asyncio
import ipaddress
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.node.world import REDIRECTION, Node, Pod, World, making, until
from tests.plan.dataplane.network import Host, add_namespace

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
PODS = 250
AT_ONCE = 10
"""As a kubelet starts them."""
PATIENCE = 300
"""Seconds: each pod costs the kernel and `nft` some work, which other tests wait for as well."""
MOST_FOR_EACH = 400
"""KiB of Envoy for an idle pod; usually two thirds of it."""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Namespaces that have addresses and no way out."""
    made = [_bare(number) for number in range(PODS)]
    yield made
    for host in made:
        subprocess.run(["ip", "netns", "del", host.netns.name], check=True)


def _bare(number: int) -> Host:
    name = f"crowd{os.getpid()}-{number}"
    add_namespace(name)
    four, six = f"10.78.1.{number}", f"fd78::{number + 1:x}"
    commands = f"addr add {four}/32 dev lo\naddr add {six}/128 dev lo nodad\nlink set lo up\n"
    subprocess.run(["ip", "-n", name, "-batch", "-"], input=commands, text=True, check=True)
    return Host(Path("/run/netns") / name, ipaddress.ip_address(four), ipaddress.ip_address(six))


async def each(node: Node, command: str, pods: list[Pod]) -> list[dict[str, object]]:
    """What the agent answers about every pod."""
    room = asyncio.Semaphore(AT_ONCE)

    async def told(pod: Pod) -> dict[str, object]:
        async with room:
            return await node.cni(command, pod)

    return await asyncio.gather(*map(told, pods))


def anonymous(node: Node) -> int:
    """KiB of the node's Envoy."""
    assert node.agent is not None
    envoy = node.agent.supervisor.status.current
    assert envoy is not None
    lines = Path(f"/proc/{envoy.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


@pytest.mark.timeout(3 * PATIENCE)
async def test_a_full_node_starts_restarts_its_agent_and_empties(world: World, hosts: list[Host]) -> None:
    node = await world.node("node1")
    before = anonymous(node)
    pods = [Pod(host, world, host.netns.name, node, "web") for host in hosts]
    for pod in pods:
        pod.create()
    assert await each(node, "add", pods) == [{"ok": True, "enrolled": True}] * PODS
    for pod in pods:
        pod.began()
    assert {pod.annotations[REDIRECTION] for pod in pods} == {"enabled"}
    assert (anonymous(node) - before) / PODS < MOST_FOR_EACH

    assert node.agent is not None
    envoy = node.agent.supervisor.status.current
    await node.stop()
    agent = await node.start()
    assert agent.supervisor.status.current == envoy
    assert len(agent.enroller.sandboxes) == PODS
    await until(lambda: all(map(agent.enroller.is_reviewed, agent.enroller.sandboxes)), PATIENCE)
    await until(lambda: len(agent.names) == PODS, PATIENCE)

    assert await each(node, "del", pods) == [{"ok": True}] * PODS
    assert not agent.enroller.sandboxes
    assert len(agent.names) == 0
    assert agent.state.database.execute("SELECT count(*) FROM pod").fetchone() == (0,)
    assert (anonymous(node) - before) / PODS < MOST_FOR_EACH
