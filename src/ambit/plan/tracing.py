"""Which requests leave spans at a proxy, and where they go, by all that is said about it (Istio: `Tracing`)."""

from collections.abc import Iterable

import msgspec

from ambit.envoy.request_tracing import Spans
from ambit.envoy.telling import Told
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.telemetry import Level, TelemetryPolicy
from ambit.model.tracing import Tracer, Tracing, TracingRule
from ambit.model.workload import Workload
from ambit.plan.backends import Provider
from ambit.plan.request_logs import logs_of
from ambit.plan.telemetry import in_force
from ambit.plan.values import NodeSettings

_FIELDS = Tracing.__struct_fields__


def told_of(
    policies: Iterable[TelemetryPolicy],
    proxy: Proxy,
    settings: NodeSettings,
    subject: Service | Workload | None = None,
) -> Told:
    """Whatever a proxy tells of requests to `subject`."""
    logs = logs_of(policies, proxy, subject)
    return Told(logs, spans_of(policies, proxy, settings, subject))


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
        f"{name}.{namespace}",
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


def collectors(policies: Iterable[TelemetryPolicy], proxy: Proxy) -> frozenset[Provider]:
    """Whom a proxy may have to tell of any request: what is not used in the end is a cluster without connections."""
    own = proxy.identity.namespace
    return frozenset(
        collector(rule.tracer)
        for policy in policies
        if policy.level is not Level.NAMESPACE or policy.namespace == own
        for rule in policy.tracing
        if rule.tracer is not None
    )


def collector(tracer: Tracer) -> Provider:
    """The service behind a tracer: of a Kubernetes Service the namespace is in its name."""
    service = tracer.service
    namespace = service.namespace or (*service.hostname.split("."), "")[1]
    return Provider(f"{namespace}/{service.hostname}", service.port, is_grpc=tracer.http is None)
