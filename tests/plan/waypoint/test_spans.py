"""Spans of requests at a waypoint, or of the node of who calls, as a collector behind a tunnel, or on that node, gets
them from a real Envoy."""

import pytest

from ambit.model.provider import ProviderService
from ambit.model.telemetry import Level, TelemetryPolicy
from ambit.model.tracing import OverHttp, SpanTag, TagSource, Tracer, TracingRule
from tests.plan.collector import GRPC_PORT, HTTP_PORT, Collector, Span
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import COLLECTOR, PORT, WEB, Scene

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
]
HOST = COLLECTOR.hostname
OVER_GRPC = Tracer("grpc", ProviderService(HOST, GRPC_PORT), 3000, headers=(("x-key", "secret"),))
OVER_HTTP = Tracer("http", ProviderService(HOST, HTTP_PORT), 3000, OverHttp("/v1/traces"))
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SHORT = "463ac35c9f6413ad"


def tracing(scene: Scene, *rules: TracingRule, tracer: Tracer = OVER_GRPC) -> None:
    """Every request, unless the rules say otherwise."""
    every = TracingRule(tracer, 100.0)
    scene.bind(telemetry=(TelemetryPolicy("root/all", Level.MESH, tracing=(every, *rules)),))


def seen(scene: Scene, path: str, **headers: str) -> dict[str, str]:
    """The headers that reach the server."""
    answer = scene.get(path, **headers)
    assert answer.status == 200
    return {key: ", ".join(values) for key, values in answer.echo["headers"].items()}


def parents(found: list[Span]) -> list[tuple[str, str]]:
    return [(each.trace, each.parent) for each in found]


@pytest.mark.parametrize("tracer", [OVER_GRPC, OVER_HTTP], ids=lambda each: each.name)
def test_a_span_says_who_called_whom(scene: Scene, collector: Collector, tracer: Tracer) -> None:
    tracing(scene, tracer=tracer)
    path = f"/span/{scene.placement}/{tracer.name}"
    told = seen(scene, f"{path}?x=1")
    (span,) = collector.wait(path)
    assert told["traceparent"] == f"00-{span.trace}-{span.id}-01"
    assert (span.parent, span.name) == ("", f"GET {WEB.key}:{PORT}")
    assert span.resource["service.name"] == "waypoint.default"
    assert {name: value for name, value in span.tags.items() if name.startswith("istio.")} == {
        "istio.canonical_revision": "latest",
        "istio.canonical_service": "waypoint",
        "istio.cluster_id": "Kubernetes",
        "istio.mesh_id": "cluster.local",
        "istio.namespace": "default",
        "istio.source_canonical_revision": "one",
        "istio.source_canonical_service": "client",
        "istio.source_namespace": "default",
        "istio.source_workload": "client-deployment",
        "istio.destination_canonical_revision": "one",
        "istio.destination_canonical_service": "v1",
        "istio.destination_namespace": "default",
        "istio.destination_workload": "v1-deployment",
    }
    assert not [name for name in told if name.startswith("x-ambit")]
    came = collector.headers[-1]
    assert (came.get("x-key"), came.get(":path")) == (
        ("secret", None) if tracer is OVER_GRPC else (None, "/v1/traces")
    )


@pytest.mark.parametrize(
    ("headers", "wanted"),
    [
        ({"traceparent": f"00-{TRACE}-{PARENT}-01"}, (TRACE, PARENT)),
        ({"x_b3_traceid": TRACE, "x_b3_spanid": PARENT, "x_b3_sampled": "1"}, (TRACE, PARENT)),
        ({"x_b3_traceid": SHORT, "x_b3_spanid": PARENT}, (SHORT.zfill(32), PARENT)),
        ({"b3": f"{TRACE}-{PARENT}-1"}, (TRACE, PARENT)),
        ({"b3": f"{SHORT}-{PARENT}-d-{SHORT}"}, (SHORT.zfill(32), PARENT)),
        ({"b3": f"{SHORT}-{PARENT}"}, (SHORT.zfill(32), PARENT)),
        ({"b3": f"{TRACE}-{PARENT}", "traceparent": f"00-{TRACE[::-1]}-{PARENT}-01"}, (TRACE[::-1], PARENT)),
    ],
)
def test_a_request_stays_in_its_trace(
    scene: Scene,
    collector: Collector,
    headers: dict[str, str],
    wanted: tuple[str, str],
    request: pytest.FixtureRequest,
) -> None:
    tracing(scene)
    path = f"/parent/{abs(hash(request.node.name))}"
    told = seen(scene, path, **headers)
    found = collector.wait(path)
    assert parents(found) == [wanted]
    assert told["traceparent"] == f"00-{wanted[0]}-{found[0].id}-01"
    for name, value in headers.items():
        assert name == "traceparent" or told[name.replace("_", "-")] == value


@pytest.mark.parametrize(
    "headers",
    [
        {"b3": "0"},
        {"b3": "x" * 68},
        {"b3": f"{TRACE}-{PARENT}-2"},
        {"x_b3_traceid": TRACE},
        {"x_b3_traceid": "z" * 32, "x_b3_spanid": PARENT},
        {"x_ambit_b3_long": f"{TRACE}-{PARENT}-1", "x_ambit_client": "spiffe://a/ns/other/sa/b,"},
    ],
)
def test_what_is_no_trace_begins_one(
    scene: Scene, collector: Collector, headers: dict[str, str], request: pytest.FixtureRequest
) -> None:
    tracing(scene)
    path = f"/none/{abs(hash(request.node.name))}"
    seen(scene, path, **headers)
    (span,) = collector.wait(path)
    assert (span.parent, span.tags["istio.source_namespace"]) == ("", "default")
    assert span.trace != TRACE


def test_who_decided_against_it_is_heeded(scene: Scene, collector: Collector) -> None:
    tracing(scene)
    for headers in (
        {"traceparent": f"00-{TRACE}-{PARENT}-00"},
        {"b3": f"{TRACE}-{PARENT}-0"},
        {"x_b3_traceid": TRACE, "x_b3_spanid": PARENT, "x_b3_sampled": "0"},
    ):
        told = seen(scene, "/unsampled", **headers)
        assert told["traceparent"].startswith(f"00-{TRACE}-") and told["traceparent"].endswith("-00")
    seen(scene, "/sampled")
    collector.wait("/sampled")
    assert collector.of("/unsampled") == []


def test_tags(scene: Scene, collector: Collector) -> None:
    tags = (
        SpanTag("literal", TagSource.LITERAL, "yes"),
        SpanTag("header", TagSource.HEADER, "x-team"),
        SpanTag("absent", TagSource.HEADER, "x-none", "default"),
        SpanTag("environment", TagSource.ENVIRONMENT, "NO_SUCH_VARIABLE", "unset"),
        SpanTag("format", TagSource.FORMAT, "%REQ(:METHOD)% %RESPONSE_CODE%"),
        SpanTag("istio.mesh_id", TagSource.LITERAL, "mine"),
    )
    tracing(scene, TracingRule(tags=tags, usual_tags=False))
    seen(scene, "/tagged", x_team="red")
    (span,) = collector.wait("/tagged")
    wanted = ("literal", "header", "absent", "environment", "format", "istio.mesh_id", "istio.namespace")
    assert [span.tags.get(each) for each in wanted] == [
        "yes",
        "red",
        "default",
        "unset",
        "GET 200",
        "mine",
        None,
    ]


def test_the_next_hop_is_not_told_where_nobody_shall_be(scene: Scene, collector: Collector) -> None:
    tracing(scene, TracingRule(propagated=False))
    assert "traceparent" not in seen(scene, "/alone")
    collector.wait("/alone")


def test_a_collector_that_is_away_is_nobodys_trouble(scene: Scene, collector: Collector) -> None:
    for service in (ProviderService("no.default.svc.cluster.local", 1), ProviderService(HOST, HTTP_PORT)):
        tracing(scene, tracer=Tracer("away", service, 100))
        for _ in range(20):
            seen(scene, "/away")
    assert collector.of("/away") == []


def test_two_proxies_take_the_same_requests(scene: Scene, collector: Collector) -> None:
    """By the identifier that the request has."""
    tracing(scene, TracingRule(sampling=50.0))
    identifiers = [f"{i * 0x01234567:08x}-0000-4000-8000-000000000000" for i in range(16)]
    for turn in range(2):
        for i, identifier in enumerate(identifiers):
            seen(scene, f"/by/{turn}/{i:x}/", x_request_id=identifier)
    tracing(scene)
    seen(scene, "/by/end")
    collector.wait("/by/end")

    def taken(turn: int) -> list[int]:
        return [i for i in range(16) if collector.of(f"/by/{turn}/{i:x}/")]

    # Messages that have come may still be read, also after later ones.
    until(lambda: taken(0) == taken(1), "the same requests")
    assert 0 < len(taken(0)) < 16
