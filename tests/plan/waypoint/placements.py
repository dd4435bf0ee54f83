"""Where requests are read: at a waypoint in a pod, or inline, where who asks and who serves are.

Both must give the same answers, so every test of this package runs at both, but for those that say why not.
"""

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.ingest.waypoints.inline import problem
from ambit.model.inline_rules import InlineRules
from ambit.model.jwt import with_keys
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.telemetry import InlineTelemetry
from ambit.node.cut import cut_unread
from ambit.plan import targets
from ambit.plan.l7.waypoint import Bound
from ambit.plan.node import at_pod, node_proxy
from ambit.plan.values import LocalPods
from tests.plan.dataplane.agent import Agent
from tests.plan.dataplane.conftest import Mesh
from tests.plan.dataplane.served import until

WAYPOINT, INLINE = "waypoint", "inline"
_GATEWAY = ObjectRef("Gateway", "default", "waypoint")
_PROXY = Proxy(
    "default/waypoint", ProxyKind.INLINE, Identity("cluster.local", "default", "waypoint"), "", _GATEWAY
)


def at_waypoints_only(why: str) -> pytest.MarkDecorator:
    """For a test that cannot be true of an inline waypoint, or is not yet (docs/limits.md)."""
    assert why
    return pytest.mark.parametrize("placement", [WAYPOINT], indirect=True)


def make_inline(mesh: Mesh, bound: Bound) -> None:
    """All nodes are told that what is bound has no proxy between: what the control plane makes of it, and says."""
    made = {each.key: _inline(each, bound) for each in bound.services}
    _tell(mesh, made)


def make_bound(mesh: Mesh, services: tuple[Service, ...]) -> None:
    """All nodes are told that these have a waypoint again."""
    _tell(mesh, {each.key: each for each in services})


def _inline(given: Service, bound: Bound) -> Service:
    tables = tuple(each for each in bound.routes.values() if each.service == given.key)
    rules = InlineRules(
        tuple(
            each
            for each in sorted(bound.authorization, key=lambda policy: policy.key)
            if targets.concern(each.targets, _PROXY, given)
        ),
        with_keys(
            sorted(
                (each for each in bound.tokens if targets.concern(each.targets, _PROXY, given)),
                key=lambda policy: policy.key,
            ),
            bound.keys,
        ),
    )
    assert not problem(given, tables, rules), "what nodes would be told of is closed"
    return msgspec.structs.replace(
        given,
        waypoint=None,
        inline=tables,
        rules=rules if rules.say_anything else None,
        telemetry=InlineTelemetry(_PROXY, bound.telemetry) if bound.telemetry else None,
    )


def _tell(mesh: Mesh, made: Mapping[str, Service]) -> None:
    mesh.services = [made.get(each.key, each) for each in mesh.services]
    policies = {}
    for pod in mesh.pods.values():
        served = [made[key] for key in pod.workload.services if key in made]
        closing = [found for each in served if (found := each.closing(pod.workload)) is not None]
        policies.update({each.key: each for each in closing})
        names = tuple(sorted(each.key for each in closing))
        pod.workload = msgspec.structs.replace(pod.workload, policies=names)
    mesh.policies = list(policies.values())
    before = {agent.name: _read(agent) for agent in mesh.agents.values()}
    mesh.update()
    for agent in mesh.agents.values():
        until(agent.has_all, f"an Envoy of {agent.name} that has all it needs")
        new = {key: ports - before[agent.name][key] for key, ports in _read(agent).items()}
        if any(new.values()):
            asyncio.run(cut_unread(new, LocalPods(agent.pods.values())))


def _read(agent: Agent) -> dict[str, set[int]]:
    """The ports of each pod of a node whose requests are read there, if only to be told of: a node leaves connections
    alone that are older than that, but a test wants its next request told."""
    found = {}
    for key, pod in agent.pods.items():
        workload = node_proxy.workload_of(pod, agent.view, agent.settings)
        ports = at_pod.ports_of(workload, agent.view)
        found[key] = {number for number, port in ports.items() if port.is_read or port.is_told}
    return found
