"""Records of requests at a waypoint, or of the node of who calls, as a service behind a tunnel, or on that node, gets
them from a real Envoy."""

import pytest

from ambit.ingest.mesh_settings.mesh_config import mesh_config
from ambit.model.provider import ProviderService
from ambit.model.telemetry import Level, LogFormat, LogRule, LogService, Printer, TelemetryPolicy
from tests.ingest.test_log_providers import WHOLE
from tests.plan.collector import GRPC_PORT, Collector, Record
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import COLLECTOR, Scene
from tests.plan.waypoint.placements import at_waypoints_only

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
]
PLACE = ProviderService(COLLECTOR.hostname, GRPC_PORT)


def otlp(text: str = "", **attributes: str) -> Printer:
    return Printer("otlp", LogFormat(text), LogService(PLACE, "mine", tuple(attributes.items())))


def telling(scene: Scene, *rules: LogRule) -> None:
    scene.bind(telemetry=(TelemetryPolicy("root/all", Level.MESH, rules),))


def told(collector: Collector, path: str) -> list[Record]:
    return [each for each in list(collector.records) if path in each.body]


def test_a_line_as_istios_proxies_send_it(scene: Scene, collector: Collector) -> None:
    telling(scene, LogRule((otlp(),)))
    scene.get("/otlp/usual", user_agent="me")
    until(lambda: bool(told(collector, "/otlp/usual")), "a record")
    (record,) = told(collector, "/otlp/usual")
    assert '"GET /otlp/usual HTTP/1.1" 200 - via_upstream' in record.body and not record.body.endswith("\n")
    assert (record.attributes, record.resource) == (
        {},
        {"service.name": "waypoint.default", "log_name": "mine"},
    )


def test_a_format_with_attributes_and_a_filter(scene: Scene, collector: Collector) -> None:
    where = "%REQ(:METHOD)% %REQ(:PATH)%"
    telling(scene, LogRule((otlp(where, code="%RESPONSE_CODE%", team="red"),), "response.code >= 400"))
    scene.get("/otlp/good")
    scene.get("/otlp/bad", x_want_status="404")
    until(lambda: bool(told(collector, "/otlp/bad")), "the record of the failure")
    (record,) = told(collector, "/otlp/bad")
    assert (record.body, record.attributes) == ("GET /otlp/bad", {"code": "404", "team": "red"})
    assert told(collector, "/otlp/good") == []


def test_envoys_own_entries(scene: Scene, collector: Collector) -> None:
    (entries,) = (
        each for each in mesh_config(WHOLE, "f").logs.printers if each.to is not None and each.to.entries
    )
    assert entries.to is not None
    to = LogService(PLACE, entries.to.log_name, entries=entries.to.entries)
    telling(scene, LogRule((Printer("entries", to=to),)))
    scene.get("/entries", x_team="red")

    def found() -> list[dict[str, str]]:
        seen = (each.request for each in list(collector.entries))
        return [dict(each.request_headers) for each in seen if each.path == "/entries"]

    until(lambda: bool(found()), "an entry")
    assert found() == [{"x-team": "red"}]


@at_waypoints_only("a node's agent prints lines")
def test_both_lines_and_records(scene: Scene, collector: Collector) -> None:
    telling(scene, LogRule((Printer(), otlp())))
    scene.get("/otlp/both")
    until(lambda: bool(told(collector, "/otlp/both")), "a record")
    until(lambda: "/otlp/both" in scene.waypoint.printed(), "a line")


def test_a_service_that_is_away_is_nobodys_trouble(scene: Scene, collector: Collector) -> None:
    for place in (ProviderService("no.default.svc.cluster.local", 1), ProviderService(PLACE.hostname, 9)):
        telling(scene, LogRule((Printer("away", to=LogService(place, "mine")),)))
        for _ in range(20):
            assert scene.get("/otlp/away").status == 200
    assert told(collector, "/otlp/away") == []
