"""What counts when several things are said about access logs."""

import msgspec
import pytest

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.model.jwt import Target
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.telemetry import Level, LogRule, Printer, RequestLog, TelemetryPolicy
from ambit.plan.telemetry.request_logs import logs_of

PROXY = Proxy(
    "shop/way",
    ProxyKind.WAYPOINT,
    Identity("cluster.local", "shop", "way"),
    "way.shop.svc.cluster.local",
    ObjectRef("Gateway", "shop", "way"),
)
WEB = Service("web", "shop", "web.shop.svc.cluster.local", canonical=True)
ENVOY, OTHER = Printer(), Printer("other")
MESH = TelemetryPolicy("root/a", Level.MESH, (LogRule((ENVOY,)),), "root")
OF_WEB = (Target("Service", "shop", "web"),)


def policy(level: Level, *rules: LogRule, **more: object) -> TelemetryPolicy:
    fields: dict[str, object] = {"namespace": "shop", **more}
    return TelemetryPolicy("shop/b", level, rules, **fields)  # type: ignore[arg-type]


def printed(
    *policies: TelemetryPolicy, subject: Service | None = WEB, kind: ProxyKind = ProxyKind.WAYPOINT
) -> list[str]:
    proxy = msgspec.structs.replace(PROXY, kind=kind)
    return [f"{each.printer.name} {each.filter}".strip() for each in logs_of(policies, proxy, subject)]


def test_nothing_is_printed_unless_somebody_says_so() -> None:
    assert logs_of([], PROXY, WEB) == ()
    assert logs_of([MESH], PROXY, WEB) == (RequestLog(ENVOY),)


@pytest.mark.parametrize(
    ("nearer", "wanted"),
    [
        (policy(Level.NAMESPACE, LogRule(disabled=True)), []),
        (policy(Level.NAMESPACE, LogRule((OTHER,))), ["other"]),
        (policy(Level.NAMESPACE, LogRule(filter="f")), ["envoy f"]),
        (policy(Level.NAMESPACE, LogRule((OTHER,)), LogRule((ENVOY,), "f")), ["envoy f", "other"]),
        (policy(Level.NAMESPACE, LogRule((ENVOY,), disabled=True)), []),
        (policy(Level.NAMESPACE, LogRule((OTHER,), disabled=True)), ["envoy"]),
        (policy(Level.NAMESPACE, LogRule(disabled=True), namespace="elsewhere"), ["envoy"]),
        (policy(Level.NAMESPACE, LogRule(disabled=True, at_waypoints=False)), ["envoy"]),
        (policy(Level.TARGET, LogRule(disabled=True), targets=OF_WEB), []),
        (policy(Level.TARGET, LogRule(disabled=True), targets=(Target("Service", "shop", "db"),)), ["envoy"]),
        (policy(Level.TARGET, LogRule(disabled=True), targets=(Target("Gateway", "shop", "way"),)), []),
    ],
)
def test_what_is_nearer_counts(nearer: TelemetryPolicy, wanted: list[str]) -> None:
    assert printed(nearer, MESH) == wanted


def test_of_one_level_the_oldest_counts() -> None:
    old = policy(Level.NAMESPACE, LogRule((OTHER,)), created="2025")
    new = policy(Level.NAMESPACE, LogRule((ENVOY,)), created="2026")
    assert printed(new, old) == ["other"]


def test_without_any_provider_there_is_envoys() -> None:
    assert printed(policy(Level.NAMESPACE, LogRule(filter="f"))) == ["envoy f"]


def test_gateways_are_clients_of_what_they_lead_to() -> None:
    served = policy(Level.NAMESPACE, LogRule((OTHER,), at_gateways=False))
    assert printed(served, MESH, subject=None, kind=ProxyKind.GATEWAY) == ["envoy"]
