"""Access logs as Telemetry and the mesh's settings want them, printed by a real Envoy."""

import json

import pytest

from ambit.ingest.mesh_settings.log_format import mesh_logs
from ambit.model.telemetry import Level, LogFormat, LogRule, Printer, TelemetryPolicy
from tests.ingest.istio.test_telemetry import READABLE
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import Scene
from tests.plan.waypoint.placements import at_waypoints_only

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    at_waypoints_only("nodes print no lines of Telemetries"),
]
FORMAT = (
    "mine %START_TIME(%s)% %REQ(:METHOD)% %REQ(X-A?:PATH):60% %RESP(x-served-by)% %TRAILER(T)% %HOSTNAME% %TRACE_ID% "
    "%DYNAMIC_METADATA(a.b:c)% %FILTER_STATE(ambit.caller:PLAIN)% 5%%"
)


def printing(scene: Scene, *rules: LogRule) -> None:
    scene.bind(telemetry=(TelemetryPolicy("root/all", Level.MESH, rules),))


def lines(scene: Scene, path: str) -> list[str]:
    return [each for each in scene.waypoint.printed().splitlines() if path in each]


def test_a_line_as_istios_proxies_print_it(scene: Scene) -> None:
    printing(scene, LogRule((Printer(),)))
    scene.get("/usual", user_agent="me")
    until(lambda: bool(lines(scene, "/usual")), "a line")
    (line,) = lines(scene, "/usual")
    assert '"GET /usual HTTP/1.1" 200 - via_upstream - "-" 0 ' in line
    assert '"me"' in line


def test_only_what_the_filter_is_true_of(scene: Scene) -> None:
    printing(scene, LogRule((Printer(),), "response.code >= 400 && request.method == 'GET'"))
    scene.get("/filtered/good")
    scene.get("/filtered/bad", x_want_status="404")
    until(lambda: bool(lines(scene, "/filtered/bad")), "the line of the failure")
    assert lines(scene, "/filtered/good") == []


def test_objects_of_members(scene: Scene) -> None:
    wanted = LogFormat(members=(("where", "%REQ(:PATH)%"), ("code", "%RESPONSE_CODE%")), is_json=True)
    printing(scene, LogRule((Printer(format=wanted),)))
    scene.get("/members")
    until(lambda: bool(lines(scene, "/members")), "a line")
    assert json.loads(lines(scene, "/members")[0]) == {"where": "/members", "code": 200}


def test_the_usual_members(scene: Scene) -> None:
    printing(scene, LogRule((Printer(format=LogFormat(is_json=True)),)))
    scene.get("/whole", x_forwarded_for="192.0.2.7")
    until(lambda: bool(lines(scene, "/whole")), "a line")
    told = json.loads(lines(scene, "/whole")[0])
    assert (told["method"], told["path"], told["response_code"]) == ("GET", "/whole", 200)
    own = str(scene.client.workload.addresses[0])
    assert told["downstream_remote_address"].rpartition(":")[0] == own
    assert told["x_forwarded_for"] == "192.0.2.7"


def test_a_format_of_the_meshs_settings(scene: Scene) -> None:
    printing(scene, LogRule(mesh_logs("/dev/stdout", FORMAT, is_json=False, name="f").printers))
    scene.get("/formatted")
    until(lambda: bool(lines(scene, "/formatted")), "a line")
    (line,) = lines(scene, "/formatted")
    assert line.startswith("mine 1") and line.endswith(f"{scene.client.identity.uri} 5%")


def test_every_filter_that_passes_the_check_passes_envoy(scene: Scene) -> None:
    """`bind` fails when Envoy rejects anything."""
    for text in READABLE:
        printing(scene, LogRule((Printer(),), text))
    assert not scene.waypoint.rejections
