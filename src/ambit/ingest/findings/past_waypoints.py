"""Gateways that call services past their waypoints, as findings: so Istio has it, and hardly anybody means it.

What is said for such a waypoint, routes and policies, does not count for what comes by the gateway; where a policy
protects the service, its pods take connections from the waypoint only, so the gateway's are refused. The label
`istio.io/ingress-use-waypoint` sends it through the waypoint; written as `false` it says that this is meant.
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
    by_host = proxies.index(
        lambda each: (
            [f"{each.key.partition('/')[0]}/{each.service}"] if each.kind is ProxyKind.WAYPOINT else []
        )
    )

    def passed(context: Context, key: str) -> str:
        """The waypoint of a service that gateways go past, unless that is written."""
        service = context.get(services, key)
        if service is None or service.waypoint is None or ingress.wish(context, service):
            return ""
        host = f"{service.waypoint.namespace}/{service.waypoint.hostname}"
        return next((each.key for each in context.lookup(by_host, host)), "")

    def findings(context: Context, route: CompiledRoute) -> tuple[Finding, ...] | None:
        found = ((key, passed(context, key)) for key in _called(route))
        return tuple(_finding(route, key, waypoint) for key, waypoint in found if waypoint) or None

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


def _called(route: CompiledRoute) -> Iterable[str]:
    """The services that a route of a gateway sends to."""
    return dict.fromkeys(each for each in _backends(route) if each)


def _backends(route: CompiledRoute) -> Iterator[str]:
    for listener in route.listeners:
        for ranked in listener.entries:
            yield from (each.service for each in ranked.entry.action.backends)
        for stream in listener.streams:
            yield from (each.service for each in stream.backends)


def _finding(route: CompiledRoute, service: str, waypoint: str) -> Finding:
    gateways = ", ".join(dict.fromkeys(each.gateway for each in route.listeners))
    text = (
        f"gateway {gateways} calls {service} past its waypoint {waypoint}, whose routes and policies do not count "
        f"then: label the Service {INGRESS_USE_WAYPOINT_LABEL}=true (=false when this is meant)"
    )
    return Finding("AMB0409", Level.WARNING, route.status.version.origin, "spec.rules", text)
