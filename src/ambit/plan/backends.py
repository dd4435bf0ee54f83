"""What a waypoint or gateway sends requests and bytes to: for each port of a service its cluster, its endpoints, and a
cluster for each identity that is reached through a tunnel. Endpoints are reached as node proxies reach them: through a
tunnel whose server is pinned to the workload's identity, or plainly where there is no tunnel.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial

import msgspec

from ambit.core.address import Address, host_port, is_of_the_machine
from ambit.core.identity import Identity
from ambit.core.memo import Memo
from ambit.core.names import HBONE_PORT, NODE_ADMIN_PORT
from ambit.envoy import clusters, names, waypoint_services
from ambit.envoy.backend_tls import Spoken
from ambit.envoy.waypoint_services import Endpoint, PlainEndpoint, Speaks
from ambit.model.http import Action, Host
from ambit.model.provider import ProviderService
from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import AppProtocol, LoadBalancing, RetryBudget, Service, WeightedWaypoint
from ambit.model.streams import Stream
from ambit.model.view import MeshView
from ambit.model.workload import GatewayAddress, TunnelProtocol, Workload
from ambit.plan import pins
from ambit.plan.announcement import endpoint_tags
from ambit.plan.endpoints import Choice, NamedChoice, RemoteChoice, Sought, all_choices
from ambit.plan.gateways import whole
from ambit.plan.values import CLUSTER, ENDPOINTS, NodeSettings, PlannedResource, planned

FAMILIES = (4, 6)
"""In which a proxy listens; endpoints are rather called in the first."""
HTTP2 = frozenset({AppProtocol.HTTP2, AppProtocol.GRPC})
"""What is said to speak HTTP/2 only."""
Backend = tuple[str, int]
"""A service's key and port."""
Tagged = Callable[[Workload], Mapping[str, str]]
"""What is known of an endpoint."""
LeadsBack = Callable[[Address, int], bool]
"""Whether what is sent to an address and port comes back to who sends it."""


class Provider(msgspec.Struct, frozen=True, order=True):
    """A service that a proxy calls for itself: whom it asks about requests, or tells of them."""

    service: str
    port: int
    is_grpc: bool = False

    @property
    def cluster(self) -> str:
        return names.provider(self.service, self.port, is_grpc=self.is_grpc)


def provider(service: ProviderService, *, is_grpc: bool = True) -> Provider:
    """The service that the mesh's settings mean."""
    return Provider(service.key, service.port, is_grpc=is_grpc)


def service_name(proxy: Proxy) -> str:
    """A proxy in words of OpenTelemetry."""
    namespace, _, name = proxy.key.partition("/")
    return f"{name}.{namespace}"


def resources(
    wanted: Mapping[Backend, Speaks],
    proxy: Proxy,
    view: MeshView,
    settings: NodeSettings,
    memo: Memo,
    tunnels: Iterable[names.Tunnel] = (),
    providers: Iterable[Provider] = (),
    tagged: Tagged = endpoint_tags,
    back: LeadsBack = lambda _address, _port: False,
) -> Iterator[PlannedResource]:
    """Everything behind these backends, `providers`, and further `tunnels`. What does not exist has nothing. Endpoints
    are `tagged` for records and spans; those that lead `back` to the proxy are left out."""
    needed = set(tunnels)
    shown = names.shown_certificate(proxy.client_certificate) if proxy.client_certificate else ""
    called = [(names.service_cluster(key, port), key, port, how) for (key, port), how in wanted.items()]
    called += [
        (each.cluster, each.service, each.port, speaks(each, view.service(each.service)))
        for each in set(providers)
    ]
    for name, key, port, spoken_as in sorted(called, key=lambda each: each[:3]):
        service = view.service(key)
        if service is None or not _has_port(service, port):
            continue
        tls = service.backend_tls.get(port)
        if tls is not None and not tls.trusts:
            # Not by leaving endpoints out: those come by themselves, and may be there a moment longer.
            yield planned(CLUSTER, name, clusters.refused(name, {}))
            continue
        endpoints = tuple(_endpoints(service, port, proxy, view, settings, tagged, back))
        needed |= {each for each in map(_tunnel, endpoints) if each is not None}
        spoken = Spoken(tls, shown) if tls is not None else None
        given = (endpoints, spoken_as, spoken, service.retry_budget)
        yield from memo.of(("backend", name), given, partial(_cluster, name, *given))
    secret = names.server_secret(proxy.identity)
    for tunnel in sorted(needed, key=lambda each: (each.identity, each.service)):
        name = names.tunnel(tunnel.identity, tunnel.service)
        allowed = _servers(tunnel, proxy, view, settings)
        yield memo.of(name, (tuple(allowed), secret), partial(_hbone, name, allowed, secret))


def of_hosts(hosts: Iterable[Host]) -> set[Backend]:
    """What the entries of tables name, copies of requests included."""
    found: set[Backend] = set()
    for action in _actions(hosts):
        found |= {(each.service, each.port) for each in action.backends if each.service}
        found |= {(each.service, each.port) for each in action.mirrors}
    return found


def asked_by(hosts: Iterable[Host]) -> set[Provider]:
    """Whom the entries of tables have requests shown to."""
    asked = (each.external_auth for each in _actions(hosts))
    return {
        Provider(each.service, each.port, is_grpc=each.authorizer.is_grpc)
        for each in asked
        if each is not None
    }


def of_streams(streams: Iterable[Stream]) -> set[Backend]:
    """What connections are led to."""
    return {(each.service, each.port) for stream in streams for each in stream.backends if each.service}


def _actions(hosts: Iterable[Host]) -> Iterator[Action]:
    return (entry.action for host in hosts for entry in host.entries)


def _has_port(service: Service, port: int) -> bool:
    return any(each.service == port for each in service.ports)


def _hbone(name: str, allowed: Sequence[str], secret: str) -> PlannedResource:
    return planned(CLUSTER, name, clusters.own_hbone(name, allowed, secret))


def speaks(provider: Provider, service: Service | None) -> Speaks:
    """What is spoken to a provider, which is this service if it is there."""
    is_http2 = service is not None and service.app_protocols.get(provider.port) in HTTP2
    return Speaks.HTTP2 if provider.is_grpc or is_http2 else Speaks.HTTP1


def _cluster(
    name: str, endpoints: Sequence[Endpoint], speaks: Speaks, tls: Spoken | None, budget: RetryBudget | None
) -> tuple[PlannedResource, ...]:
    if any(isinstance(each, PlainEndpoint) and each.hostname for each in endpoints):
        message = waypoint_services.cluster_by_names(name, endpoints, speaks, tls)
        return (planned(CLUSTER, name, waypoint_services.budgeted(message, budget)),)
    message = waypoint_services.cluster(name, speaks, tls)
    return (
        planned(CLUSTER, name, waypoint_services.budgeted(message, budget)),
        planned(ENDPOINTS, name, waypoint_services.endpoints_of(name, endpoints)),
    )


def _endpoints(
    service: Service,
    port: int,
    proxy: Proxy,
    view: MeshView,
    settings: NodeSettings,
    tagged: Tagged,
    back: LeadsBack,
) -> Iterator[Endpoint]:
    """In whatever place: requests of all callers come here, so nearness to this proxy means nothing. What another
    namespace puts behind its service is called only as far as it is that namespace's own. A gateway goes through the
    waypoint of a service that says so."""
    if through := waypoints_of(service, proxy):
        yield from _through_waypoints(through, service, port, view, settings, tagged)
        return
    health = (service.load_balancing or LoadBalancing()).health_policy
    anywhere = msgspec.structs.replace(service, load_balancing=LoadBalancing(health_policy=health))
    for choice in all_choices(anywhere, port, FAMILIES[0], view, settings):
        if isinstance(choice, RemoteChoice) or _is_the_proxy_itself(choice):
            continue
        if isinstance(choice, NamedChoice):
            yield PlainEndpoint(
                choice.port,
                hostname=choice.workload.hostname,
                weight=choice.workload.capacity,
                tags=tagged(choice.workload),
            )
        elif back(choice.address, choice.port):
            continue
        elif choice.workload.tunnel is TunnelProtocol.HBONE:
            if _may_name(service, choice.workload.identity.namespace, proxy):
                yield through_tunnel(choice, service.key if service.subject_alt_names else "", tagged)
        else:
            yield plainly(choice, tagged)


def _is_the_proxy_itself(choice: Choice | NamedChoice) -> bool:
    """Whether an endpoint is, or by its name can be, within the proxy's own pod, where its agent answers whoever asks
    about everybody's requests."""
    if isinstance(choice, NamedChoice):
        return choice.port == NODE_ADMIN_PORT
    return is_of_the_machine(choice.address)


def waypoints_of(service: Service, proxy: Proxy) -> tuple[WeightedWaypoint, ...]:
    """The waypoints through which this proxy calls a service, each with its part; none for directly."""
    if proxy.kind is not ProxyKind.GATEWAY or not service.ingress_use_waypoint:
        return ()
    return service.waypoints


def _through_waypoints(
    waypoints: tuple[WeightedWaypoint, ...],
    service: Service,
    port: int,
    view: MeshView,
    settings: NodeSettings,
    tagged: Tagged,
) -> Iterator[Endpoint]:
    """The pods of waypoints, asked for the service by its name, or by an address when it has a wildcard or they are
    told of addresses. A waypoint that is not there, or lets nobody in, is nobody."""
    by_name = f"{service.hostname}:{port}"
    by_address = host_port(service.addresses[0].address, port) if service.addresses else by_name
    found: list[tuple[Choice, Fraction]] = []
    for each in waypoints:
        choices = list(_pods(each.gateway, view, settings))
        capacity = sum(choice.workload.capacity for choice in choices)
        found += [(choice, Fraction(each.weight * choice.workload.capacity, capacity)) for choice in choices]
    for (choice, _), weight in zip(found, whole([part for _, part in found]), strict=True):
        is_handed = choice.workload.application_tunnel is not None
        authority = by_address if is_handed or service.hostname.startswith("*") else by_name
        yield msgspec.structs.replace(through_tunnel(choice, "", tagged), authority=authority, weight=weight)


def _pods(gateway: GatewayAddress, view: MeshView, settings: NodeSettings) -> Iterator[Choice]:
    """Those of a waypoint that can be dialled from here, in whatever place."""
    waypoint = view.service(f"{gateway.namespace}/{gateway.hostname}")
    if waypoint is None:
        return
    anywhere = msgspec.structs.replace(waypoint, load_balancing=None)
    for choice in all_choices(anywhere, HBONE_PORT, FAMILIES[0], view, settings, Sought.WAYPOINT):
        if isinstance(choice, Choice):
            yield choice


def _servers(tunnel: names.Tunnel, proxy: Proxy, view: MeshView, settings: NodeSettings) -> list[str]:
    """The identities that the server of a tunnel may prove."""
    service = view.service(tunnel.service) if tunnel.service else None
    named = pins.spiffe(service.subject_alt_names) if service is not None else []
    allowed = [each for each in named if service is None or _may_name(service, _namespace_of(each), proxy)]
    return pins.pins((tunnel.identity,), allowed, settings)


def _may_name(service: Service, namespace: str, proxy: Proxy) -> bool:
    """Whether servers of a namespace may stand behind a service. EndpointSlices and ServiceEntries name anybody's
    (CVE-2021-25740), and it is the waypoint that calls: who must not speak to a server would reach it by the way of
    whatever waypoint takes his service, or his route."""
    return namespace == service.namespace or service.namespace == proxy.identity.namespace


def _namespace_of(uri: str) -> str:
    """Empty for what is no identity of a workload."""
    try:
        return Identity.parse(uri).namespace
    except ValueError:
        return ""


def through_tunnel(choice: Choice, pinned: str, tagged: Tagged) -> clusters.Endpoint:
    """`pinned` is the service whose other names count, too."""
    return clusters.Endpoint(
        listener=names.CONNECT_ORIGINATE,
        hop=(choice.address, HBONE_PORT),
        cluster=names.tunnel(choice.workload.identity, pinned),
        authority=host_port(choice.address, choice.port),
        weight=choice.workload.capacity,
        tags=tagged(choice.workload),
    )


def plainly(choice: Choice, tagged: Tagged) -> PlainEndpoint:
    """As the proxy itself."""
    return PlainEndpoint(
        choice.port,
        choice.address,
        weight=choice.workload.capacity,
        tags=tagged(choice.workload),
    )


def _tunnel(endpoint: Endpoint) -> names.Tunnel | None:
    """The tunnel that an endpoint needs a cluster for."""
    if not isinstance(endpoint, clusters.Endpoint):
        return None
    parsed = names.parse_cluster(endpoint.cluster)
    return parsed if isinstance(parsed, names.Tunnel) else None
