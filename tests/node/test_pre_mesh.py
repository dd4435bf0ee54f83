"""Connections that are older than enrolment: seen, left alone, cut when policy refuses them. And plain text of a
client that joined the mesh later, which is no more than plain text."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Presence, Rule, Scope
from ambit.model.workload import TunnelProtocol, Workload
from ambit.node import pre_mesh
from tests.node.world import REDIRECTION, Pod, World, making, until

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
ANYONE = (Presence(),)
RESET, END = "reset", "end"


def strict(*ports: int) -> Authorization:
    """Who has no identity is denied, on these ports or on all."""
    match = Match(not_principals=ANYONE, destination_ports=ports)
    return Authorization("strict", "default", Scope.NAMESPACE, Action.DENY, (Rule((Clause((match,)),)),))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


async def outside(world: World, name: str, node: str) -> Pod:
    """A running pod that is not in the mesh, serving 8080 and 8081."""
    pod = Pod(await asyncio.to_thread(world.network.host, name), world, name, world.nodes[node], name)
    pod.create(**{"istio.io/dataplane-mode": "none"})
    pod.began()
    for port in (8080, 8081):
        pod.listen(port, echo)
    return pod


def echo(connection: socket.socket, _: str) -> None:
    while part := connection.recv(100):
        connection.sendall(part)


async def enrol(world: World, pod: Pod) -> None:
    world.api.label("pods", "default", pod.name)
    await until(lambda: pod.annotations.get(REDIRECTION) == "enabled")


async def known(world: World, pod: Pod) -> None:
    """All nodes know that the pod is reached through a tunnel."""
    for node in world.nodes.values():
        assert node.agent is not None
        state = node.agent.state
        await until(lambda state=state: _is_tunnelled(state.workload_by_address("", pod.four)))


def _is_tunnelled(workload: Workload | None) -> bool:
    return workload is not None and workload.tunnel is TunnelProtocol.HBONE


async def lives(connection: socket.socket) -> bool:
    connection.sendall(b"x")
    return await asyncio.to_thread(connection.recv, 1) == b"x"


async def how_it_ends(connection: socket.socket) -> str:
    def read() -> str:
        try:
            return END if connection.recv(1) == b"" else "data"
        except ConnectionResetError:
            return RESET

    return await asyncio.to_thread(read)


async def shown(world: World, pod: Pod) -> list[tuple[str, str, str, str]]:
    """What `/connections` says of a pod: direction, protocol, address of the client, destination."""
    await until(lambda: bool(pod.node.endpoints.ports))
    _, body = await pod.node.http("/connections")
    (found,) = (rows for key, rows in json.loads(body).items() if f"/{pod.name}/" in key)
    return sorted(
        (direction, row["protocol"], row["src"].rpartition(":")[0].strip("[]"), row["originalDst"])
        for direction, rows in found.items()
        for row in rows
    )


@pytest.mark.parametrize("family", ["four", "six"])
async def test_they_are_listed_left_alone_and_cut_by_strict(world: World, family: str) -> None:
    await world.node("node1")
    await world.node("node2")
    server = await outside(world, "server", "node1")
    client = await outside(world, "client", "node2")
    friend = await world.pod("friend", world.nodes["node2"], "friend")
    one, two, three = (str(getattr(pod, family)) for pod in (server, client, friend))
    inbound = await asyncio.to_thread(client.connect, one, 8080)
    outbound = await asyncio.to_thread(server.connect, two, 8080)
    assert await lives(inbound)
    assert await lives(outbound)

    await enrol(world, server)
    agent = world.nodes["node1"].agent
    assert agent is not None
    await known(world, server)
    await known(world, friend)
    meshed = await asyncio.to_thread(friend.connect, one, 8080)
    assert await lives(meshed)
    end = f"[{one}]:" if ":" in one else f"{one}:"
    other = f"[{two}]:" if ":" in two else f"{two}:"
    old = [("inbound", "pre-mesh", two, f"{end}8080"), ("outbound", "pre-mesh", one, f"{other}8080")]
    assert await shown(world, server) == [("inbound", "HBONE", three, f"{end}8080"), *old]
    await until(lambda: sum(agent.pre_mesh.inbound.values()) == 1)
    _, metrics = await world.nodes["node1"].http("/metrics", 1)
    assert b'ambit_pre_mesh_connections{direction="inbound"} 1' in metrics
    assert await lives(inbound)
    assert await lives(outbound)

    # A restarted agent knows them still, and takes nothing else for one of them.
    await world.nodes["node1"].stop()
    agent = await world.nodes["node1"].start()
    assert await shown(world, server) == [("inbound", "HBONE", three, f"{end}8080"), *old]

    await world.control.put(strict(8081))
    await until(lambda: agent.state.authorization("default/strict") is not None)
    assert await lives(inbound)
    await world.control.put(strict())
    assert await how_it_ends(inbound) == RESET
    assert await lives(outbound)
    assert await lives(meshed)
    await until(lambda: agent.cut == 1)
    assert await shown(world, server) == [("inbound", "HBONE", three, f"{end}8080"), old[1]]
    outbound.close()
    await until(lambda: not agent.pre_mesh.outbound)
    assert [row for row in await shown(world, server) if row[1] == "pre-mesh"] == []


def only(account: str) -> Authorization:
    """Only this account is allowed."""
    match = Match(principals=(Exact(f"cluster.local/ns/default/sa/{account}"),))
    return Authorization("only", "default", Scope.NAMESPACE, Action.ALLOW, (Rule((Clause((match,)),)),))


@pytest.mark.parametrize("policy", [strict(), only("client")])
async def test_what_policy_refused_all_along_is_cut_at_enrolment(world: World, policy: Authorization) -> None:
    """Also where the client would be allowed if its identity was known."""
    await world.node("node1")
    await world.control.put(policy)
    server, client = await outside(world, "server", "node1"), await outside(world, "client", "node1")
    held = await asyncio.to_thread(client.connect, server.four, 8080)
    assert await lives(held)
    await enrol(world, client)
    assert await lives(held)
    await enrol(world, server)
    assert await how_it_ends(held) == RESET


async def test_plain_text_of_a_client_that_joined_later_is_cut_by_strict(world: World) -> None:
    """Its address has an identity now, but this connection has none."""
    await world.node("node1")
    await world.node("node2")
    server = await world.pod("server", world.nodes["node1"], "server")
    server.listen(8080, echo)
    client = await outside(world, "client", "node2")
    held = await asyncio.to_thread(client.connect, server.four, 8080)
    assert await lives(held)
    await enrol(world, client)
    agent = world.nodes["node1"].agent
    assert agent is not None
    await known(world, client)
    await known(world, server)
    meshed = await asyncio.to_thread(client.connect, server.four, 8080)
    assert await lives(meshed)
    protocols = [row[1] for row in await shown(world, server)]
    assert protocols == ["HBONE", "TCP"]
    await world.control.put(strict())
    assert await how_it_ends(held) == RESET
    assert await lives(meshed)


async def test_a_pod_that_leaves_and_comes_back_shows_what_it_opened_meanwhile(world: World) -> None:
    node = await world.node("node1")
    server, client = await outside(world, "server", "node1"), await outside(world, "client", "node1")
    await enrol(world, client)
    held = await asyncio.to_thread(client.connect, server.four, 8080)
    assert await lives(held)
    world.api.label("pods", "default", "client", **{"istio.io__dataplane-mode": "none"})
    await until(lambda: REDIRECTION not in client.annotations)
    plain = await asyncio.to_thread(client.connect, server.four, 8081)
    assert await lives(plain)
    await enrol(world, client)
    assert node.agent is not None
    assert await shown(world, client) == [
        ("outbound", "TCP", str(client.four), f"{server.four}:8080"),
        ("outbound", "pre-mesh", str(client.four), f"{server.four}:8081"),
    ]
    assert await lives(held)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks more often than in life."""
    monkeypatch.setattr(pre_mesh, "LOOK_SECONDS", 0.2)
