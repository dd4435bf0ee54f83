"""What statuses say that is wrong, as findings: for `ambit compile` and `ambit check`, which read no status."""

from collections.abc import Iterator

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.ingest.gateway import route_shares
from ambit.ingest.gateway.conditions import (
    ACCEPTED,
    PARTIALLY_INVALID,
    RESOLVED,
    WAYPOINT_ACCEPTED,
    WAYPOINT_BOUND,
)
from ambit.ingest.gateway.listeners import KINDS_REFUSED
from ambit.ingest.gateway.shares import TOO_MANY
from ambit.model.status import (
    Condition,
    GatewayStatus,
    ListenerSetStatus,
    ObjectStatus,
    PolicyStatus,
    RouteStatus,
    Status,
)

NO_WAYPOINT = "NoWaypoint"
"""Reason of a policy whose targets no waypoint serves."""
NOBODY_TO_ASK = "ProviderNotFound"
"""Reason of one with the action CUSTOM that names nobody."""
NOT_ENFORCED = "NotEnforced"
"""Reason of one whose targets are closed, because nobody enforces it there."""
UNATTACHED = frozenset({"AncestorNotBound", "TargetNotFound"})
"""Reasons of a policy none of whose targets has a proxy that enforces it (istiod: `ambient/policies.go`)."""


def findings_of(status: Status) -> tuple[Finding, ...]:
    """In the order of the status."""
    return tuple(_findings(status, status.version.origin))


def not_enforced(condition: Condition, origin: ObjectRef) -> Finding:
    """Of a policy at somebody else's waypoint. At an inline one what is closed says so itself (AMB0411)."""
    return _finding("AMB0236", Level.WARNING, origin, "spec.targetRefs", condition)


def _findings(status: Status, origin: ObjectRef) -> Iterator[Finding]:
    match status:
        case RouteStatus():
            for index, parent in enumerate(status.parents):
                for condition in parent.conditions:
                    yield from _of_route(condition, origin, f"spec.parentRefs[{index}]")
        case PolicyStatus():
            said = dict.fromkeys(each for ancestor in status.ancestors for each in ancestor.conditions)
            for condition in said:
                if condition.type == ACCEPTED and not condition.holds:
                    yield _finding("AMB0406", Level.ERROR, origin, "spec", condition)
        case GatewayStatus() | ListenerSetStatus():
            yield from _of_gateway(status, origin)
        case ObjectStatus():
            for condition in status.conditions:
                if condition.type == WAYPOINT_BOUND and not condition.holds:
                    yield _finding("AMB0405", Level.ERROR, origin, "metadata.labels", condition)
                if condition.type == WAYPOINT_ACCEPTED:
                    yield from _of_policy(condition, origin)


def _of_policy(condition: Condition, origin: ObjectRef) -> Iterator[Finding]:
    """What is `Invalid` has findings of its own."""
    if condition.holds:
        return
    if origin.kind == "Telemetry":
        if condition.reason in (NO_WAYPOINT, "Conflicted"):
            yield _finding("AMB0240", Level.WARNING, origin, "spec", condition)
        return
    if condition.reason == NO_WAYPOINT:
        yield _finding("AMB0234", Level.WARNING, origin, "spec.targetRefs", condition)
    if condition.reason == NOBODY_TO_ASK:
        yield _finding("AMB0218", Level.ERROR, origin, "spec.provider", condition)
    if condition.reason in UNATTACHED:
        yield _finding("AMB0236", Level.WARNING, origin, "spec.targetRefs", condition)


def _of_gateway(status: GatewayStatus | ListenerSetStatus, origin: ObjectRef) -> Iterator[Finding]:
    said = [("spec", status.conditions)]
    said += [(f"spec.listeners[{index}]", each.conditions) for index, each in enumerate(status.listeners)]
    beyond: list[tuple[str, Condition]] = []
    for path, conditions in said:
        for condition in conditions:
            if condition.type == ACCEPTED and condition.reason == TOO_MANY:
                beyond.append((path, condition))
            elif condition.type == ACCEPTED and not condition.holds:
                yield _finding("AMB0404", Level.ERROR, origin, path, condition)
            if condition.type == RESOLVED and not condition.holds:
                level = Level.WARNING if condition.reason == KINDS_REFUSED else Level.ERROR
                yield _finding("AMB0408", level, origin, path, condition)
    if beyond:  # one for all: there may be very many
        path, condition = beyond[0]
        more = f"{len(beyond)} listeners are refused: " if len(beyond) > 1 else ""
        text = f"{more}{condition.message} ({condition.reason})"
        yield Finding("AMB0413", Level.ERROR, origin, path, text)


def _of_route(condition: Condition, origin: ObjectRef, parent: str) -> Iterator[Finding]:
    match condition.type, condition.holds:
        case (kind, False) if kind == ACCEPTED:
            code = "AMB0417" if condition.reason == route_shares.TOO_MANY else "AMB0401"
            yield _finding(code, Level.ERROR, origin, parent, condition)
        case (kind, False) if kind == RESOLVED:
            yield _finding("AMB0402", Level.ERROR, origin, "spec.rules", condition)
        case (kind, True) if kind == PARTIALLY_INVALID:
            yield _finding("AMB0403", Level.ERROR, origin, "spec.rules", condition)


def _finding(code: str, level: Level, origin: ObjectRef, path: str, condition: Condition) -> Finding:
    return Finding(code, level, origin, path, f"{condition.message} ({condition.reason})")
