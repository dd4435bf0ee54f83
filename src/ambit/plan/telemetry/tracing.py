"""Which requests leave spans at a proxy, and where they go, by all that is said about it (Istio: `Tracing`)."""

from collections.abc import Iterable

import msgspec

from ambit.envoy.http.tracing import Spans
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.telemetry import TelemetryPolicy
from ambit.model.tracing import Tracer, Tracing, TracingRule
from ambit.model.workload import Workload
from ambit.plan.backends import Provider, provider, service_name
from ambit.plan.telemetry.entries import in_force
from ambit.plan.values import NodeSettings

_FIELDS = Tracing.__struct_fields__


def spans_of(
    policies: Iterable[TelemetryPolicy],
    proxy: Proxy,
    settings: NodeSettings,
    subject: Service | Workload | None = None,
) -> Spans | None:
    """Of requests to `subject`, or to anything that a gateway leads to; None when nobody is told."""
    tracing = tracing_of(policies, proxy, subject)
    if tracing is None:
        return None
    namespace, _, name = proxy.key.partition("/")
    about = {
        "istio.canonical_revision": "latest",
        "istio.canonical_service": name,
        "istio.cluster_id": settings.cluster_id,
        "istio.mesh_id": settings.trust_domain,
        "istio.namespace": namespace,
    }
    return Spans(
        tracing,
        collector(tracing.tracer).cluster,
        service_name(proxy),
        tuple(about.items()),
        is_edge=proxy.kind is ProxyKind.GATEWAY,
    )


def tracing_of(
    policies: Iterable[TelemetryPolicy], proxy: Proxy, subject: Service | Workload | None = None
) -> Tracing | None:
    """What is said nearer replaces what is said farther, field by field."""
    is_edge = proxy.kind is ProxyKind.GATEWAY
    whole = TracingRule()
    for rules in in_force(policies, proxy, subject, lambda each: each.tracing):
        for rule in rules:
            if rule.at_gateways if is_edge else rule.at_waypoints:
                whole = _changed(whole, rule)
    if whole.tracer is None or whole.disabled:
        return None
    said = {name: value for name in _FIELDS if (value := getattr(whole, name)) is not None}
    return Tracing(**said)


def _changed(farther: TracingRule, nearer: TracingRule) -> TracingRule:
    said = {name: value for name in nearer.__struct_fields__ if (value := getattr(nearer, name)) is not None}
    return msgspec.structs.replace(farther, **said)


def collector(tracer: Tracer) -> Provider:
    """The service behind a tracer."""
    return provider(tracer.service, is_grpc=tracer.is_grpc)
