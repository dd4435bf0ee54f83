"""What became of policies for requests, for their status: which of their targets a waypoint enforces them for (istiod
writes the same condition: `ambient/policies.go`)."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ambit.core.finding import Finding, Level
from ambit.core.names import ENFORCES_ANNOTATION, GATEWAY_CLASS_NAMES, INLINE_CLASS, WAYPOINT_CLASSES
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.asked import Nobody, Providers
from ambit.ingest.gateway.compile_foreign import ForeignWaypoints
from ambit.ingest.gateway.conditions import (
    PARTIALLY_INVALID,
    WAYPOINT_ACCEPTED,
    WAYPOINT_BOUND,
    no,
    version,
    yes,
)
from ambit.ingest.gateway.edge import is_edge_class
from ambit.ingest.gateway.findings import NOBODY_TO_ASK, NOT_ENFORCED, not_enforced
from ambit.ingest.gateway.foreign import Foreign, says_that_it_enforces
from ambit.ingest.gateway.gateways import waypoint_kind
from ambit.ingest.istio.authorization import is_for_requests
from ambit.ingest.istio.requests import CompiledRequestPolicy
from ambit.ingest.statuses.left_out import LeftOut
from ambit.ingest.waypoints.inline import Inline, host_of
from ambit.model.jwt import Target
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.request_policy import Asked, RequestAction
from ambit.model.service import Service
from ambit.model.status import Condition, ObjectStatus, Status
from ambit.objects.gateway import GatewayClass
from ambit.objects.istio import AuthorizationPolicy

KIND = "AuthorizationPolicy"
_CLASSES = (*WAYPOINT_CLASSES, *GATEWAY_CLASS_NAMES, INLINE_CLASS)
"""That policies name."""
Findings = tuple[Finding, ...]


class Attached(msgspec.Struct, frozen=True):
    """What a target has come to. `reason` is empty when the policy is enforced there."""

    text: str
    reason: str = ""
    is_elsewhere: bool = False
    """Somebody else's waypoint does not enforce it, which no other object says."""
    left_out: str = ""
    """What of the target is not in the mesh, so that the policy is not enforced for it."""


class _Judged(msgspec.Struct, frozen=True):
    status: ObjectStatus
    findings: Findings = ()


class _Targets:
    """What became of targets."""

    def __init__(
        self,
        services: Collection[Service],
        proxies: Collection[Proxy],
        classes: Collection[GatewayClass],
        others: ForeignWaypoints,
        inline: Inline,
        left_out: LeftOut,
    ) -> None:
        self._by_object = services.index(
            lambda each: [
                f"{'Service' if each.is_kubernetes else 'ServiceEntry'} {each.namespace}/{each.name}"
            ]
        )
        self._waypoints = proxies.index(
            lambda each: [host_of(each)] if each.kind is not ProxyKind.GATEWAY else []
        )
        self._proxies = proxies
        self._classes = classes
        self._others = others
        self._inline = inline
        self._left_out = left_out

    def attached(self, context: Context, target: Target) -> Attached:
        name = f"{target.namespace}/{target.name}" if target.namespace else target.name
        what = f"{target.kind} {name}"
        match target.kind:
            case "GatewayClass":
                return _of_class(target.name, context.get(self._classes, target.name), what)
            case "Gateway":
                return self._of_gateway(context, name, what)
            case "ServiceEntry":
                return self._of_entry(context, name, what)
            case _:
                return self._of_services(context, context.lookup(self._by_object, what), what)

    def _of_entry(self, context: Context, key: str, what: str) -> Attached:
        nothing, text = self._left_out.of(context, key)
        if nothing:
            return Attached(f"no connection to {what} comes to a waypoint: {text}", "AncestorNotBound")
        found = self._of_services(context, context.lookup(self._by_object, what), what)
        return msgspec.structs.replace(found, left_out=text)

    def _of_gateway(self, context: Context, key: str, what: str) -> Attached:
        foreign = self._others.named(context, key)
        if foreign is not None:
            return _elsewhere(what, foreign)
        proxy = context.get(self._proxies, key)
        if proxy is None:
            return Attached(f"{what} has no proxy", "TargetNotFound")
        return _closed(self._inline.closed(context, host_of(proxy))) or Attached(f"bound to {what}")

    def _of_services(self, context: Context, found: Sequence[Service], what: str) -> Attached:
        if not found:
            return Attached(f"{what} does not exist", "TargetNotFound")
        if not all(each.has_waypoint for each in found):
            return Attached(f"{what} has no waypoint: connections to it are refused", "AncestorNotBound")
        for each in found:
            foreign = self._others.at(context, each.waypoint)
            if foreign is not None:
                return _elsewhere(what, foreign)
        places = sorted(
            {f"{each.waypoint.namespace}/{each.waypoint.hostname}" for each in found if each.waypoint}
        )
        if not all(context.lookup(self._waypoints, each) for each in places):
            said = f"the waypoint of {what} cannot be used, as its {WAYPOINT_BOUND} says"
            return Attached(f"{said}: connections to it are refused", "AncestorNotBound")
        closed = {key: text for each in places for key, text in self._inline.closed(context, each).items()}
        own = {each.key: closed[each.key] for each in found if each.key in closed}
        return _closed(own) or Attached(f"bound to {what}")


def policy_statuses(
    graph: Graph,
    policies: Collection[AuthorizationPolicy],
    compiled: Collection[CompiledRequestPolicy],
    services: Collection[Service],
    proxies: Collection[Proxy],
    classes: Collection[GatewayClass],
    others: ForeignWaypoints,
    inline: Inline,
    providers: Providers,
    left_out: LeftOut,
) -> tuple[Collection[Status], Collection[Findings]]:
    """A status for each policy for requests, and what neither `ambit.ingest.gateway.findings` makes of it nor its
    targets say. `services` are those with the waypoints that they asked for."""
    targets = _Targets(services, proxies, classes, others, inline, left_out)

    def judged(context: Context, given: AuthorizationPolicy) -> _Judged | None:
        made = context.get(compiled, given.metadata.key)
        if made is None:
            return None
        found = [targets.attached(context, each) for each in made.policy.targets]
        asked = providers.asked(context, made.policy) if made.policy.action is RequestAction.CUSTOM else None
        by_nodes = not is_for_requests(given)
        condition = _condition(made, found, asked)
        status = ObjectStatus(version(given.metadata, KIND), (condition,), by_nodes=by_nodes)
        is_told = condition.reason in (NOT_ENFORCED, PARTIALLY_INVALID) and any(
            each.is_elsewhere for each in found
        )
        return _Judged(status, (not_enforced(condition, status.version.origin),) if is_told else ())

    found = graph.derive("policies for requests as their targets take them", policies, judged)
    statuses: Collection[Status] = graph.derive(
        "statuses of policies for requests",
        found,
        lambda _, each: each.status,
        key=lambda made: str(made.version.origin),
    )
    findings = graph.derive(
        "findings of policies for requests at waypoints of others",
        found,
        lambda _, each: each.findings or None,
        key=lambda made: f"{made[0].origin} (elsewhere)",
    )
    return statuses, findings


def _of_class(name: str, given: GatewayClass | None, what: str) -> Attached:
    """`given` is the class as the cluster has it. Those that policies know by name are there without it, too."""
    if given is not None and waypoint_kind(name, given) is None and not is_edge_class(name, given):
        whose = f"{what} is of {given.spec.controller_name or 'no controller'}"
        if says_that_it_enforces(given):
            return Attached(f"{whose}, whose proxies enforce it")
        text = f"{whose} and does not say {ENFORCES_ANNOTATION}: what it would protect there is closed"
        return Attached(text, NOT_ENFORCED, is_elsewhere=True)
    if name in _CLASSES:
        return Attached(f"bound to {what}")
    if given is None:
        return Attached(f"{what} does not exist", "TargetNotFound")
    text = f"{what} is no target, though it is ambit's: policies know the classes {', '.join(_CLASSES)}"
    return Attached(text, "TargetNotFound")


def _elsewhere(what: str, foreign: Foreign) -> Attached:
    """What is said where the waypoint is somebody else's."""
    whose = f"Gateway {foreign.key} of class {foreign.of_class}"
    if foreign.problem:
        return Attached(f"{whose} cannot be used: {foreign.problem}", "AncestorNotBound")
    if foreign.enforces:
        return Attached(f"bound to {what}; {whose} enforces it")
    text = f"{whose} does not say {ENFORCES_ANNOTATION}, so what it would protect is closed"
    return Attached(text, NOT_ENFORCED, is_elsewhere=True)


def _closed(services: Mapping[str, str]) -> Attached | None:
    """Services that nobody reaches, and why."""
    text = "; ".join(f"connections to {key} are refused: {why}" for key, why in sorted(services.items()))
    return Attached(text, NOT_ENFORCED) if services else None


def _condition(
    made: CompiledRequestPolicy, found: Iterable[Attached], asked: Asked | Nobody | None
) -> Condition:
    wrong = sorted(each for each in made.findings if each.level is not Level.INFO)
    if any(each.level is Level.ERROR for each in wrong):
        return no(WAYPOINT_ACCEPTED, "Invalid", _texts(wrong))
    if isinstance(asked, Nobody):
        text = f"nobody can be asked, so what its rules match is refused: {asked.text}"
        return no(WAYPOINT_ACCEPTED, NOBODY_TO_ASK, text)
    targets = list(found)
    missing = [each for each in targets if each.reason]
    text = "; ".join(
        f"{each.text}, but not for what is left out: {each.left_out}" if each.left_out else each.text
        for each in targets
    )
    if missing and len(missing) == len(targets):
        return no(WAYPOINT_ACCEPTED, missing[0].reason, text)
    if missing or any(each.left_out for each in targets):
        return yes(WAYPOINT_ACCEPTED, PARTIALLY_INVALID, text)
    if made.policy.dry_run:
        text = f"{text}; dry run: recorded, not enforced"
    if wrong:
        return yes(WAYPOINT_ACCEPTED, PARTIALLY_INVALID, f"{text}; {_texts(wrong)}")
    return yes(WAYPOINT_ACCEPTED, "Accepted", text)


def _texts(findings: Iterable[Finding]) -> str:
    return "; ".join(f"{each.code} {each.path}: {each.text}" for each in findings)
