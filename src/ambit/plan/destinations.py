"""Answers to the question "where does this pod's connection to this destination go", one cluster each.

Order (ztunnel `outbound.rs::build_request`, but pods first): reserved ports are refused; a service's address goes to
its waypoints, unless one of them asks, or to its endpoints (theirs are for who asks for their own address); a
workload's address to its waypoint or to itself; an address in a service's range as
the service's; anything else passes through untouched. To one workload there are three ways: inside the node
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

from ambit.core.address import Address, host_port
from ambit.core.names import HBONE_PORT, RESERVED_PORTS
from ambit.envoy import access_log, clusters, names
from ambit.envoy.words import AnyMessage
from ambit.model.service import BalancingMode, LoadBalancing, Service, WeightedWaypoint
from ambit.model.view import MeshView, holder
from ambit.model.workload import GatewayAddress, TunnelProtocol, Workload
from ambit.plan import announcement, at_pod, gateways, networks, pins
from ambit.plan.endpoints import (
    AnyChoice,
    Choice,
    NamedChoice,
    RemoteChoice,
    all_choices,
    for_client,
    preferred_address,
)
from ambit.plan.values import LocalPod, LocalPods, NodeSettings, is_of, place_of, workload_of
from ambit.policy.decide import (
    NO_ALLOW_MATCHED,
    UNKNOWN_POLICY,
    ConnectionFacts,
    Decision,
    Reason,
)


class Balanced(msgspec.Struct, frozen=True):
    """A connection goes to one of `endpoints`, by weight."""

    endpoints: tuple[clusters.Endpoint, ...]
    tags: dict[str, str]

    def tunnelled(self, family: int) -> tuple[clusters.Endpoint, ...]:
        """Those that a connection of this family can reach straight through a tunnel: it is made from the
        client's address, so the other family needs the hop."""
        return tuple(
            each
            for each in self.endpoints
            if each.listener == names.CONNECT_ORIGINATE and each.hop[0].version == family
        )

    def announcing(self, tags: dict[str, str]) -> tuple[clusters.Endpoint, ...]:
        """All endpoints; those reached through a tunnel say this in its request."""
        return tuple(
            msgspec.structs.replace(each, tags={**each.tags, **tags})
            if each.listener in {names.CONNECT_ORIGINATE, names.NETWORK_ORIGINATE}
            else each
            for each in self.endpoints
        )


class _Way(msgspec.Struct, frozen=True):
    """To one workload of a service."""

    workload: Workload
    endpoint: clusters.Endpoint


TUNNEL, SAME_NODE, DIRECT, REFUSED = networks.TUNNEL, "same-node", "direct", "refused"
INLINE = "inline"
"""Values of the access log's `route` tag."""


def answer(
    name: str, view: MeshView, pods: LocalPods, settings: NodeSettings, *, is_divided: bool = False
) -> AnyMessage:
    """The cluster `name`. With `is_divided` connections to tunnelled endpoints go another way (`share`), so that
    others are left here, if there are any."""
    try:
        asked = names.parse_cluster(name)
    except ValueError:
        return _refused(name, "no such destination")
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
        return _refused(name, "no endpoint is reached through a tunnel") if asked.tunnelled else found
    said = announcement.tags(workload_of(source, view, settings), found.tags.get(access_log.SERVICE, ""))
    if asked.tunnelled:
        chosen = found.tunnelled(family)
        if not chosen:
            return _refused(name, "no endpoint is reached through a tunnel")
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
) -> "Balanced | AnyMessage":
    source = pods.by_key(asked.source)
    if source is None:
        return _refused(name, "the source pod is not on this node")
    if asked.port in RESERVED_PORTS:
        return _refused(name, f"port {asked.port} belongs to the mesh")
    match holder(view, settings.network, asked.address, client_namespace=source.namespace):
        case Service() as service:
            return _service(name, source, asked, service, view, pods, settings)
        case Workload() as workload:
            return _workload(name, source, asked, workload, view, pods, settings)
        case None:
            return clusters.passthrough(name, {access_log.ROUTE: DIRECT})


def _service(
    name: str,
    source: LocalPod,
    asked: names.Destination,
    service: Service,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> AnyMessage:
    if service.inline_routes(asked.port) is not None:
        reader = clusters.Endpoint(
            listener=names.requests(asked), hop=(asked.address, asked.port), cluster=names.REFUSED
        )
        return clusters.balanced(name, [reader], {access_log.SERVICE: service.key, access_log.ROUTE: INLINE})
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
) -> "Balanced | AnyMessage":
    """Where bytes for a service go on: its waypoints or its endpoints, whether or not requests to it are read. With
    rules, or for another service that has them (`held_to`), to endpoints that enforce them only."""
    tags = {access_log.SERVICE: service.key}
    if service.has_waypoint and held_to is not None and held_to.rules is not None:
        return _refused(name, f"a waypoint does not enforce the rules for {held_to.key}", tags)
    if service.has_waypoint and not _stands_for(source, service, view, settings):
        return _waypoint(name, asked, service.waypoints, service, tags, view, settings)
    balancing = service.load_balancing or LoadBalancing()
    if not any(port.service == asked.port for port in service.ports):
        if balancing.mode == BalancingMode.PASSTHROUGH:
            return clusters.passthrough(name, {**tags, access_log.ROUTE: DIRECT})
        return _refused(name, f"service {service.key} has no port {asked.port}", tags)
    family = asked.address.version
    place = place_of(source, view, settings) if balancing.routing_preference else settings
    found = (
        (choice.workload, _endpoint(source, asked, choice, service, view, pods, settings))
        for choice in all_choices(service, asked.port, family, view, place)
        if is_protected(choice, held_to or service)
    )
    ways = [_Way(workload, endpoint) for workload, endpoint in found if endpoint is not None]
    endpoints = [each.endpoint for each in for_client(service, source.addresses, ways)]
    if endpoints:
        return Balanced(tuple(endpoints), tags)
    if balancing.mode == BalancingMode.PASSTHROUGH:
        return clusters.passthrough(name, {**tags, access_log.ROUTE: DIRECT})
    return _refused(name, f"service {service.key} has no healthy endpoint for port {asked.port}", tags)


def is_protected(choice: AnyChoice, service: Service) -> bool:
    """Whether an endpoint enforces the service's rules, if it has any. What is no pod of the mesh enforces nothing."""
    return service.rules is None or (
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
) -> AnyMessage:
    tags = {access_log.WORKLOAD: workload.uid, access_log.IDENTITY: workload.identity.uri}
    if workload.waypoint is not None and not _is_waypoint(source, workload.waypoint, view, settings):
        bound = (WeightedWaypoint(workload.waypoint, 1),)
        return _waypoint(name, asked, bound, None, tags, view, settings)
    local = pods.by_address(asked.address)
    if local is not None and not settings.same_node_tls and workload.application_tunnel is None:
        return _same_node(name, source, asked, workload, local, tags, view, pods, settings)
    if workload.tunnel == TunnelProtocol.HBONE:
        choice = Choice(workload, asked.address, asked.port)
        return Balanced((_tunnel(choice, names.tunnel(workload.identity)),), tags)
    return clusters.passthrough(name, {**tags, access_log.ROUTE: DIRECT})


def _same_node(
    name: str,
    source: LocalPod,
    asked: names.Destination,
    workload: Workload,
    local: LocalPod,
    tags: dict[str, str],
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> AnyMessage:
    """Nobody gets to a port whose requests are to be read before they are."""
    tags = {
        **tags,
        **_same_node_tags(source, Choice(workload, asked.address, asked.port), local, view, settings),
    }
    if tags[access_log.ROUTE] == REFUSED:
        return clusters.refused(name, tags)
    ruled = at_pod.ports_of(workload, view).get(asked.port)
    if ruled is not None and ruled.is_read and pods.is_unread(local, asked.port):
        return _refused(name, "requests to the pod are not read yet", tags)
    if ruled is not None and ruled.is_read:
        from ambit.envoy import pod_requests

        reader = pod_requests.endpoint(local.key, asked.address, asked.port, source.identity.uri, tags)
        return clusters.balanced(name, [reader], tags)
    return clusters.inside(name, local.netns, tags)


def _same_node_tags(
    source: LocalPod, choice: Choice, local: LocalPod, view: MeshView, settings: NodeSettings
) -> dict[str, str]:
    """Whether the connection goes on to `local`, and why (not)."""
    workload = choice.workload
    if not is_of(local, workload, settings):
        return {
            access_log.ROUTE: REFUSED,
            access_log.REASON: f"the pod at {choice.address} is not {workload.uid}",
        }
    decision = decide_same_node(source, choice.address, choice.port, workload, view)
    rule = rule_name(decision)
    policy = {access_log.POLICY: rule} if rule else {}
    if decision.allowed:
        return {access_log.ROUTE: SAME_NODE, **policy}
    return {access_log.ROUTE: REFUSED, access_log.REASON: decision.reason.value, **policy}


def decide_same_node(
    source: LocalPod, address: Address, port: int, workload: Workload, view: MeshView
) -> Decision:
    """Whether `source` may connect to `port` of `workload` on the same node."""
    client = preferred_address(source.addresses, address.version)
    assert client is not None, "a pod has an address"
    facts = ConnectionFacts(
        source=client, destination=address, destination_port=port, identity=source.identity
    )
    return at_pod.decide_here(workload, facts, view)


def rule_name(decision: Decision) -> str:
    """The decision's rule as logs show it, the same as on HBONE (`ambit.plan.authorization`); empty when it was
    allowed without any policy."""
    match decision.reason:
        case Reason.NO_ALLOW_POLICY:
            return ""
        case Reason.UNKNOWN_POLICY:
            return UNKNOWN_POLICY + decision.policy
        case Reason.NO_RULE_MATCHED:
            return decision.policy or NO_ALLOW_MATCHED
        case Reason.DENIED_BY_RULE | Reason.ALLOWED_BY_RULE | Reason.NOBODY_TO_ASK:
            return f"{decision.policy}[{decision.rule}]"


def _waypoint(
    name: str,
    asked: names.Destination,
    waypoints: tuple[WeightedWaypoint, ...],
    service: Service | None,
    tags: dict[str, str],
    view: MeshView,
    settings: NodeSettings,
) -> "Balanced | AnyMessage":
    """To one of the waypoints of what was asked for (`service`, or a workload when None): a tunnel for the address
    as it was dialled. Without any that can be used the connection is refused, it never goes on without."""
    found = gateways.parts(waypoints, asked.address.version, view, settings)
    endpoints = [
        each
        for stand, weight in found
        if (each := _waypoint_endpoint(asked, service, stand, weight, view, settings)) is not None
    ]
    if endpoints:
        return Balanced(tuple(endpoints), tags)
    called = ", ".join(_called(each.gateway) for each in waypoints)
    return _refused(name, f"waypoint {called or 'without a place'} is not ready", tags)


def _waypoint_endpoint(
    asked: names.Destination,
    service: Service | None,
    stand: gateways.Stand,
    weight: int,
    view: MeshView,
    settings: NodeSettings,
) -> clusters.Endpoint | None:
    choice = stand.choice
    if isinstance(choice, Choice):
        return clusters.Endpoint(
            listener=names.CONNECT_ORIGINATE,
            hop=(choice.address, choice.port),
            cluster=names.tunnel(choice.workload.identity, pins.with_names(stand.service, view)),
            authority=host_port(asked.address, asked.port),
            weight=weight,
            tags=_tags(choice, TUNNEL),
        )
    if service is None:
        return None
    waypoint = view.service(stand.service)
    return networks.endpoint((asked.address, asked.port), service, choice, waypoint, settings, weight)


def _called(gateway: GatewayAddress) -> str:
    return f"{gateway.namespace}/{gateway.hostname}" if gateway.hostname else str(gateway.address)


def _stands_for(source: LocalPod, service: Service, view: MeshView, settings: NodeSettings) -> bool:
    """Whether the caller is a waypoint of the service, whose connections go on to endpoints."""
    return any(_is_waypoint(source, each.gateway, view, settings) for each in service.waypoints)


def _is_waypoint(source: LocalPod, gateway: GatewayAddress, view: MeshView, settings: NodeSettings) -> bool:
    """Whether the caller is itself one of the gateway's workloads."""
    return any(
        isinstance(stand.choice, Choice)
        and settings.trust_domains.are_same(stand.choice.workload.identity, source.identity)
        and stand.choice.address in source.addresses
        for version in (4, 6)
        for stand in gateways.waypoint(gateway, version, view, settings)
    )


def _is_dialled(
    choice: Choice,
    source: LocalPod,
    family: int,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> bool:
    """Whether an endpoint without a tunnel can be reached by a connection of this family. On the node it is made
    from the client's address; elsewhere from any address that the pod has of the endpoint's family. One whose address
    is a service's is left out: going on to it could come back here, without end."""
    version = choice.address.version
    if version != family and (
        pods.by_address(choice.address) is not None
        or all(address.version != version for address in source.addresses)
    ):
        return False
    found = holder(view, settings.network, choice.address, client_namespace=source.namespace)
    return not isinstance(found, Service) or found.lets_pass


def _named_endpoint(source: LocalPod, asked: names.Destination, choice: NamedChoice) -> clusters.Endpoint:
    workload = choice.workload
    target = f"{workload.hostname}:{choice.port}"
    return clusters.Endpoint(
        listener=names.OUTSIDE_ORIGINATE,
        hop=(asked.address, asked.port),
        cluster=names.resolved(source.key, workload.hostname, choice.port, asked.generation),
        authority=target,
        weight=workload.capacity,
        tags={access_log.ROUTE: DIRECT, access_log.WORKLOAD: workload.uid, access_log.TARGET: target},
    )


def _resolved(name: str, asked: names.Resolved, pods: LocalPods) -> AnyMessage:
    source = pods.by_key(asked.source)
    if source is None:
        return _refused(name, "the source pod is not on this node")
    if asked.port in RESERVED_PORTS:
        return _refused(name, f"port {asked.port} belongs to the mesh")
    families = {address.version for address in source.addresses}
    return clusters.resolved(name, asked.hostname, asked.port, families, {access_log.ROUTE: DIRECT})


def _endpoint(
    source: LocalPod,
    asked: names.Destination,
    choice: AnyChoice,
    service: Service,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> clusters.Endpoint | None:
    """The way to one endpoint of a service; None when there is none for this connection."""
    if isinstance(choice, NamedChoice):
        return _named_endpoint(source, asked, choice)
    if isinstance(choice, RemoteChoice):
        place = (asked.address, asked.port)
        return networks.endpoint(place, service, choice, service, settings, choice.workload.capacity)
    if _is_tunnelled(choice.workload, settings):
        return _tunnel(choice, names.tunnel(choice.workload.identity, pins.with_names(service.key, view)))
    if _is_dialled(choice, source, asked.address.version, view, pods, settings):
        return _dialled_endpoint(source, asked, choice, view, pods, settings)
    return None


def _dialled_endpoint(
    source: LocalPod,
    asked: names.Destination,
    choice: Choice,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> clusters.Endpoint:
    workload = choice.workload
    cluster = names.destination(source.key, choice.address, choice.port, asked.generation)
    if workload.waypoint is not None:
        # Asked for by its own address it would be reached through the waypoint.
        cluster = names.PASSTHROUGH
    local = pods.by_address(choice.address)
    # The pod's own answer decides; the tags say so here because this connection's log cannot see it.
    same_node = _same_node_tags(source, choice, local, view, settings) if local is not None else {}
    return clusters.Endpoint(
        listener=names.DIRECT_ORIGINATE
        if choice.address.version == asked.address.version
        else names.OUTSIDE_ORIGINATE,
        hop=(choice.address, choice.port),
        cluster=cluster,
        weight=workload.capacity,
        tags={**_tags(choice, DIRECT), **same_node},
    )


def _tunnel(choice: Choice, cluster: str) -> clusters.Endpoint:
    return clusters.Endpoint(
        listener=names.CONNECT_ORIGINATE,
        hop=(choice.address, HBONE_PORT),
        cluster=cluster,
        authority=host_port(choice.address, choice.port),
        weight=choice.workload.capacity,
        tags=_tags(choice, TUNNEL),
    )


def _tags(choice: Choice, route: str) -> dict[str, str]:
    return {
        access_log.ROUTE: route,
        access_log.WORKLOAD: choice.workload.uid,
        access_log.IDENTITY: choice.workload.identity.uri,
        access_log.TARGET: host_port(choice.address, choice.port),
    }


def _is_tunnelled(workload: Workload, settings: NodeSettings) -> bool:
    """Endpoints on this node go on to their own address, which decides between same node and plain; but not those whose
    address has a waypoint, which is not for who asked for a service, nor those that are told of the tunnel."""
    is_special = workload.waypoint is not None or workload.application_tunnel is not None
    elsewhere = workload.node != settings.node or settings.same_node_tls or is_special
    return workload.tunnel == TunnelProtocol.HBONE and elsewhere


def _refused(name: str, reason: str, tags: dict[str, str] | None = None) -> AnyMessage:
    return clusters.refused(name, {**(tags or {}), access_log.ROUTE: REFUSED, access_log.REASON: reason})
