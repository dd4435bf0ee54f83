"""A pod opens many connections and reads nothing: Envoy's memory stays under its limit, and other namespaces notice
nothing."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ambit.envoy import defaults
from ambit.node.load_shedding import memory_of
from tests.node.test_agent import eventually
from tests.node.world import Node, Pod, World, making, until

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
LIMIT = defaults.HEAP_LIMIT
CONNECTIONS = 1500

# Sends to every connection for as long as the client takes anything.
_FLOOD = """
import selectors, socket
chosen = selectors.DefaultSelector()
listener = socket.create_server(("", 8080), backlog=4096)
listener.setblocking(False)
chosen.register(listener, selectors.EVENT_READ)
print("listens", flush=True)
while True:
    for key, _ in chosen.select():
        if key.fileobj is listener:
            made, _ = listener.accept()
            made.setblocking(False)
            chosen.register(made, selectors.EVENT_WRITE)
            continue
        try:
            key.fileobj.send(bytes(1 << 18))
        except BlockingIOError:
            pass
        except OSError:
            chosen.unregister(key.fileobj)
            key.fileobj.close()
"""

# Opens connections and reads nothing; afterwards says how many of them have ended.
_HOARD = """
import select, socket, sys
kept = []
for _ in range(int(sys.argv[2])):
    try:
        kept.append(socket.create_connection((sys.argv[1], 8080), 20))
    except OSError:
        pass
print("opened", len(kept), flush=True)
sys.stdin.readline()
poll = select.poll()
for each in kept:
    poll.register(each, 0)
print(len({descriptor for descriptor, _ in poll.poll(0)}), flush=True)
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


@contextmanager
def script(pod: Pod, text: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A program of its own in the pod's network namespace."""
    command = ["ip", "netns", "exec", pod.netns.name, sys.executable, "-uc", text, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return (await asyncio.to_thread(process.stdout.readline)).strip()


class Watched:
    """What the victim's client hears, and the most memory that one of the nodes' Envoys had meanwhile."""

    def __init__(self, nodes: Collection[Node], client: Pod, server: Pod) -> None:
        self._nodes, self._client, self._server = nodes, client, server
        self.answers: list[str] = []
        self.slowest = 0.0
        self.peak = 0

    def used(self) -> int:
        agents = [node.agent for node in self._nodes if node.agent is not None]
        return max(memory_of([agent.supervisor.status.current.pid]) for agent in agents)  # type: ignore[union-attr]

    async def call(self) -> None:
        while True:
            started = time.monotonic()
            self.answers.append(await self._client.says(self._server))
            self.slowest = max(self.slowest, time.monotonic() - started)
            await asyncio.sleep(0.02)

    async def weigh(self) -> None:
        while True:
            self.peak = max(self.peak, self.used())
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("nodes", [1, 2])
async def test_unread_connections_of_one_namespace_cost_others_nothing(world: World, nodes: int) -> None:
    world.enrol_namespace("attacker")
    near = await world.node("node1")
    far = await world.node("node2") if nodes == 2 else near
    client, server = await world.pod("client", near), await world.pod("server", far)
    hoarder = await world.pod("hoarder", near, namespace="attacker")
    flood = await world.pod("flood", far, namespace="attacker")
    server.listen(8080)
    await eventually(client, server, f"{client.four} 2")
    watched = Watched(world.nodes.values(), client, server)
    with script(flood, _FLOOD) as flooding, script(client, _HOARD, str(flood.four), "1") as slow:
        assert await line_of(flooding) == "listens"
        assert await line_of(slow) == "opened 1"
        watching = [asyncio.ensure_future(each) for each in (watched.call(), watched.weigh())]
        with script(hoarder, _HOARD, str(flood.four), str(CONNECTIONS)) as hoarding:
            assert (await line_of(hoarding)).startswith("opened ")
            await until(lambda: near.agent.load_shedder.ended > 0)  # type: ignore[union-attr]
            settled = len(watched.answers) + 50
            await until(lambda: len(watched.answers) >= settled)
            for each in watching:
                each.cancel()
            assert set(watched.answers) == {f"{client.four} 2"}
            assert watched.peak < LIMIT, f"{watched.peak >> 20} MiB"
            hoarding.stdin.write("\n")  # type: ignore[union-attr]
            hoarding.stdin.flush()  # type: ignore[union-attr]
            assert int(await line_of(hoarding)) > 0
        # A slow reader of another namespace goes on.
        slow.stdin.write("\n")  # type: ignore[union-attr]
        slow.stdin.flush()  # type: ignore[union-attr]
        assert int(await line_of(slow)) == 0
