"""What the callers' nodes tell of requests that have no proxy between: one record each, as a waypoint tells them."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from ambit.agent.record import Flow, Reporter, RequestPart
from ambit.cli.both_sides import agreed
from ambit.model.http import (
    Action,
    Backend,
    Entry,
    PathChange,
    PathKind,
    PathMatch,
    RequestMatch,
    Retry,
    Rewrite,
)
from ambit.model.policy import Action as Verdict
from ambit.model.policy import Authorization, Clause, Exact, Match, Rule, Scope
from ambit.model.request_policy import Attribute, RequestAction
from ambit.node.cut import cut_denied
from ambit.plan.values import LocalPods
from tests.plan.dataplane.agent import Agent
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import EMPTY, OUTSIDE, PORT, TARGET, V1, V2, WEB, Scene
from tests.plan.waypoint.placements import INLINE
from tests.plan.waypoint.test_authorization import enforce, one, policy, rule

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    pytest.mark.parametrize("placement", [INLINE], indirect=True),
]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def told(agent: Agent, path: str, reporter: Reporter = Reporter.SOURCE) -> tuple[Flow, RequestPart]:
    """The record that a node has of the one request for this path."""
    found: list[tuple[Flow, RequestPart]] = []

    def came() -> bool:
        records = ((each, each.request) for each in agent.told())
        found[:] = [
            (flow, part)
            for flow, part in records
            if part is not None and (part.path, flow.reporter) == (path, reporter)
        ]
        return bool(found)

    until(came, f"record of {path}")
    (only,) = found
    return only


def test_a_request(scene: Scene) -> None:
    """Nobody says of himself where he is."""
    before = time.time()
    said = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x_request_id": "mine"}
    scene.get("/record?secret=1", x_forwarded_for="192.0.2.7", **said)
    flow, request = told(scene.client.agent, "/record")
    assert before - 1 < flow.time < time.time()
    assert 0 < flow.milliseconds < 20_000
    assert (flow.reporter, flow.proxy, flow.node) == (Reporter.SOURCE, "", "node1")
    assert (flow.hop, flow.decision, flow.error, flow.mutual_tls) == ("tunnel", "allow", "", True)
    assert flow.source.address.rpartition(":")[0] == str(scene.client.workload.addresses[0])
    assert (flow.source.identity, flow.source.workload) == (scene.client.identity.uri, "client")
    server, pod = flow.destination, scene.mesh.pods["v1"]
    assert server.address == f"{pod.workload.addresses[0]}:{TARGET}"
    assert (server.workload, server.identity, server.service) == ("v1", pod.identity.uri, WEB.key)
    assert (request.method, request.host, request.code, request.protocol) == ("GET", "web", 200, "HTTP/1.1")
    assert (request.route, request.attempts) == (f"{WEB.key}:{PORT}", 1)
    assert (request.trace, request.id) == (TRACE, "mine")
    assert flow.trace == "", "the tunnels behind a connection are shared by several"


def test_what_was_asked_is_told_whatever_a_route_makes_of_it(scene: Scene) -> None:
    change = Rewrite("else.where", PathChange("/new", is_prefix=True))
    match = RequestMatch(path=PathMatch(PathKind.PREFIX, "/old"))
    scene.route(Entry("shop/web/moved", match, Action((Backend(V2.key, PORT),), rewrite=change)))
    assert scene.get("/old/place").echo["path"] == "/new/place"
    flow, request = told(scene.client.agent, "/old/place")
    assert (request.host, request.route) == ("web", "shop/web/moved")
    assert (flow.destination.workload, flow.destination.service) == ("v2", WEB.key)


def test_tries_are_counted(scene: Scene) -> None:
    retry = Retry(attempts=2, codes=(503,), backoff=5)
    scene.route(Entry("again", RequestMatch(), Action((Backend(V1.key, PORT),), retry=retry)))
    assert scene.get("/again", x_want_status="503").status == 503
    _, request = told(scene.client.agent, "/again")
    assert (request.code, request.attempts) == (503, 3)


def test_what_was_answered_without_a_server(scene: Scene) -> None:
    scene.route(Entry("a", RequestMatch(path=PathMatch(PathKind.EXACT, "/a")), Action(status=503)))
    assert scene.get("/no/route").status == 404
    flow, request = told(scene.client.agent, "/no/route")
    assert (flow.hop, flow.error, request.code, request.attempts) == ("answered", "no route found", 404, 0)
    assert (flow.destination.address, flow.destination.service) == (f"{WEB.hostname}:{PORT}", WEB.key)
    assert scene.get("/nobody", to=EMPTY).status == 503
    flow, request = told(scene.client.agent, "/nobody")
    assert (flow.hop, flow.error, request.flags) == ("answered", "no healthy upstream", "UH")


def test_an_endpoint_without_a_tunnel(scene: Scene) -> None:
    scene.get("/plain", to=OUTSIDE)
    flow, _ = told(scene.client.agent, "/plain")
    assert (flow.hop, flow.mutual_tls, flow.destination.workload) == ("direct", False, "plain")


def test_on_one_node_too(scene: Scene) -> None:
    """Where the server's side has no record, because nothing is read there."""
    near = scene.mesh.pods["v2"]
    scene.get("/near", source=near)
    flow, _ = told(near.agent, "/near")
    assert (flow.hop, flow.mutual_tls, flow.node) == ("same-node", True, "node2")
    assert (flow.source.workload, flow.destination.workload) == ("v2", "v1")


@contextmanager
def closed(scene: Scene, name: str) -> Iterator[None]:
    """A pod to which nobody may connect."""
    denied = Authorization(
        "closed",
        "default",
        Scope.WORKLOAD_SELECTOR,
        Verdict.DENY,
        (Rule((Clause((Match(destination_ports=(TARGET,)),)),)),),
    )
    pod = scene.mesh.pods[name]
    pod.workload = msgspec.structs.replace(pod.workload, policies=(denied.key,))
    scene.mesh.policies = [denied]
    scene.mesh.update()
    agent = pod.agent
    asyncio.run(cut_denied([pod.local], agent.view, LocalPods(agent.pods.values()), agent.settings))
    try:
        yield
    finally:
        scene.bind()


def test_who_may_not_connect_on_one_node_is_told_by_which_policy(scene: Scene) -> None:
    near = scene.mesh.pods["v2"]
    with closed(scene, "v1"):
        assert scene.get("/closed", source=near).status == 503
        flow, request = told(near.agent, "/closed")
    assert (flow.decision, flow.policy, request.code) == ("deny", "default/closed[0]", 503)


@pytest.mark.parametrize("who", ["client", "v2"])
def test_the_rule_that_the_servers_node_decided_by_is_told_of_both_sides(scene: Scene, who: str) -> None:
    path = f"/secret/{who}"
    enforce(scene, policy(RequestAction.DENY, rule(one(Attribute.PATH, Exact(path)))))
    pod = scene.mesh.pods[who]
    assert scene.get(path, source=pod).status == 403
    source, request = told(pod.agent, path)
    server, _ = told(scene.mesh.pods["v1"].agent, path, Reporter.DESTINATION)
    assert (source.decision, request.code, server.decision) == ("allow", 403, "deny")
    both = agreed([msgspec.to_builtins(each) for each in (source, server)])
    assert [(each["decision"], each["policy"]) for each in both] == [("deny", "default/p[0]")] * 2
