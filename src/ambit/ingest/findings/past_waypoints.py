"""Gateways that call services past their waypoints, as findings: so Istio has it, and hardly anybody means it.

What is said for such a waypoint, routes and policies, does not count for what comes by the gateway; where a policy
protects the service, its pods take connections from the waypoint only, so the gateway's are refused. The label
`istio.io/ingress-use-waypoint` sends it through the waypoint; written as `false` it says that this is meant.

A namespace's label binds the Service in front of a gateway as well (Istio: `ambient/waypoints.go` leaves out those of
waypoints and east-west gateways only). A gateway that calls its own is not told: to itself it needs no way through a
waypoint, and where that is a circle (`circles`), the label would make it a longer one.
"""

from collections.abc import Iterable, Iterator, Sequence

from ambit.core.finding import Finding, Level
from ambit.core.names import INGRESS_USE_WAYPOINT_LABEL
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.attachment import CompiledRoute
from ambit.ingest.waypoints.ingress import Ingress
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service


def past_waypoints(
    graph: Graph,
    routes: Sequence[Collection[CompiledRoute]],
    services: Collection[Service],
    proxies: Collection[Proxy],
    ingress: Ingress,
) -> Collection[tuple[Finding, ...]]:
    """Adds the findings to a graph, by the text of the route and `(past waypoints)`. `services` are those with their
    waypoints. Inline waypoints are none to go through."""
    by_host = proxies.index(lambda each: [_in_front(each)] if each.kind is ProxyKind.WAYPOINT else [])

    def passed(context: Context, key: str) -> str:
        """The waypoint of a service that gateways go past, unless that is written."""
        service = context.get(services, key)
        if service is None or service.waypoint is None or ingress.wish(context, service):
            return ""
        host = f"{service.waypoint.namespace}/{service.waypoint.hostname}"
        return next((each.key for each in context.lookup(by_host, host)), "")

    def others(context: Context, route: CompiledRoute, key: str) -> list[str]:
        """The gateways of a route without the one whose Service is called."""
        gateways = dict.fromkeys(each.gateway for each in route.listeners)
        known = {each: context.get(proxies, each) for each in gateways}
        return [each for each, proxy in known.items() if proxy is None or _in_front(proxy) != key]

    def findings(context: Context, route: CompiledRoute) -> tuple[Finding, ...] | None:
        found = ((key, waypoint) for key in _called(route) if (waypoint := passed(context, key)))
        told = ((key, waypoint, others(context, route, key)) for key, waypoint in found)
        return tuple(_finding(route, *each) for each in told if each[-1]) or None

    return graph.join(
        "past waypoints",
        [
            graph.derive(
                f"past waypoints by {each.name}",
                each,
                findings,
                key=lambda found: f"{found[0].origin} (past waypoints)",
            )
            for each in routes
        ],
    )


def _in_front(proxy: Proxy) -> str:
    """Key of the Service in front of a Gateway's pods."""
    return f"{proxy.key.partition('/')[0]}/{proxy.service}"


def _called(route: CompiledRoute) -> Iterable[str]:
    """The services that a route of a gateway sends to."""
    return dict.fromkeys(each for each in _backends(route) if each)


def _backends(route: CompiledRoute) -> Iterator[str]:
    for listener in route.listeners:
        for ranked in listener.entries:
            yield from (each.service for each in ranked.entry.action.backends)
        for stream in listener.streams:
            yield from (each.service for each in stream.backends)


def _finding(route: CompiledRoute, service: str, waypoint: str, gateways: Sequence[str]) -> Finding:
    callers = ", ".join(gateways)
    text = (
        f"gateway {callers} calls {service} past its waypoint {waypoint}, whose routes and policies do not count "
        f"then: label the Service {INGRESS_USE_WAYPOINT_LABEL}=true (=false when this is meant)"
    )
    return Finding("AMB0409", Level.WARNING, route.status.version.origin, "spec.rules", text)
