"""A pod at its limit of destinations, with a real Envoy: it goes on, and nothing that is open is cut."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ambit.node.configuration import destinations, turnover
from ambit.node.process import NodeAgent
from tests.node.world import Pod, World, making, until

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
PORTS = range(8100, 8112)


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for module, name, value in (
        (destinations, "MAX_DESTINATIONS", 5),
        (turnover, "GRACE", 0.5),
        (turnover, "INTERVAL", 0.0),
        (turnover, "LOOK_SECONDS", 0.2),
    ):
        monkeypatch.setattr(module, name, value)
    async with making(tmp_path) as world:
        yield world


def echo(connection: socket.socket, _: str) -> None:
    while part := connection.recv(100):
        connection.sendall(part)


async def lives(connection: socket.socket) -> bool:
    connection.sendall(b"x")
    return await asyncio.to_thread(connection.recv, 1) == b"x"


def generations(agent: NodeAgent, pod: Pod) -> tuple[int, ...]:
    return next(each.generations for each in agent.configuration.pods if each.uid == pod.uid)


async def test_it_goes_on_and_nothing_is_cut(world: World) -> None:
    one, two = await world.node("node1"), await world.node("node2")
    client = await world.pod("client", one, "client")
    near = await world.pod("near", one, "near")
    far = await world.pod("far", two, "far")
    outside = await asyncio.to_thread(world.network.host, "outside")
    for server in (near, far, outside):
        for port in PORTS:
            server.listen(port, echo)
    agent = one.agent
    assert agent is not None
    for each in (near, far):
        await until(lambda each=each: agent.state.workload_by_address("", each.four) is not None)
    held = [await asyncio.to_thread(client.connect, server.four, PORTS[0]) for server in (near, far, outside)]

    async def ask(server: Pod, port: int) -> None:
        with await asyncio.to_thread(client.connect, server.four, port) as connection:
            assert await lives(connection)

    for port in PORTS[:6]:
        await ask(far, port)
    assert not agent.configuration.destinations.capped
    await until(lambda: generations(agent, client)[-1] > 0)
    await until(lambda: not any(name.startswith("dst|") for name in _clusters(agent)))
    for connection in held:
        assert await lives(connection)
    await ask(near, PORTS[0])
    await ask(far, PORTS[1])

    # Also over a restart of the agent, which Envoy asks for all names that it ever asked for.
    before = generations(agent, client)
    assert len(before) > 1
    await one.stop()
    agent = await one.start()
    assert generations(agent, client) == before
    for connection in held:
        assert await lives(connection)
    for port in PORTS:
        await ask(near, port)
    for connection in held:
        assert await lives(connection)
        connection.close()
    last = generations(agent, client)[-1]
    assert last > before[-1]
    await until(lambda: len(generations(agent, client)) == 1)
    await ask(far, PORTS[0])
    assert not agent.configuration.destinations.capped


def _clusters(agent: NodeAgent) -> list[str]:
    type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    return list(agent.server.store.resources(type_url))


async def test_no_connection_fails_while_a_pod_begins_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "MAX_DESTINATIONS", 10)
    monkeypatch.setattr(turnover, "INTERVAL", 3600.0)
    monkeypatch.setattr(turnover, "GRACE", 2.0)
    one = await world.node("node1")
    client = await world.pod("client", one, "client")
    near = await world.pod("near", one, "near")
    for port in PORTS:
        near.listen(port, echo)
    agent = one.agent
    assert agent is not None
    await until(lambda: agent.state.workload_by_address("", near.four) is not None)
    stop = threading.Event()

    def ask(port: int) -> str:
        try:
            with client.connect(near.four, port) as connection:
                connection.sendall(b"x")
                return "" if connection.recv(1) == b"x" else "end"
        except OSError as problem:
            return str(problem)

    def work(first: int) -> tuple[int, set[str]]:
        """How often it asked, and what failed."""
        asked, failures = 0, set()
        while not stop.is_set():
            failures.add(ask(PORTS[(first + asked) % 8]))
            asked += 1
        return asked, failures

    working = [asyncio.create_task(asyncio.to_thread(work, first)) for first in range(3)]
    for port in PORTS[8:]:
        assert not await asyncio.to_thread(ask, port)
    await until(lambda: generations(agent, client) == (0, 1))
    await until(lambda: not any(name.startswith("dst|") for name in _clusters(agent)))
    await until(lambda: generations(agent, client) == (1,))
    stop.set()
    for asked, failures in await asyncio.gather(*working):
        assert asked > 10 and failures == {""}
