"""Values of expressions as labels of metrics, as a real Envoy tells them, at a waypoint and at who calls."""

import re

import pytest

from ambit.agent import request_metrics
from ambit.ingest.istio.log_filter import check
from ambit.model.jwt import Target
from ambit.model.metrics import MetricsRule
from ambit.model.telemetry import Level, TelemetryPolicy
from ambit.plan.telemetry.metrics import note_of
from tests.ingest.istio.test_telemetry import READABLE
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import EMPTY, PROXY, WEB, Scene
from tests.plan.waypoint.placements import at_waypoints_only

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    at_waypoints_only("what nodes count is tried in tests/mesh/test_waypoint.py"),
]
COUNT = "istio_requests"
VALUES = {
    "team": "request.headers['x-team']",
    "host": "request.host",
    "port": "destination.port",
    "code": "response.code",
    "kind": "request.headers['x-team'].startsWith('r') ? 'r)' : 'other'",
    "gone": "request.headers['x-none']",
    "path": "request.url_path",
}


def counting(scene: Scene, values: dict[str, str], **fields: object) -> list[TelemetryPolicy]:
    for each in values.values():
        check(each)
    rule = MetricsRule((COUNT,), expressions=tuple(sorted(values.items())))
    policy = TelemetryPolicy("root/all", **{"level": Level.MESH, "metrics": (rule,), **fields})  # type: ignore[arg-type]
    scene.bind(telemetry=(policy,))
    return [policy]


def counted(scene: Scene, policies: list[TelemetryPolicy], host: str) -> list[dict[str, str]]:
    """Labels of requests to a host, with their number as `#`."""
    note = note_of(policies, PROXY, [WEB, EMPTY])
    with scene.waypoint.lock:
        lines = "".join(request_metrics.render(scene.waypoint.requests.series, note)).splitlines()
    found = [
        {**dict(re.findall(r'(\w+)="([^"]*)"', line)), "#": line.rpartition(" ")[2]}
        for line in lines
        if line.startswith("istio_requests_total{")
    ]
    return [each for each in found if each.get("host") == host]


def test_what_a_request_says_is_a_label(scene: Scene) -> None:
    policies = counting(scene, VALUES)
    for team in ("red", "red", "blue"):
        scene.get("/a%25b?x=1", host="labels", x_team=team)
    until(lambda: sum(int(each["#"]) for each in counted(scene, policies, "labels")) == 3, "three requests")
    red, blue = counted(scene, policies, "labels")
    assert (red["team"], red["#"], blue["team"], blue["#"]) == ("red", "2", "blue", "1")
    assert (red["kind"], blue["kind"]) == ("r)", "other")
    assert (red["port"], red["code"], red["gone"]) == ("80", "200", "unknown")
    assert red["path"] == "/a%25b"


def test_what_is_long_is_cut(scene: Scene) -> None:
    policies = counting(scene, {"team": VALUES["team"], "host": "request.host"})
    scene.get("/", host="long", x_team="x" * 10_000)
    until(lambda: bool(counted(scene, policies, "long")), "a request")
    (found,) = counted(scene, policies, "long")
    assert found["team"] == "x" * 128


def test_only_records_of_services_that_are_meant_have_values(scene: Scene) -> None:
    of_empty = {"level": Level.TARGET, "targets": (Target("Service", "default", "empty"),)}
    policies = counting(scene, {"host": "request.host"}, **of_empty)
    scene.get("/", host="meant")
    scene.get("/", host="meant", to=EMPTY)
    until(lambda: bool(counted(scene, policies, "meant")), "a request")
    (found,) = counted(scene, policies, "meant")
    assert (found["destination_service"], found["#"]) == (EMPTY.hostname, "1")


def test_every_expression_that_passes_the_check_passes_envoy(scene: Scene) -> None:
    """`bind` fails when Envoy rejects anything."""
    counting(scene, {f"l{i}": text for i, text in enumerate(READABLE) if "%" not in text})
    scene.get("/", host="many")
    assert not scene.waypoint.rejections
