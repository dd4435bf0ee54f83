"""What the objects of rules for L7 proxies say in their status: whether a waypoint carries them out."""

from collections.abc import Iterable, Mapping
from enum import Enum

from ambit.core.finding import Finding, Level
from ambit.core.names import GATEWAY_CLASS_NAMES, INLINE_CLASS, WAYPOINT_CLASSES
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.conditions import WAYPOINT_ACCEPTED, no, version, yes
from ambit.ingest.gateway.findings import NO_WAYPOINT
from ambit.ingest.istio.tokens import KIND
from ambit.ingest.waypoints.inline import Inline, host_of
from ambit.model.jwt import Target, TokenPolicy
from ambit.model.proxy import Proxy
from ambit.model.service import Service
from ambit.model.status import Condition, ObjectStatus, Status
from ambit.objects.istio import RequestAuthentication

Findings = tuple[Finding, ...]


class Care(Enum):
    """What becomes of a target."""

    TAKEN = "a proxy carries the rules out"
    CLOSED = "nobody can, so nobody reaches it"
    NOBODY = "there is no proxy"


class Served:
    """Who takes care of targets. `services` are those with the waypoints that they are bound to; what is bound to an
    inline one may be closed (`ambit.ingest.waypoints.inline`)."""

    def __init__(
        self, graph: Graph, proxies: Collection[Proxy], services: Collection[Service], inline: Inline
    ) -> None:
        self._proxies = proxies
        self._inline = inline
        self._by_host = proxies.index(lambda each: [host_of(each)])
        behind = graph.derive(
            "services behind waypoints", services, lambda _, each: each if each.waypoint is not None else None
        )
        self._by_object = behind.index(lambda each: [_object(each)])

    def care(self, context: Context, target: Target) -> Care:
        match target.kind:
            case "GatewayClass":
                known_class = target.name in (*WAYPOINT_CLASSES, *GATEWAY_CLASS_NAMES, INLINE_CLASS)
                return Care.TAKEN if known_class else Care.NOBODY
            case "Gateway":
                proxy = context.get(self._proxies, f"{target.namespace}/{target.name}")
                if proxy is None:
                    return Care.NOBODY
                return Care.CLOSED if self._inline.closed(context, host_of(proxy)) else Care.TAKEN
            case kind:
                found = context.lookup(self._by_object, f"{kind} {target.namespace}/{target.name}")
                hosts = _hosts(found)
                closed = {key for host in hosts for key in self._inline.closed(context, host)}
                if any(each.key in closed for each in found):
                    return Care.CLOSED
                known = [proxy for host in hosts for proxy in context.lookup(self._by_host, host)]
                return Care.TAKEN if known else Care.NOBODY


def _hosts(services: Iterable[Service]) -> list[str]:
    """Those of the waypoints that they are bound to."""
    return sorted(
        {f"{part.gateway.namespace}/{part.gateway.hostname}" for each in services for part in each.waypoints}
    )


def token_statuses(
    graph: Graph,
    given: Collection[RequestAuthentication],
    policies: Collection[TokenPolicy],
    findings: Collection[Findings],
    served: Served,
) -> Collection[Status]:
    """Of RequestAuthentications, by the text of the object."""

    def status(context: Context, each: RequestAuthentication) -> Status:
        origin = each.metadata.reference(KIND)
        policy = context.get(policies, each.metadata.key)
        targets = policy.targets if policy is not None else ()
        care = {target: served.care(context, target) for target in targets}
        said = context.get(findings, str(origin)) or ()
        return ObjectStatus(version(each.metadata, KIND), (accepted(care, said),))

    return graph.derive(
        "statuses of rules about tokens", given, status, key=lambda made: str(made.version.origin)
    )


def accepted(care: Mapping[Target, Care], findings: Iterable[Finding]) -> Condition:
    """What becomes of an object whose targets these are."""
    text = "; ".join(f"{each.code} {each.path}: {each.text}" for each in sorted(findings))
    if any(each.level is Level.ERROR for each in findings):
        return no(WAYPOINT_ACCEPTED, "Invalid", text)
    if not care:
        return no(WAYPOINT_ACCEPTED, "NoTarget", text)
    if closed := _names(care, Care.CLOSED):
        text = (
            f"no node can carry it out for {closed}, where every connection is refused (ambit why says why)"
        )
        return no(WAYPOINT_ACCEPTED, "NotEnforced", text)
    missing = _names(care, Care.NOBODY)
    if Care.TAKEN not in care.values():
        return no(
            WAYPOINT_ACCEPTED, NO_WAYPOINT, f"no waypoint serves {missing}, so nobody looks at requests"
        )
    text = (
        f"no waypoint serves {missing}"
        if missing
        else "carried out by the waypoints of its targets, or by the nodes of their pods"
    )
    return yes(WAYPOINT_ACCEPTED, "Accepted", text)


def _names(care: Mapping[Target, Care], wanted: Care) -> str:
    return ", ".join(f"{each.kind} {each.name}" for each, found in care.items() if found is wanted)


def _object(service: Service) -> str:
    return f"{'Service' if service.is_kubernetes else 'ServiceEntry'} {service.namespace}/{service.name}"
