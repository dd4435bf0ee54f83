"""The second waypoint of a service, which takes a part of its connections (Istio 1.31: waypoint canaries).

1. Labels `istio.io/use-waypoint-canary` and `-canary-namespace`, and the annotation `-canary-weight` beside them: whole
   percents of the connections, 0 without it. They count at the Service or ServiceEntry, and at its namespace where
   that one names the waypoint as well.
2. What is wrong with a canary is said, and leaves the waypoint with all connections: a weight that is none, the
   waypoint itself, one that cannot be had or is inline, or stands beside an inline one.
3. Nobody is sent past both: a canary without a waypoint is nothing.
"""

import msgspec

from ambit.core.names import (
    CANARY_LABEL,
    CANARY_NAMESPACE_LABEL,
    CANARY_WEIGHT_ANNOTATION,
    USE_WAYPOINT_LABEL,
    USE_WAYPOINT_NAMESPACE_LABEL,
    WAYPOINT_NONE,
)
from ambit.ingest.gateway.binding import Namespaces, Traffic, Wish, bind, wish
from ambit.ingest.gateway.conditions import WAYPOINT_BOUND, no
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import ProxyKind
from ambit.model.status import Condition
from ambit.model.workload import GatewayAddress
from ambit.objects.meta import ObjectMeta

WHOLE = 100
"""Percent."""


class Canary(msgspec.Struct, frozen=True):
    """`gateway` takes `weight` percent; it is None when `problem` says why nobody does."""

    gateway: GatewayAddress | None = None
    weight: int = 0
    problem: Condition | None = None


def labels_for(labels: dict[str, str]) -> dict[str, str]:
    """The labels by which an object would be bound to its canary alone."""
    name, namespace = labels.get(CANARY_LABEL, ""), labels.get(CANARY_NAMESPACE_LABEL, "")
    return {USE_WAYPOINT_LABEL: name} | ({USE_WAYPOINT_NAMESPACE_LABEL: namespace} if namespace else {})


def asked_by(own: ObjectMeta, namespace: ObjectMeta | None) -> ObjectMeta | None:
    """Whose labels about a canary count for an object of this namespace."""
    if own.labels.get(CANARY_LABEL):
        return own
    is_its_own = USE_WAYPOINT_LABEL in own.labels
    if is_its_own or namespace is None or not namespace.labels.get(CANARY_LABEL):
        return None
    return namespace


def canary(
    asked: ObjectMeta,
    primary: Wish,
    namespace: str,
    known: Namespaces,
    settings: MeshSettings,
    *,
    confined: bool = False,
) -> Canary:
    """What `asked` says about the canary of a service of a namespace that is bound to `primary`; `confined`: only one
    of its own namespace."""
    labels = labels_for(asked.labels)
    wanted = wish(labels, namespace)
    if wanted is None or wanted.name == WAYPOINT_NONE:
        return Canary()
    weight = _percent(asked.annotations.get(CANARY_WEIGHT_ANNOTATION, "0"))
    if weight is None:
        return _wrong(
            primary, "CanaryInvalidWeight", f"{CANARY_WEIGHT_ANNOTATION} is no whole number from 0 to {WHOLE}"
        )
    if wanted.key == primary.key:
        return _wrong(primary, "CanarySameAsPrimary", f"{wanted.key} is its own canary")
    if any(_is_alone(each, known) for each in (wanted, primary)):
        text = f"{wanted.key} cannot share with it: one of them has no pods, or is not ours"
        return _wrong(primary, "CanaryUnsupported", text)
    found = bind(labels, namespace, Traffic.SERVICE, known, settings, confined=confined)
    if found.waypoint is None or found.condition is None or not found.condition.holds:
        reason = found.condition.reason if found.condition is not None else "UnsupportedTrafficType"
        return _wrong(primary, reason, f"the canary {wanted.key} cannot be used")
    return Canary(found.waypoint, weight)


def _is_alone(wanted: Wish, known: Namespaces) -> bool:
    found = known.waypoint(wanted.key)
    if found is None:
        return False
    is_inline = found.proxy is not None and found.proxy.kind is ProxyKind.INLINE
    return is_inline or found.foreign is not None


def _wrong(primary: Wish, reason: str, why: str) -> Canary:
    text = f"{why}; waypoint {primary.key} takes all connections"
    return Canary(problem=no(WAYPOINT_BOUND, reason, text))


def _percent(text: str) -> int | None:
    """ASCII digits only."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(WHOLE)) else WHOLE + 1
    return number if number <= WHOLE else None
