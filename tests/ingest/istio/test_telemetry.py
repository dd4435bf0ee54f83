"""Telemetry: what it comes to, and what is said of the rest."""

from typing import Any

import msgspec
import pytest

from ambit.ingest.istio.log_filter import LONGEST, Unreadable, check
from ambit.ingest.mesh import Change, MeshCompiler
from ambit.ingest.settings import MeshSettings
from ambit.model.jwt import Target
from ambit.model.metrics import ALL, MetricsRule
from ambit.model.provider import ProviderService
from ambit.model.status import ObjectStatus
from ambit.model.telemetry import Level, LogRule, MeshLogs, Printer, TelemetryPolicy
from ambit.model.tracing import MeshTracing, SpanTag, TagSource, Tracer, TracingRule
from ambit.objects.decoding import PROJECTIONS

READABLE = (
    "response.code >= 400",
    "response.code >= 400 && !(request.path.startsWith('/healthz') || request.method == \"GET\")",
    "request.headers['x-id'] in ['a', 'b']",
    "has(request.headers) ? size(request.host) > 3 : connection.mtls == false",
    "request.url_path.matches('^/v[0-9]+') && response.flags != 0",
    "response.code % 100 == 4 && response.size + 1 > 2 || -1 < 2",
    "true",
)
UNREADABLE = (
    "",
    "response.code >>> 400",
    "response.code >=",
    "(response.code",
    "response.code)",
    "request.path.starts('/')",
    "request.path.startsWith()",
    "run('rm')",
    "env.secret",
    "request.path == 'open",
    "request.headers['a'",
    "request. == 1",
    "string(response.code) == '200'",
    "a ? b",
    "[1, 2",
    "(" * 40 + "true" + ")" * 40,
    "true || " * LONGEST + "true",
)


@pytest.mark.parametrize("text", READABLE)
def test_filters_that_envoy_reads(text: str) -> None:
    check(text)


@pytest.mark.parametrize("text", UNREADABLE)
def test_filters_that_it_does_not_get(text: str) -> None:
    with pytest.raises(Unreadable):
        check(text)


def compiled(
    spec: dict[str, Any], namespace: str = "shop", **settings: Any
) -> tuple[list[TelemetryPolicy], list[str]]:
    """What is printed besides the default, and codes and paths of findings, without those about collectors
    that are not there (`tests.ingest.test_untold`)."""
    made = MeshCompiler(MeshSettings(**settings))
    value = PROJECTIONS["telemetries.telemetry.istio.io"].decode(
        msgspec.json.encode({"metadata": {"name": "t", "namespace": namespace}, "spec": spec})
    )
    made.apply([Change("telemetries.telemetry.istio.io", f"{namespace}/t", value)])
    findings = [f"{each.code} {each.path}" for each in made.findings if each.code != "AMB0244"]
    return [each for key, each in made.telemetry.items() if key], findings


ENVOY = {"providers": [{"name": "envoy"}]}


def test_levels() -> None:
    (mesh,), _ = compiled({"accessLogging": [ENVOY]}, "istio-system")
    (namespace,), _ = compiled({"accessLogging": [ENVOY]})
    reference = {"kind": "Service", "name": "web", "group": ""}
    (target,), _ = compiled({"accessLogging": [ENVOY], "targetRefs": [reference]})
    assert (mesh.level, namespace.level, target.level) == (Level.MESH, Level.NAMESPACE, Level.TARGET)
    assert (namespace.namespace, target.targets) == ("shop", (Target("Service", "shop", "web"),))


def test_entries() -> None:
    (policy,), findings = compiled(
        {
            "accessLogging": [
                {**ENVOY, "filter": {"expression": "response.code > 399"}},
                {"disabled": True, "match": {"mode": "CLIENT"}},
            ]
        }
    )
    assert findings == []
    assert policy.logs == (
        LogRule((Printer(),), "response.code > 399"),
        LogRule(disabled=True, at_waypoints=False),
    )


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (
            {"accessLogging": [{"providers": [{"name": "loki"}]}]},
            "AMB0241 spec.accessLogging[0].providers[0]",
        ),
        (
            {"accessLogging": [{**ENVOY, "filter": {"expression": "x"}}]},
            "AMB0241 spec.accessLogging[0].filter.expression",
        ),
        ({"accessLogging": [ENVOY], "selector": {"matchLabels": {"a": "b"}}}, "AMB0240 spec.selector"),
        ({"metrics": [{"providers": [{"name": "stackdriver"}]}]}, "AMB0242 spec.metrics[0].providers"),
        (
            {"metrics": [{"overrides": [{"match": {"metric": "RETRIES"}, "disabled": True}]}]},
            "AMB0242 spec.metrics[0].overrides[0].match",
        ),
        (
            {"metrics": [{"overrides": [{"match": {"customMetric": "mine"}, "disabled": True}]}]},
            "AMB0242 spec.metrics[0].overrides[0].match",
        ),
        ({"tracing": [{"providers": [{"name": "envoy"}]}]}, "AMB0243 spec.tracing[0].providers[0]"),
        ({"tracing": [{"customTags": {"a": {}}}]}, "AMB0243 spec.tracing[0].customTags.a"),
        (
            {"tracing": [{"customTags": {"a": {"formatter": {"value": "%FILE_CONTENT(/x)%"}}}}]},
            "AMB0243 spec.tracing[0].customTags.a.formatter.value",
        ),
        (
            {"tracing": [{"customTags": {"a": {"header": {"name": "x y"}}}}]},
            "AMB0243 spec.tracing[0].customTags.a",
        ),
    ],
)
def test_what_does_nothing_is_said(spec: dict[str, Any], code: str) -> None:
    assert compiled(spec) == ([], [code])


SPANS = Tracer("spans", ProviderService("otel.obs.svc.cluster.local", 4317), 3000)
TRACING = MeshTracing((SPANS,), TracingRule(SPANS, 5.0))


def test_entries_about_spans() -> None:
    """What an entry does not say stays open."""
    entry = {
        "providers": [{"name": "spans"}],
        "randomSamplingPercentage": 2.5,
        "disableContextPropagation": True,
        "useRequestIdForTraceSampling": False,
        "customTags": {
            "b": {"header": {"name": "X-Team", "defaultValue": "none"}},
            "a": {"literal": {"value": "yes"}},
            "c": {"environment": {"name": "POD_NAME"}},
            "d": {"formatter": {"value": "%REQ(:METHOD)%"}},
        },
    }
    off = {"disableSpanReporting": True, "enableIstioTags": False, "match": {"mode": "SERVER"}}
    (policy,), findings = compiled({"tracing": [entry, off]}, tracing=TRACING)
    assert findings == []
    tags = (
        SpanTag("a", TagSource.LITERAL, "yes"),
        SpanTag("b", TagSource.HEADER, "x-team", "none"),
        SpanTag("c", TagSource.ENVIRONMENT, "POD_NAME"),
        SpanTag("d", TagSource.FORMAT, "%REQ(:METHOD)%"),
    )
    assert policy.tracing == (
        TracingRule(SPANS, 2.5, tags=tags, by_request_id=False, propagated=False),
        TracingRule(disabled=True, usual_tags=False, at_gateways=False),
    )


def test_spans_go_to_one_provider() -> None:
    several = {"providers": [{"name": "spans"}, {"name": "other"}]}
    (policy,), findings = compiled({"tracing": [several]}, tracing=TRACING)
    assert (policy.tracing, findings) == ((TracingRule(SPANS),), ["AMB0243 spec.tracing[0].providers[1]"])


def test_entries_about_metrics() -> None:
    overrides = [
        {"disabled": True, "match": {"mode": "CLIENT"}},
        {
            "match": {"metric": "REQUEST_COUNT"},
            "tagOverrides": {
                "response_code": {"operation": "REMOVE"},
                "team": {"value": "'red'"},
                "host": {"value": "request.host"},
                "port": {"value": "string(destination.port)"},
                "kind": {"value": "request.headers['x-kind']\n.startsWith('a') ? 'a' : 'b'"},
                "le": {"operation": "REMOVE"},
                "half": {"value": "response.code % 2"},
                "run": {"value": "run('rm')"},
                "two": {"value": "string(request.host) + string(request.path)"},
            },
        },
        {
            "match": {"metric": "TCP_SENT_BYTES"},
            "tagOverrides": {"host": {"value": "request.host"}, "team": {"value": "'red'"}},
        },
    ]
    (policy,), findings = compiled(
        {"metrics": [{"providers": [{"name": "prometheus"}], "overrides": overrides}]}
    )
    where = "AMB0242 spec.metrics[0].overrides[1].tagOverrides"
    of_connections = "AMB0242 spec.metrics[0].overrides[2].tagOverrides.host"
    said = [*(f"{where}.{name}" for name in ("half", "le", "run", "two")), of_connections]
    assert sorted(findings) == sorted(said)
    expressions = (
        ("host", "request.host"),
        ("kind", "request.headers['x-kind'] .startsWith('a') ? 'a' : 'b'"),
        ("port", "destination.port"),
    )
    assert policy.metrics == (
        MetricsRule(ALL, True, at_waypoints=False),
        MetricsRule(
            ("istio_requests",), None, (("response_code", None), ("team", "red")), expressions=expressions
        ),
        MetricsRule(("istio_tcp_sent_bytes",), None, (("team", "red"),)),
    )


def test_one_bad_entry_leaves_the_others() -> None:
    (policy,), findings = compiled({"accessLogging": [ENVOY, {**ENVOY, "filter": {"expression": "x"}}]})
    assert (policy.logs, len(findings)) == ((LogRule((Printer(),)),), 1)


def test_the_meshs_settings_are_what_holds_without_any_object() -> None:
    made = MeshCompiler(MeshSettings(logs=MeshLogs(default=("envoy",))))
    assert made.apply([]).telemetry.upserts == {
        "": TelemetryPolicy("", Level.DEFAULT, (LogRule((Printer(),)),))
    }


def test_so_it_is_with_spans() -> None:
    made = MeshCompiler(MeshSettings(tracing=TRACING))
    wanted = TelemetryPolicy("", Level.DEFAULT, tracing=(TracingRule(SPANS, 5.0),))
    assert made.apply([]).telemetry.upserts == {"": wanted}


def statuses(*objects: tuple[str, dict[str, Any]]) -> dict[str, str]:
    """Reasons by names; objects are of the namespace `shop`, the first is the oldest."""
    made = MeshCompiler(MeshSettings(tracing=TRACING))
    decode = PROJECTIONS["telemetries.telemetry.istio.io"].decode
    changes = []
    for i, (name, spec) in enumerate(objects):
        metadata = {"name": name, "namespace": "shop", "creationTimestamp": f"2026-01-0{i + 1}T00:00:00Z"}
        value = decode(msgspec.json.encode({"metadata": metadata, "spec": spec}))
        changes.append(Change("telemetries.telemetry.istio.io", f"shop/{name}", value))
    made.apply(changes)
    found = (each for each in made.statuses.values() if isinstance(each, ObjectStatus))
    return {each.version.origin.name: each.conditions[0].reason for each in found}


TRACED = {"tracing": [{"randomSamplingPercentage": 5}]}


def test_statuses() -> None:
    wrong = {"accessLogging": [{"providers": [{"name": "loki"}]}]}
    found = statuses(
        ("first", TRACED),
        ("second", TRACED),
        ("other", {**TRACED, "accessLogging": [ENVOY]}),
        ("wrong", wrong),
        ("partly", {**wrong, "metrics": [{"overrides": [{"disabled": True}]}]}),
        ("selects", {**TRACED, "selector": {"matchLabels": {"a": "b"}}}),
        ("aimed", {**TRACED, "targetRefs": [{"kind": "Service", "name": "web", "group": ""}]}),
    )
    assert found == {
        "first": "Accepted",
        "second": "Conflicted",
        "other": "PartiallyInvalid",
        "wrong": "Invalid",
        "partly": "PartiallyInvalid",
        "selects": "NotEnforced",
        "aimed": "NoWaypoint",
    }


def test_what_is_for_nobody_is_found() -> None:
    aimed = {**TRACED, "targetRefs": [{"kind": "Service", "name": "web", "group": ""}]}
    assert compiled(aimed)[1] == ["AMB0240 spec"]
