"""What a proxy's agent is told about metrics, among the resources of its Envoy (Istio: `Metrics`)."""

from collections.abc import Iterable, Sequence

import msgspec
from google.protobuf.any_pb2 import Any

from ambit.envoy import names, tls
from ambit.model.metrics import OF_REQUESTS, Expressions, Labels, MetricsNote, MetricsRule, Override
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.telemetry import Level, TelemetryPolicy
from ambit.model.workload import Workload
from ambit.plan.telemetry.entries import concerns, in_force
from ambit.plan.values import SECRET, PlannedResource, planned

_HAVE_VALUES = frozenset(OF_REQUESTS.values())


def resources(
    policies: Sequence[TelemetryPolicy], proxy: Proxy, services: Iterable[Service] = ()
) -> tuple[PlannedResource, ...]:
    """The note, where anything is said at all: agents of former versions do not know it."""
    note = note_of(policies, proxy, services)
    if note == MetricsNote():
        return ()
    text = msgspec.json.encode(note, order="sorted").decode()
    return (planned(SECRET, names.METRICS, tls.note(names.METRICS, text)),)


def parse(body: bytes) -> MetricsNote:
    """The note in a resource's body. Raises ValueError."""
    try:
        return msgspec.json.decode(tls.note_in(Any.FromString(body).value), type=MetricsNote)
    except msgspec.DecodeError as problem:
        raise ValueError(f"the note about metrics cannot be read: {problem}") from None


def note_of(
    policies: Sequence[TelemetryPolicy], proxy: Proxy, services: Iterable[Service] = ()
) -> MetricsNote:
    """What is said nearer comes after what is said farther, override by override."""
    given = [each for each in policies if each.metrics]
    aimed = [each for each in given if each.level is Level.TARGET]
    usual = _overrides(given, proxy, None)
    own = {
        each.key: found
        for each in services
        if any(concerns(policy, proxy, each) for policy in aimed)
        and (found := _overrides(given, proxy, each)) != usual
    }
    return MetricsNote(usual, own)


def expressions_of(
    policies: Iterable[TelemetryPolicy], proxy: Proxy, subject: Service | Workload | None = None
) -> tuple[str, ...]:
    """Those whose values records of requests to `subject` are to have, sorted."""
    given = [each for each in policies if each.metrics]
    overrides = _overrides(given, proxy, subject).values() if given else ()
    return tuple(sorted({text for each in overrides if not each.disabled for _, text in each.expressions}))


def _overrides(
    policies: Iterable[TelemetryPolicy], proxy: Proxy, subject: Service | Workload | None
) -> dict[str, Override]:
    is_edge = proxy.kind is ProxyKind.GATEWAY
    found: dict[str, Override] = {}
    for rules in in_force(policies, proxy, subject, lambda each: each.metrics):
        for rule in rules:
            if not (rule.at_gateways if is_edge else rule.at_waypoints):
                continue
            for metric in rule.metrics:
                before = found.get(metric, Override())
                disabled = before.disabled if rule.disabled is None else rule.disabled
                found[metric] = Override(disabled, *_labels(before, rule, has_values=metric in _HAVE_VALUES))
    return {metric: each for metric, each in found.items() if each != Override()}


def _labels(before: Override, rule: MetricsRule, *, has_values: bool) -> tuple[Labels, Expressions]:
    """What is said of a label last counts."""
    expressions = rule.expressions if has_values else ()
    named = {name for name, _ in (*rule.labels, *expressions)}
    labels = (*rule.labels, *(each for each in before.labels if each[0] not in named))
    valued = (*expressions, *(each for each in before.expressions if each[0] not in named))
    return tuple(sorted(labels)), tuple(sorted(valued))
