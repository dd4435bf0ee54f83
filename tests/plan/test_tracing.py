"""What counts when several things are said about spans."""

from ipaddress import ip_address

import msgspec
import pytest
from envoy.config.endpoint.v3 import endpoint_pb2
from google.protobuf.any_pb2 import Any

from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.jwt import Target
from ambit.model.provider import ProviderService
from ambit.model.proxy import ProxyKind
from ambit.model.telemetry import Level, LogRule, LogService, Printer, TelemetryPolicy
from ambit.model.tracing import SpanTag, TagSource, Tracer, Tracing, TracingRule
from ambit.model.view import Snapshot
from ambit.model.workload import Port, Workload
from ambit.plan.backends import Provider
from ambit.plan.l7 import waypoint
from ambit.plan.l7.waypoint import Bound
from ambit.plan.telemetry.telling import collectors, told_of
from ambit.plan.telemetry.tracing import spans_of, tracing_of
from ambit.plan.values import ENDPOINTS, NodeSettings
from tests.plan.test_request_logs import PROXY, WEB

ONE = Tracer("one", ProviderService("otel.obs.svc.cluster.local", 4317), 3000)
TWO = Tracer("two", ProviderService("otel.example.com", 443, "obs"), 3000)
TAGS = (SpanTag("a", TagSource.LITERAL, "b"),)
OF_WEB = (Target("Service", "shop", "web"),)
PORT = Port(80, 8080)


def policy(level: Level, *rules: TracingRule, **more: object) -> TelemetryPolicy:
    fields: dict[str, object] = {"namespace": "shop", "tracing": rules, **more}
    return TelemetryPolicy("shop/b", level, **fields)  # type: ignore[arg-type]


MESH = policy(Level.MESH, TracingRule(ONE, 5.0, tags=TAGS))


def test_nobody_is_told_unless_a_provider_is_named() -> None:
    assert tracing_of([], PROXY, WEB) is None
    assert tracing_of([policy(Level.MESH, TracingRule(sampling=100.0))], PROXY, WEB) is None
    assert tracing_of([MESH], PROXY, WEB) == Tracing(ONE, 5.0, TAGS)
    assert tracing_of([policy(Level.MESH, TracingRule(ONE))], PROXY, WEB) == Tracing(ONE, 1.0)


@pytest.mark.parametrize(
    ("nearer", "wanted"),
    [
        (policy(Level.NAMESPACE, TracingRule(sampling=50.0)), Tracing(ONE, 50.0, TAGS)),
        (policy(Level.NAMESPACE, TracingRule(sampling=0.0, tags=())), Tracing(ONE, 0.0)),
        (
            policy(Level.NAMESPACE, TracingRule(TWO, propagated=False)),
            Tracing(TWO, 5.0, TAGS, propagated=False),
        ),
        (policy(Level.NAMESPACE, TracingRule(disabled=True)), None),
        (
            policy(Level.NAMESPACE, TracingRule(disabled=True), TracingRule(disabled=False)),
            Tracing(ONE, 5.0, TAGS),
        ),
        (policy(Level.NAMESPACE, TracingRule(disabled=True), namespace="else"), Tracing(ONE, 5.0, TAGS)),
        (policy(Level.NAMESPACE, TracingRule(disabled=True, at_waypoints=False)), Tracing(ONE, 5.0, TAGS)),
        (
            policy(Level.TARGET, TracingRule(by_request_id=False), targets=OF_WEB),
            Tracing(ONE, 5.0, TAGS, False),
        ),
    ],
)
def test_what_is_nearer_replaces_what_it_says(nearer: TelemetryPolicy, wanted: Tracing | None) -> None:
    assert tracing_of([nearer, MESH], PROXY, WEB) == wanted


def test_of_one_level_the_oldest_counts_that_says_anything_of_spans() -> None:
    silent = policy(Level.NAMESPACE, created="2024")
    old = policy(Level.NAMESPACE, TracingRule(sampling=1.0), created="2025")
    new = policy(Level.NAMESPACE, TracingRule(sampling=2.0), created="2026")
    found = tracing_of([new, old, silent, MESH], PROXY, WEB)
    assert found is not None and found.sampling == 1.0


def test_gateways_are_clients_of_what_they_lead_to() -> None:
    edge = msgspec.structs.replace(PROXY, kind=ProxyKind.GATEWAY)
    served = policy(Level.NAMESPACE, TracingRule(disabled=True, at_gateways=False))
    assert tracing_of([served, MESH], edge) is not None
    spans = spans_of([MESH], edge, NodeSettings(node="", cluster_id="east"))
    assert spans is not None and spans.is_edge
    assert (spans.service, dict(spans.about)["istio.cluster_id"]) == ("way.shop", "east")


def test_collectors_are_services_of_some_namespace() -> None:
    elsewhere = policy(Level.NAMESPACE, TracingRule(ONE), namespace="else")
    own = policy(Level.TARGET, TracingRule(TWO), targets=OF_WEB)
    grpc = Provider("obs/otel.obs.svc.cluster.local", 4317, is_grpc=True)
    assert collectors([MESH, own], PROXY) == {grpc, Provider("obs/otel.example.com", 443, is_grpc=True)}
    assert collectors([elsewhere], PROXY) == frozenset()


SENT = Printer("otlp", to=LogService(ProviderService("logs.obs.svc.cluster.local", 4317), "mine"))
LOGGED = TelemetryPolicy("shop/logs", Level.MESH, (LogRule((SENT,)),))


def test_who_gets_access_logs_is_told_too() -> None:
    logs = Provider("obs/logs.obs.svc.cluster.local", 4317, is_grpc=True)
    grpc = Provider("obs/otel.obs.svc.cluster.local", 4317, is_grpc=True)
    assert collectors([MESH, LOGGED], PROXY) == {grpc, logs}
    told = told_of([MESH, LOGGED], PROXY, NodeSettings(node=""), WEB)
    assert told.logs == () and [(each.cluster, each.by) for each in told.sent] == [(logs.cluster, "way.shop")]


@pytest.mark.parametrize(
    ("telemetry", "parts"), [((), set()), ((LOGGED,), set()), ((MESH,), {"namespace", "workload"})]
)
def test_endpoints_are_described_in_parts_only_where_spans_may_be_told(
    telemetry: tuple[TelemetryPolicy, ...], parts: set[str]
) -> None:
    workload = Workload(
        "Kubernetes//Pod/shop/one",
        "one",
        "shop",
        Identity("cluster.local", "shop", "one"),
        (ip_address("10.244.1.2"),),
        workload_name="one",
        services={WEB.key: (PORT,)},
    )
    web = msgspec.structs.replace(WEB, ports=(PORT,))
    bound = Bound((web,), telemetry=telemetry)
    made = waypoint.resources(PROXY, bound, Snapshot([workload], [web]), NodeSettings(node=""))
    (endpoints,) = (each for each in made if each.type_url == ENDPOINTS and WEB.key in each.name)
    assignment = endpoint_pb2.ClusterLoadAssignment()
    Any.FromString(endpoints.body).Unpack(assignment)
    ((endpoint,),) = (each.lb_endpoints for each in assignment.endpoints)
    assert set(endpoint.metadata.filter_metadata[names.METADATA].fields) - {"known"} == parts
