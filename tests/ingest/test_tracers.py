"""What the mesh's settings say of spans."""

import pytest

from ambit.core.errors import BadInput
from ambit.ingest.mesh_settings.log_format import unknown_operator
from ambit.ingest.mesh_settings.mesh_config import mesh_config
from ambit.model.provider import ProviderService
from ambit.model.tracing import MeshTracing, OverHttp, SpanTag, TagSource, Tracer, TracingRule

PLACE = ProviderService("otel.obs.svc.cluster.local", 4317)
SHORTEST = "{service: otel.obs.svc.cluster.local, port: 4317}"


def settings(provider: str, more: str = "") -> MeshTracing:
    return mesh_config(
        f"extensionProviders: [{{name: spans, opentelemetry: {provider}}}]\n{more}", "f"
    ).tracing


def test_over_grpc_unless_something_else_is_said() -> None:
    assert settings(SHORTEST) == MeshTracing((Tracer("spans", PLACE, 3000),))


def test_all_fields() -> None:
    over_grpc = (
        "{service: otel.obs.svc.cluster.local, port: 4317, maxTagLength: 99, resourceDetectors: {environment: {}},"
        " grpc: {timeout: 1.5s, initialMetadata: [{name: X-Key, value: secret}]}}"
    )
    wanted = Tracer(
        "spans", PLACE, 1500, headers=(("x-key", "secret"),), path_length=99, from_environment=True
    )
    assert settings(over_grpc).tracers == (wanted,)
    over_http = (
        "{service: obs/otel.example.com, port: 443, http: {path: /v1/traces, headers: [{name: a, value: b}]}}"
    )
    place = ProviderService("otel.example.com", 443, "obs")
    wanted = Tracer("spans", place, 3000, OverHttp("/v1/traces"), (("a", "b"),))
    assert settings(over_http).tracers == (wanted,)


def test_what_holds_by_default() -> None:
    more = (
        "defaultProviders: {tracing: [spans]}\n"
        "defaultConfig: {tracing: {sampling: 10, maxPathTagLength: 80, enableIstioTags: false,"
        " customTags: {a: {literal: {value: b}}}}}"
    )
    tracer = Tracer("spans", PLACE, 3000, path_length=80)
    tags = (SpanTag("a", TagSource.LITERAL, "b"),)
    assert settings(SHORTEST, more) == MeshTracing(
        (tracer,), TracingRule(tracer, 10.0, tags=tags, usual_tags=False)
    )


@pytest.mark.parametrize(
    ("provider", "more", "said"),
    [
        ("{port: 4317}", "", "service"),
        ("{service: otel.example.com, port: 4317}", "", "does not say whose it is"),
        ("{service: otel.obs.svc.cluster.local, port: 0}", "", "port"),
        (SHORTEST.replace("}", ", http: {path: v1}}"), "", "http.path"),
        (SHORTEST.replace("}", ", http: {path: /}, grpc: {}}"), "", "http and grpc"),
        (SHORTEST.replace("}", ", grpc: {timeout: 1m}}"), "", "grpc.timeout"),
        (SHORTEST.replace("}", ", maxTagLength: -1}"), "", "maxTagLength"),
        (SHORTEST.replace("}", ", resourceDetectors: {dynatrace: {}}}"), "", "dynatrace"),
        (SHORTEST.replace("}", ", sampler: {}}"), "", "sampler"),
        (SHORTEST.replace("}", ", grpc: {initialMetadata: [{name: 'a b', value: c}]}}"), "", "'a b'"),
        (SHORTEST.replace("}", ", grpc: {initialMetadata: [{name: a, envName: c}]}}"), "", "envName"),
        (SHORTEST, "defaultProviders: {tracing: [other]}", "defaultProviders.tracing"),
        (SHORTEST, "defaultConfig: {tracing: {sampling: 101}}", "sampling"),
        (SHORTEST, "defaultConfig: {tracing: {zipkin: {}}}", "zipkin"),
        (SHORTEST, "defaultConfig: {concurrency: 2}", "concurrency"),
        (SHORTEST, "defaultConfig: {tracing: {customTags: {a: {}}}}", "customTags.a"),
    ],
)
def test_what_could_mean_something_else_is_refused(provider: str, more: str, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace(".", r"\.")):
        settings(provider, more)


def test_a_length_that_envoy_cannot_read_is_no_format() -> None:
    assert unknown_operator("%REQ(a):999999999%") == ""
    assert unknown_operator("%REQ(a):999999999999999999999%") == "%"
