"""Answers to the question "where does this pod's connection to this destination go", one cluster each.

Order (ztunnel `outbound.rs::build_request`, but pods first): reserved ports are refused; a service's address goes to
its waypoints, unless one of them asks, or to its endpoints (theirs are for who asks for their own address); a
workload's address to its waypoint or to itself; an address in a service's range as
the service's; one in a range of the cluster that nobody is known to have is refused (`is_unknown`); anything else
passes through untouched. To one workload there are three ways: inside the node
(policy decided here, because source and destination are in the question), through an HBONE tunnel whose server is
pinned to the workload's identity, or plainly. An answer is never "no such cluster": what must not go on is an empty
cluster, which resets at once and says why.

A service's cluster has one endpoint for each workload, and every endpoint leads through an internal listener
to the cluster for that one workload. So local, remote and plain endpoints mix freely, each with its own
tunnel and pin; the price is one hop inside Envoy (7 us for a request, 50 us for a new connection). Tunnels are
spared it once the destination is known: the outbound listener sends their share of connections straight to the
tunnelled form of the same destination, which has these endpoints only.
"""

import msgspec

from ambit.core.names import RESERVED_PORTS
from ambit.envoy import clusters, names
from ambit.envoy.logs import access_log
from ambit.envoy.words import AnyMessage
from ambit.model.service import BalancingMode, LoadBalancing, Service, WeightedWaypoint
from ambit.model.view import MeshView, holder
from ambit.model.workload import TunnelProtocol, Workload
from ambit.plan import announcement, pins
from ambit.plan.endpoints import AnyChoice, Choice, all_choices, for_client
from ambit.plan.node import at_pod, networks, same_node, to_endpoint, to_waypoint, ways
from ambit.plan.node.ways import Balanced
from ambit.plan.values import LocalPod, LocalPods, NodeSettings, place_of, workload_of


class _Way(msgspec.Struct, frozen=True):
    """To one workload of a service."""

    workload: Workload
    endpoint: clusters.Endpoint


def answer(
    name: str, view: MeshView, pods: LocalPods, settings: NodeSettings, *, is_divided: bool = False
) -> AnyMessage:
    """The cluster `name`. With `is_divided` connections to tunnelled endpoints go another way (`share`), so that
    others are left here, if there are any."""
    try:
        asked = names.parse_cluster(name)
    except ValueError:
        return ways.refused(name, "no such destination")
    if isinstance(asked, names.Tunnel):
        return clusters.hbone(name, pins.of_tunnel(asked.identity, asked.service, view, settings))
    if isinstance(asked, names.Inner):
        return networks.inner(name, asked, view, settings)
    if isinstance(asked, names.Resolved):
        return _resolved(name, asked, pods)
    found = _find(name, asked, view, pods, settings)
    family = asked.address.version
    source = pods.by_key(asked.source)
    if not isinstance(found, Balanced) or source is None:
        return ways.refused(name, "no endpoint is reached through a tunnel") if asked.tunnelled else found
    said = announcement.tags(workload_of(source, view, settings), found.tags.get(access_log.SERVICE, ""))
    if asked.tunnelled:
        chosen = found.tunnelled(family)
        if not chosen:
            return ways.refused(name, "no endpoint is reached through a tunnel")
        tunnels = {each.cluster: names.parse_cluster(each.cluster) for each in chosen}
        return clusters.tunnelled(
            name,
            chosen,
            {
                pin: pins.of_tunnel(tunnel.identity, tunnel.service, view, settings)
                for pin, tunnel in tunnels.items()
                if isinstance(tunnel, names.Tunnel)
            },
            {**found.tags, **said},
        )
    elsewhere = found.tunnelled(family) if is_divided else ()
    others = tuple(each for each in found.endpoints if each not in elsewhere)
    left = Balanced(others or found.endpoints, found.tags)
    return clusters.balanced(name, left.announcing(said), left.tags)


def tunnelled_share(
    asked: names.Destination, view: MeshView, pods: LocalPods, settings: NodeSettings
) -> tuple[int, int] | None:
    """Of connections to this destination so many parts of the whole can go straight into a tunnel; None when
    none can."""
    found = _find("", asked, view, pods, settings)
    if not isinstance(found, Balanced):
        return None
    parts = sum(each.weight for each in found.tunnelled(asked.address.version))
    return (parts, sum(each.weight for each in found.endpoints)) if parts else None


def goes_on(asked: names.Destination, view: MeshView, pods: LocalPods, settings: NodeSettings) -> bool:
    """Whether connections to this destination go on, whichever way."""
    found = _find("", asked, view, pods, settings)
    return isinstance(found, Balanced) or not clusters.is_refused(found)


def _find(
    name: str, asked: names.Destination, view: MeshView, pods: LocalPods, settings: NodeSettings
) -> Balanced | AnyMessage:
    source = pods.by_key(asked.source)
    if source is None:
        return ways.refused(name, "the source pod is not on this node")
    if asked.port in RESERVED_PORTS:
        return ways.refused(name, f"port {asked.port} belongs to the mesh")
    match holder(view, settings.network, asked.address, client_namespace=source.namespace):
        case Service() as service:
            return _service(name, source, asked, service, view, pods, settings)
        case Workload() as workload:
            return _workload(name, source, asked, workload, view, pods, settings)
        case None if is_unknown(asked, view, settings):
            reason = f"no pod or Service is known at {asked.address}, which is in a range of the cluster"
            return ways.refused(name, reason)
        case None:
            return clusters.passthrough(name, {access_log.ROUTE: ways.DIRECT})


def is_unknown(asked: names.Destination, view: MeshView, settings: NodeSettings) -> bool:
    """Whether the address can only be a pod's or a Service's of this cluster, and is of none that the view has: the
    workload API may be about to bring it, with a policy, an identity or a waypoint."""
    address = asked.address
    return (
        asked.port not in RESERVED_PORTS
        and any(address in each for each in settings.cluster_ranges)
        and holder(view, settings.network, address) is None
        and not view.has_address(settings.network, address)
    )


def _service(
    name: str,
    source: LocalPod,
    asked: names.Destination,
    service: Service,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> Balanced | AnyMessage:
    if service.inline_routes(asked.port) is not None:
        reader = clusters.Endpoint(
            listener=names.requests(asked), hop=(asked.address, asked.port), cluster=names.REFUSED
        )
        return clusters.balanced(
            name, [reader], {access_log.SERVICE: service.key, access_log.ROUTE: ways.INLINE}
        )
    return backend(name, source, asked, service, view, pods, settings)


def backend(
    name: str,
    source: LocalPod,
    asked: names.Destination,
    service: Service,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
    held_to: Service | None = None,
) -> Balanced | AnyMessage:
    """Where bytes for a service go on: its waypoints or its endpoints, whether or not requests to it are read. With
    rules, or for another service that has them (`held_to`), to endpoints that enforce them only."""
    tags = {access_log.SERVICE: service.key}
    if service.has_waypoint and held_to is not None and held_to.enforced is not None:
        return ways.refused(name, f"a waypoint does not enforce the rules for {held_to.key}", tags)
    if service.has_waypoint and not to_waypoint.stands_for(source, service, view, settings):
        return to_waypoint.answer(name, asked, service.waypoints, service, tags, view, settings)
    balancing = service.load_balancing or LoadBalancing()
    if not any(port.service == asked.port for port in service.ports):
        if balancing.mode == BalancingMode.PASSTHROUGH:
            return clusters.passthrough(name, {**tags, access_log.ROUTE: ways.DIRECT})
        return ways.refused(name, f"service {service.key} has no port {asked.port}", tags)
    family = asked.address.version
    place = place_of(source, view, settings) if balancing.routing_preference else settings
    found = (
        (choice.workload, to_endpoint.endpoint(source, asked, choice, service, view, pods, settings))
        for choice in all_choices(service, asked.port, family, view, place)
        if is_protected(choice, held_to or service)
    )
    dialled = [_Way(workload, endpoint) for workload, endpoint in found if endpoint is not None]
    endpoints = [each.endpoint for each in for_client(service, source.addresses, dialled)]
    if endpoints:
        return Balanced(tuple(endpoints), tags)
    if balancing.mode == BalancingMode.PASSTHROUGH:
        return clusters.passthrough(name, {**tags, access_log.ROUTE: ways.DIRECT})
    return ways.refused(name, f"service {service.key} has no healthy endpoint for port {asked.port}", tags)


def is_protected(choice: AnyChoice, service: Service) -> bool:
    """Whether an endpoint enforces the service's rules, if it has any. What is no pod of the mesh enforces nothing."""
    return service.enforced is None or (
        isinstance(choice, Choice) and at_pod.enforces(choice.workload, service, choice.port)
    )


def _workload(
    name: str,
    source: LocalPod,
    asked: names.Destination,
    workload: Workload,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> Balanced | AnyMessage:
    tags = {access_log.WORKLOAD: workload.uid, access_log.IDENTITY: workload.identity.uri}
    if workload.waypoint is not None and not to_waypoint.is_waypoint(
        source, workload.waypoint, view, settings
    ):
        bound = (WeightedWaypoint(workload.waypoint, 1),)
        return to_waypoint.answer(name, asked, bound, None, tags, view, settings)
    local = pods.by_address(asked.address)
    if local is not None and not settings.same_node_tls and workload.application_tunnel is None:
        return same_node.answer(name, source, asked, workload, local, tags, view, pods, settings)
    if workload.tunnel == TunnelProtocol.HBONE:
        choice = Choice(workload, asked.address, asked.port)
        return Balanced((ways.tunnel(choice, names.tunnel(workload.identity)),), tags)
    return clusters.passthrough(name, {**tags, access_log.ROUTE: ways.DIRECT})


def _resolved(name: str, asked: names.Resolved, pods: LocalPods) -> AnyMessage:
    source = pods.by_key(asked.source)
    if source is None:
        return ways.refused(name, "the source pod is not on this node")
    if asked.port in RESERVED_PORTS:
        return ways.refused(name, f"port {asked.port} belongs to the mesh")
    families = {address.version for address in source.addresses}
    return clusters.resolved(name, asked.hostname, asked.port, families, {access_log.ROUTE: ways.DIRECT})
