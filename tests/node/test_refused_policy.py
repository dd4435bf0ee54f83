"""A policy that Envoy itself refuses: its pod is closed, others go on, and the next good one opens it again."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Rule, Scope
from ambit.model.workload import Workload
from ambit.xds.messages import ADDRESS_TYPE, from_resource
from tests.node.test_agent import deny, eventually, pair
from tests.node.world import World, making, until
from tests.plan.dataplane.network import REFUSED

pytestmark = [pytest.mark.netns, pytest.mark.envoy]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


def selecting(name: str, *namespaces: str) -> Authorization:
    match = Match(namespaces=tuple(map(Exact, namespaces)))
    return Authorization(name, "default", Scope.WORKLOAD_SELECTOR, Action.DENY, (Rule((Clause((match,)),)),))


async def name_policies(world: World, pod: str, *policies: str) -> None:
    """The pod's record names these."""
    resource = world.control.store.get(ADDRESS_TYPE, f"Kubernetes//Pod/default/{pod}")
    assert resource is not None
    record = from_resource(ADDRESS_TYPE, resource)
    assert isinstance(record, Workload)
    await world.control.put(msgspec.structs.replace(record, policies=policies))


async def test_a_pod_whose_policy_envoy_refuses_is_closed(world: World) -> None:
    client, server = await pair(world)
    other = await world.pod("other", world.nodes["node2"], "server")
    other.listen(8080)
    agent = world.nodes["node2"].agent
    assert agent is not None
    await eventually(client, server, f"{client.four} 2")
    await eventually(client, other, f"{client.four} 2")

    # One text that is too long for a regular expression of its own.
    await world.control.put(selecting("bad", "x" * 1_500_000))
    await name_policies(world, "server", "default/bad")
    await eventually(client, server, REFUSED)
    await until(lambda: len(agent.server.closed) == 1)
    assert "server" in agent.server.closed[0]
    assert await client.says(other) == f"{client.four} 2"

    # Later policies reach the other pods, and change nothing about the closed one.
    await world.control.put(deny("client"))
    await eventually(client, other, REFUSED)
    assert await client.says(server) == REFUSED
    await world.control.put(remove=("default/deny",))
    await eventually(client, other, f"{client.four} 2")
    assert await client.says(server) == REFUSED

    await world.control.put(selecting("bad", "somebody"))
    await eventually(client, server, f"{client.four} 2")
    assert agent.server.closed == ()
    assert not agent.server.rejections


async def test_a_policy_with_very_many_names_is_enforced(world: World) -> None:
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    strangers = [f"{number:040x}" for number in range(28_000)]
    await world.control.put(selecting("many", *strangers, "default"))
    await name_policies(world, "server", "default/many")
    await eventually(client, server, REFUSED)
    await world.control.put(selecting("many", *strangers))
    await eventually(client, server, f"{client.four} 2")
    agent = world.nodes["node2"].agent
    assert agent is not None and agent.server.closed == ()
