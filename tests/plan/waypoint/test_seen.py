"""What a waypoint tells of requests: one record each, and Istio's metrics."""

import time

import pytest

from ambit.agent import request_metrics as metrics
from ambit.agent.record import Flow, Reporter, RequestPart
from ambit.envoy import names
from ambit.model.http import Action, Backend, Entry, PathChange, PathKind, PathMatch, RequestMatch, Rewrite
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import EMPTY, OUTSIDE, PORT, PROXY, TARGET, V2, WEB, Scene
from tests.plan.waypoint.placements import at_waypoints_only

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    at_waypoints_only("what nodes tell is tried in test_seen_inline.py"),
]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def told(scene: Scene, path: str) -> tuple[Flow, RequestPart]:
    """The record of the one request for this path."""
    found: list[tuple[Flow, RequestPart]] = []

    def came() -> bool:
        records = ((each, each.request) for each in scene.waypoint.told())
        found[:] = [(flow, part) for flow, part in records if part is not None and part.path == path]
        return bool(found)

    until(came, f"record of {path}")
    (one,) = found
    return one


def counted(scene: Scene, metric: str, **labels: str) -> float:
    """The sum of all lines of a metric with these labels."""
    with scene.waypoint.lock:
        lines = "".join(metrics.render(scene.waypoint.requests.series)).splitlines()
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(f"{metric}{{") and all(each in line for each in wanted)
    )


def test_a_request(scene: Scene) -> None:
    before = time.time()
    said = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x_request_id": "mine"}
    scene.get("/record?secret=1", x_forwarded_for="192.0.2.7", **said)
    flow, request = told(scene, "/record")
    assert before - 1 < flow.time < time.time()
    assert 0 < flow.milliseconds < 20_000
    assert (flow.reporter, flow.proxy, flow.node) == (Reporter.WAYPOINT, PROXY.key, "node1")
    assert (flow.hop, flow.decision, flow.error, flow.mutual_tls) == ("tunnel", "allow", "", True)
    client = flow.source
    assert client.address.rpartition(":")[0] == str(scene.client.workload.addresses[0])
    assert (client.identity, client.namespace) == (scene.client.identity.uri, "default")
    assert (client.workload_name, client.canonical_service) == ("client-deployment", "client")
    server, pod = flow.destination, scene.mesh.pods["v1"]
    assert server.address == f"{pod.workload.addresses[0]}:{TARGET}"
    assert (server.workload, server.workload_name, server.canonical_revision) == (
        "v1",
        "v1-deployment",
        "one",
    )
    assert (server.identity, server.service) == (pod.identity.uri, WEB.key)
    assert (request.method, request.host, request.code, request.protocol) == ("GET", "web", 200, "HTTP/1.1")
    assert (request.route, request.attempts) == (f"{WEB.key}:{PORT}", 1)
    assert (request.trace, request.id) == (TRACE, "mine")


def test_the_record_and_that_of_the_callers_node_have_one_trace(scene: Scene) -> None:
    scene.get("/joined")
    flow, _ = told(scene, "/joined")
    assert flow.trace.startswith(names.trace_prefix(scene.client.local.key))
    assert len(flow.trace) == 32


def test_what_was_asked_is_told_whatever_a_route_makes_of_it(scene: Scene) -> None:
    change = Rewrite("else.where", PathChange("/new", is_prefix=True))
    match = RequestMatch(path=PathMatch(PathKind.PREFIX, "/old"))
    scene.route(Entry("shop/web/moved", match, Action(backends=(Backend(V2.key, PORT),), rewrite=change)))
    answer = scene.get("/old/place")
    assert (answer.echo["path"], answer.echo["headers"]["host"]) == ("/new/place", ["else.where"])
    flow, request = told(scene, "/old/place")
    assert (request.host, request.route) == ("web", "shop/web/moved")
    assert (flow.destination.workload, flow.destination.service) == ("v2", WEB.key)


def test_what_the_waypoint_answered_itself(scene: Scene) -> None:
    scene.route(Entry("a", RequestMatch(path=PathMatch(PathKind.EXACT, "/a")), Action(status=503)))
    assert scene.get("/no/route").status == 404
    flow, request = told(scene, "/no/route")
    assert (flow.hop, flow.error, request.code, request.attempts) == ("answered", "no route found", 404, 0)
    assert flow.destination.address == f"{WEB.hostname}:{PORT}"
    assert scene.get("/nobody", to=EMPTY).status == 503
    flow, request = told(scene, "/nobody")
    assert (flow.hop, flow.error, request.flags) == ("answered", "no healthy upstream", "UH")


def test_an_endpoint_without_a_tunnel_is_nobody_proven(scene: Scene) -> None:
    scene.get("/plain", to=OUTSIDE)
    flow, _ = told(scene, "/plain")
    assert (flow.hop, flow.mutual_tls, flow.destination.identity) == ("direct", False, "")
    assert (flow.destination.workload, flow.destination.address.rpartition(":")[2]) == ("plain", str(TARGET))


@pytest.mark.feature("F43")
def test_metrics(scene: Scene) -> None:
    labels = {
        "reporter": "waypoint",
        "source_principal": scene.client.identity.uri,
        "source_workload": "client-deployment",
        "destination_workload": "v1-deployment",
        "destination_service": WEB.hostname,
        "destination_service_name": "web",
        "request_protocol": "http",
        "response_code": "418",
        "response_flags": "-",
        "connection_security_policy": "mutual_tls",
    }
    for _ in range(3):
        scene.get("/counted", method="POST", body=b"x" * 700, x_want_status="418")
    until(lambda: counted(scene, "istio_requests_total", **labels) == 3, "three requests")
    assert counted(scene, "istio_request_bytes_sum", **labels) == 2100
    assert counted(scene, "istio_request_bytes_bucket", le="1000", **labels) == 3
    assert counted(scene, "istio_request_bytes_bucket", le="500", **labels) == 0
    assert counted(scene, "istio_response_bytes_sum", **labels) > 2100
    assert counted(scene, "istio_request_duration_milliseconds_count", **labels) == 3
    assert 0 < counted(scene, "istio_request_duration_milliseconds_sum", **labels) < 60_000
    assert counted(scene, "istio_request_messages_total", **labels) == 0


def test_messages_of_grpc(scene: Scene) -> None:
    message = b"\0\0\0\0\2hi"
    scene.get("/pkg.Service/Call", method="POST", body=message * 3, content_type="application/grpc")
    _, request = told(scene, "/pkg.Service/Call")
    labels = {"request_protocol": "grpc", "grpc_response_status": request.grpc_status}
    assert request.grpc_status
    assert counted(scene, "istio_request_messages_total", **labels) == 3
