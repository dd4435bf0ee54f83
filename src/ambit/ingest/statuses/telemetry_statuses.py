"""What Telemetry objects say in their status: whether proxies carry them out."""

from collections.abc import Iterable

from ambit.core.finding import Finding, Level
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.findings.untold import key_of
from ambit.ingest.gateway.conditions import WAYPOINT_ACCEPTED, no, version, yes
from ambit.ingest.gateway.findings import NO_WAYPOINT
from ambit.ingest.istio.telemetry import KIND
from ambit.ingest.statuses.policy_targets import Care, Served
from ambit.model.status import Condition, ObjectStatus, Status
from ambit.model.telemetry import Level as Reach
from ambit.model.telemetry import TelemetryPolicy
from ambit.objects.telemetry import Telemetry

CONFLICTED = "Conflicted"
"""Reason of an object of which nothing counts, because older ones say all of that."""
_PARTS = {"logs": "accessLogging", "tracing": "tracing", "metrics": "metrics"}


def telemetry_statuses(
    graph: Graph,
    given: Collection[Telemetry],
    policies: Collection[TelemetryPolicy],
    findings: Collection[tuple[Finding, ...]],
    untold: Collection[tuple[Finding, ...]],
    served: Served,
) -> Collection[Status]:
    """By the text of the object. `untold`: collectors that are not there (`ambit.ingest.findings.untold`)."""
    by_reach = policies.index(_reaches)

    def older(context: Context, policy: TelemetryPolicy) -> dict[str, str]:
        """What of it does not count, and whose does instead."""
        beside = {each.key: each for reach in _reaches(policy) for each in context.lookup(by_reach, reach)}
        first = sorted(beside.values(), key=lambda each: (each.created, each.key))
        hidden = {}
        for part, shown in _PARTS.items():
            counts = next((each.key for each in first if getattr(each, part)), policy.key)
            if getattr(policy, part) and counts != policy.key:
                hidden[shown] = counts
        return hidden

    def status(context: Context, each: Telemetry) -> Status:
        policy = context.get(policies, each.metadata.key)
        origin = each.metadata.reference(KIND)
        said = (
            *(context.get(findings, str(origin)) or ()),
            *(context.get(untold, key_of(origin)) or ()),
        )
        nobody = [
            f"{target.kind} {target.name}"
            for target in (policy.targets if policy is not None else ())
            if served.care(context, target) is Care.NOBODY
        ]
        hidden = older(context, policy) if policy is not None else {}
        return ObjectStatus(version(each.metadata, KIND), (_condition(policy, said, nobody, hidden),))

    return graph.derive("statuses of telemetry", given, status, key=lambda made: str(made.version.origin))


def _reaches(policy: TelemetryPolicy) -> list[str]:
    """Of those that share one, the oldest counts."""
    match policy.level:
        case Reach.TARGET:
            return [f"{each.kind} {each.namespace}/{each.name}" for each in policy.targets]
        case Reach.NAMESPACE:
            return [f"Namespace {policy.namespace}"]
        case _:
            return [policy.level.name]


def _condition(
    policy: TelemetryPolicy | None,
    said: Iterable[Finding],
    nobody: list[str],
    hidden: dict[str, str],
) -> Condition:
    wrong = sorted(said)
    text = "; ".join(f"{each.code} {each.path}: {each.text}" for each in wrong)
    if policy is None:
        invalid = any(each.level is Level.ERROR for each in wrong)
        return no(WAYPOINT_ACCEPTED, "Invalid" if invalid else "NotEnforced", text or "it says nothing")
    others = [f"{name}: {key} is older and counts instead" for name, key in hidden.items()]
    if len(hidden) == sum(bool(getattr(policy, part)) for part in _PARTS):
        return no(WAYPOINT_ACCEPTED, CONFLICTED, "; ".join(others))
    if nobody and len(nobody) == len(policy.targets):
        return no(WAYPOINT_ACCEPTED, NO_WAYPOINT, f"there is no proxy for {', '.join(nobody)}")
    unserved = [f"there is no proxy for {', '.join(nobody)}"] if nobody else []
    reasons = [*([text] if text else []), *others, *unserved]
    if reasons:
        return yes(WAYPOINT_ACCEPTED, "PartiallyInvalid", "; ".join(reasons))
    return yes(WAYPOINT_ACCEPTED, "Accepted", f"carried out by {_who(policy)}")


def _who(policy: TelemetryPolicy) -> str:
    match policy.level:
        case Reach.TARGET:
            return "the proxies of its targets"
        case Reach.NAMESPACE:
            return "the waypoints and gateways of its namespace"
        case _:
            return "all waypoints and gateways"
