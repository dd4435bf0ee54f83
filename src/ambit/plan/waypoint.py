"""Everything that the Envoy of one waypoint gets: pure, from the mesh as the control plane knows it.

For each port of a bound service: the authorities of tunnels to it (virtual addresses and host name), the listener
inside of those tunnels, its table when it speaks HTTP, and the cluster of its endpoints. Backends of tables that are
no bound services have the cluster only. Endpoints are reached as node proxies reach them: through a tunnel whose
server is pinned to the workload's identity, or plainly where there is no tunnel. What is not bound is not there.
A bound workload has the same by its own addresses: a listener for each port that a service of it says to speak HTTP,
and one for bytes to all others.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from ambit.core.address import host_port
from ambit.core.identity import Identity
from ambit.core.names import HBONE_PORT
from ambit.envoy import bootstrap as envoy_bootstrap
from ambit.envoy import clusters, defaults, http_routes, listeners, names, waypoint_services, waypoint_tunnels
from ambit.envoy.waypoint_services import Endpoint, PlainEndpoint
from ambit.envoy.words import AnyMessage
from ambit.model.http import Action, Host
from ambit.model.proxy import Proxy, ServiceRoutes
from ambit.model.service import AppProtocol, LoadBalancing, Service
from ambit.model.view import MeshView
from ambit.model.workload import TunnelProtocol, Workload
from ambit.plan import pins
from ambit.plan.endpoints import Choice, NamedChoice, RemoteChoice, all_choices, preferred_address
from ambit.plan.values import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    NodeSettings,
    PlannedResource,
    planned,
)

_HTTP = frozenset({AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC})
_HTTP2 = frozenset({AppProtocol.HTTP2, AppProtocol.GRPC})
_FAMILIES = (4, 6)
_STATISTICS = ("http.hbone.", f"http.{waypoint_services.REQUESTS}.")
Backend = tuple[str, int]
"""A service's key and port."""


class Bound(msgspec.Struct, frozen=True):
    """What is bound to a waypoint, and the tables of ports (by `ServiceRoutes.key`) for services that have any."""

    services: tuple[Service, ...] = ()
    routes: Mapping[str, ServiceRoutes] = {}
    workloads: tuple[Workload, ...] = ()
    """Bound by their own addresses."""


def bootstrap(node: str, *, run: str, max_connections: int = 50_000) -> bytes:
    """Envoy's bootstrap, to be written as a `.pb` file. Its sockets lie in `run`."""
    message: AnyMessage = envoy_bootstrap.proxy(
        node=node,
        xds_socket=f"{run}/xds.sock",
        logs_socket=f"{run}/logs.sock",
        admin_socket=f"{run}/admin.sock",
        max_connections=max_connections,
        statistics=_STATISTICS,
        soft_memory=defaults.SOFT_MEMORY_LIMIT_OF_WAYPOINTS,
    )
    serialised: bytes = message.SerializeToString(deterministic=True)
    return serialised


def resources(
    proxy: Proxy, bound: Bound, view: MeshView, settings: NodeSettings
) -> tuple[PlannedResource, ...]:
    """All resources of the waypoint's Envoy but certificates (`names.server_secret` of its identity) and trust.
    Whatever else a table names, `depends_on` tells of."""
    secret = names.server_secret(proxy.identity)
    ports = dict(_ports(bound))
    tunnels: set[names.Tunnel] = set()
    made = [
        planned(CLUSTER, names.REFUSED, clusters.refused(names.REFUSED, {})),
        planned(LISTENER, names.CONNECT_ORIGINATE, listeners.own_originate()),
        planned(LISTENER, names.HBONE, waypoint_tunnels.listener(secret=secret, families=_FAMILIES)),
        planned(ROUTES, names.HBONE, waypoint_tunnels.table(_ways(bound, proxy, view))),
    ]
    for backend in sorted(_backends(bound)):
        service = view.service(backend[0])
        if service is None or not _has_port(service, backend[1]):
            continue
        endpoints = list(_endpoints(service, backend[1], proxy, view, settings))
        tunnels |= {each for each in map(_tunnel, endpoints) if each is not None}
        made += _cluster(service, backend[1], endpoints, is_http=backend not in ports or ports[backend])
    for (key, port), is_http in sorted(ports.items()):
        made += _inside(
            key, port, proxy, bound.routes.get(f"{key}:{port}") if is_http else None, is_http=is_http
        )
    for workload in bound.workloads:
        made += _workload(workload, proxy, view, settings)
        if workload.tunnel is TunnelProtocol.HBONE and _http_ports(workload, view):
            tunnels.add(names.Tunnel(workload.identity))
    for tunnel in sorted(tunnels, key=lambda each: (each.identity, each.service)):
        name = names.tunnel(tunnel.identity, tunnel.service)
        allowed = _servers(tunnel, proxy, view, settings)
        made.append(planned(CLUSTER, name, clusters.own_hbone(name, allowed, secret)))
    return tuple(made)


def depends_on(bound: Bound) -> frozenset[str]:
    """Keys of the services, and uids of the workloads, that the waypoint's resources are made of."""
    called = {each.uid for each in bound.workloads}
    called.update(key for each in bound.workloads for key in each.services)
    return frozenset({*called, *(service for service, _ in _backends(bound))})


def is_http(service: Service, port: int, routes: Mapping[str, ServiceRoutes]) -> bool:
    """Whether requests of this port are read: its protocol says so, or somebody wrote a route for it."""
    return service.app_protocols.get(port) in _HTTP or f"{service.key}:{port}" in routes


def _ports(bound: Bound) -> Iterator[tuple[Backend, bool]]:
    """Every port of a bound service, and whether it is HTTP."""
    for service in bound.services:
        for port in {each.service for each in service.ports}:
            yield (service.key, port), is_http(service, port, bound.routes)


def _has_port(service: Service, port: int) -> bool:
    return any(each.service == port for each in service.ports)


def _ways(bound: Bound, proxy: Proxy, view: MeshView) -> dict[str, list[str]]:
    """Authorities by the cluster they lead into. Of two services with one address the waypoint's own has it, else the
    canonical one, which whoever comes later cannot take it from; what is a service's is no workload's."""
    ways: dict[str, list[str]] = {}
    taken: set[str] = set()
    own = proxy.identity.namespace
    for service in sorted(
        bound.services,
        key=lambda each: (not each.is_kubernetes, each.namespace != own, not each.canonical, each.key),
    ):
        for port in sorted({each.service for each in service.ports}):
            hosts = [host_port(each.address, port) for each in service.addresses if each.prefix is None]
            if not service.hostname.startswith("*"):
                hosts.append(f"{service.hostname}:{port}")
            free = [each for each in dict.fromkeys(hosts) if each not in taken]
            taken.update(free)
            if free:
                ways[names.into_service(service.key, port)] = free
    for workload in bound.workloads:
        for port in (*_http_ports(workload, view), waypoint_services.ANY_PORT):
            hosts = [
                host_port(each, port) if port else f"{host_port(each, 0)[:-1]}*"
                for each in workload.addresses
            ]
            free = [each for each in hosts if each not in taken]
            taken.update(free)
            if free:
                ways[names.into_service(workload.uid, port)] = free
    return ways


def _http_ports(workload: Workload, view: MeshView) -> dict[int, bool]:
    """Ports of a workload that a service says to speak HTTP, and whether it is HTTP/2 only."""
    found: dict[int, bool] = {}
    for key, ports in workload.services.items():
        service = view.service(key)
        for port in ports if service is not None else ():
            protocol = service.app_protocols.get(port.service) if service is not None else None
            if protocol in _HTTP and port.target:
                found[port.target] = protocol in _HTTP2
    return dict(sorted(found.items()))


def _workload(
    workload: Workload, proxy: Proxy, view: MeshView, settings: NodeSettings
) -> Iterator[PlannedResource]:
    """Requests to ports that speak HTTP, bytes to all others."""
    uid, tunnelled = workload.uid, workload.tunnel is TunnelProtocol.HBONE
    for port, is_http2 in _http_ports(workload, view).items():
        name = names.service_cluster(uid, port)
        yield from _inside(uid, port, proxy, None, is_http=True)
        message = waypoint_services.cluster(uid, port, is_http=True, is_http2=is_http2)
        yield planned(CLUSTER, name, message)
        address = preferred_address(workload.addresses, _FAMILIES[0])
        assert address is not None, "a workload that is called by its address has one"
        choice = Choice(workload, address, port)
        endpoint = _through_tunnel(choice, "") if tunnelled else PlainEndpoint(port, address)
        yield planned(ENDPOINTS, name, waypoint_services.endpoints_of(uid, port, [endpoint]))
    name = names.service_cluster(uid, waypoint_services.ANY_PORT)
    into = names.into_service(uid, waypoint_services.ANY_PORT)
    yield planned(CLUSTER, into, waypoint_services.into(uid, waypoint_services.ANY_PORT))
    yield planned(LISTENER, name, waypoint_services.workload_listener(uid, tunnelled=tunnelled))
    if not tunnelled:
        yield planned(CLUSTER, name, clusters.dialled(name))
        return
    allowed = pins.of_tunnel(workload.identity, "", view, settings)
    secret = names.server_secret(proxy.identity)
    yield planned(CLUSTER, name, clusters.own_hbone(name, allowed, secret, to_port=HBONE_PORT))


def _backends(bound: Bound) -> set[Backend]:
    """Everything that requests or bytes can go to."""
    found = {backend for backend, _ in _ports(bound)}
    bound_keys = {service.key for service in bound.services}
    for routes in bound.routes.values():
        if routes.service in bound_keys:
            for action in _actions(routes.hosts):
                found |= {(each.service, each.port) for each in action.backends}
                found |= {(each.service, each.port) for each in action.mirrors}
    return {(service, port) for service, port in found if service}


def _actions(hosts: Iterable[Host]) -> Iterator[Action]:
    return (entry.action for host in hosts for entry in host.entries)


def _inside(
    key: str, port: int, proxy: Proxy, routes: ServiceRoutes | None, *, is_http: bool
) -> Iterator[PlannedResource]:
    name = names.service_cluster(key, port)
    into = names.into_service(key, port)
    yield planned(CLUSTER, into, waypoint_services.into(key, port))
    if not is_http:
        yield planned(LISTENER, name, waypoint_services.tcp_listener(key, port))
        return
    host = key.rpartition("/")[2]
    yield planned(LISTENER, name, waypoint_services.http_listener(key, port, default_host=host))
    hosts = routes.hosts if routes is not None and routes.hosts else http_routes.to_service(key, port)
    yield planned(ROUTES, name, http_routes.table(name, hosts, port=port, by=proxy.identity.uri))


def _cluster(
    service: Service, port: int, endpoints: Sequence[Endpoint], *, is_http: bool
) -> Iterator[PlannedResource]:
    name = names.service_cluster(service.key, port)
    is_http2 = service.app_protocols.get(port) in _HTTP2
    if any(isinstance(each, PlainEndpoint) and each.hostname for each in endpoints):
        message = waypoint_services.cluster_by_names(
            service.key, port, endpoints, is_http=is_http, is_http2=is_http2
        )
        yield planned(CLUSTER, name, message)
        return
    cluster = waypoint_services.cluster(service.key, port, is_http=is_http, is_http2=is_http2)
    yield planned(CLUSTER, name, cluster)
    yield planned(ENDPOINTS, name, waypoint_services.endpoints_of(service.key, port, endpoints))


def _endpoints(
    service: Service, port: int, proxy: Proxy, view: MeshView, settings: NodeSettings
) -> Iterator[Endpoint]:
    """In whatever place: requests of all callers come here, so nearness to this proxy means nothing. What another
    namespace puts behind its service is called only as far as it is that namespace's own."""
    health = (service.load_balancing or LoadBalancing()).health_policy
    anywhere = msgspec.structs.replace(service, load_balancing=LoadBalancing(health_policy=health))
    for choice in all_choices(anywhere, port, _FAMILIES[0], view, settings):
        if isinstance(choice, RemoteChoice):
            continue
        if isinstance(choice, NamedChoice):
            yield PlainEndpoint(
                choice.port, hostname=choice.workload.hostname, weight=choice.workload.capacity
            )
        elif choice.workload.tunnel is TunnelProtocol.HBONE:
            if _may_name(service, choice.workload.identity.namespace, proxy):
                yield _through_tunnel(choice, service.key if service.subject_alt_names else "")
        else:
            yield PlainEndpoint(choice.port, choice.address, weight=choice.workload.capacity)


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


def _through_tunnel(choice: Choice, pinned: str) -> clusters.Endpoint:
    """`pinned` is the service whose other names count, too."""
    return clusters.Endpoint(
        listener=names.CONNECT_ORIGINATE,
        hop=(choice.address, HBONE_PORT),
        cluster=names.tunnel(choice.workload.identity, pinned),
        authority=host_port(choice.address, choice.port),
        weight=choice.workload.capacity,
    )


def _tunnel(endpoint: Endpoint) -> names.Tunnel | None:
    """The tunnel that an endpoint needs a cluster for."""
    if not isinstance(endpoint, clusters.Endpoint):
        return None
    parsed = names.parse_cluster(endpoint.cluster)
    return parsed if isinstance(parsed, names.Tunnel) else None
