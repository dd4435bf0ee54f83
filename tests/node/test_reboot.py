"""The node's machine is started anew: what is on disk speaks of processes and namespaces that are gone."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from ambit.agent.supervise import records
from ambit.daemon import process_id
from ambit.node.capture import apply as capture
from ambit.node.capture.ruleset import Capture
from ambit.node.netns import nft
from tests.node.test_agent import eventually
from tests.node.world import Node, Pod, World, making, until
from tests.plan.dataplane.network import ip

pytestmark = [pytest.mark.netns, pytest.mark.envoy]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the number of what was Envoy before."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def power_cut(node: Node) -> None:
    """The agent and its Envoy are gone at once; files stay."""
    assert node.agent is not None
    envoy = node.agent.supervisor.status.current
    assert envoy is not None
    await node.stop()
    os.kill(envoy.pid, signal.SIGKILL)
    await until(lambda: not envoy.alive)


async def new_sandbox(world: World, pod: Pod) -> Pod:
    """The same pod after its node was started anew: the kubelet makes a new sandbox for it."""
    host = await asyncio.to_thread(world.network.host, f"{pod.name}-anew")
    again = Pod(host, world, pod.name, pod.node, pod.account)
    record = world.directory / "sandboxes" / again.netns.name
    record.mkdir(parents=True)
    (record / "pod.json").write_text(json.dumps({"uid": again.uid}))
    assert await pod.node.cni("add", again) == {"ok": True, "enrolled": True}
    again.began()
    return again


async def test_the_node_serves_again_and_touches_nothing_of_others(
    world: World, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_id, "boot_id", lambda: "before")
    one, two = await world.node("node1"), await world.node("node2")
    client = await world.pod("client", one, "client")
    ended = await world.pod("ended", one, "ended")
    reused = await world.pod("reused", one, "reused")
    server = await world.pod("server", two, "server")
    server.listen(8080)
    await eventually(client, server, f"{client.four} 2")

    await power_cut(one)
    written = one.run / "envoy.json"
    record = records.read(written)
    assert record.current is not None
    began = process_id.start_time(bystander.pid)
    assert began is not None
    changed = msgspec.structs.replace(record.current, pid=bystander.pid, start_time=began)
    written.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, current=changed)))
    stale = sorted(each.name for each in one.run.glob("restart_*"))
    assert stale
    for pod in (client, ended):
        await asyncio.to_thread(ip, "netns", "del", pod.netns.name)
    # By chance a new namespace has path and number of an old one.
    await nft.load(str(reused.netns), "flush ruleset\n")
    monkeypatch.setattr(process_id, "boot_id", lambda: "after")

    agent = await one.start()
    assert bystander.poll() is None
    assert agent.supervisor.status.current is not None
    assert agent.supervisor.status.current.pid != bystander.pid
    assert agent.supervisor.status.crashes == 0
    assert not {each.name for each in one.run.glob("restart_*")} & set(stale)
    assert agent.enroller.sandboxes.keys() <= {reused.uid}
    assert agent.state.database.execute(
        "SELECT count(*) FROM pod WHERE uid = ?", (ended.uid,)
    ).fetchone() == (0,)
    assert await one.cni("add", reused) == {"ok": True, "enrolled": True}
    assert await capture.is_redirected(str(reused.netns), Capture(addresses=reused.addresses))
    world.api.delete("pods", "default", "ended")
    again = await new_sandbox(world, client)
    await eventually(again, server, f"{again.four} 2")
    assert await reused.says(server) == f"{reused.four} 2"
