"""Everything that the Envoy of one waypoint gets: pure, from the mesh as the control plane knows it.

For each port of a bound service: the authorities of tunnels to it (virtual addresses and host name), the listener
inside of those tunnels, its table when it speaks HTTP, and the cluster of its endpoints. Backends of tables that are
no bound services have the cluster only. Endpoints are reached as node proxies reach them: through a tunnel whose
server is pinned to the workload's identity, or plainly where there is no tunnel. What is not bound is not there.
A bound workload has the same by its own addresses: a listener for each port that a service of it says to speak HTTP,
and one for bytes to all others.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import ip_network

import msgspec

from ambit.core import hostnames
from ambit.core.address import host_port
from ambit.core.memo import Memo
from ambit.core.names import HBONE_PORT
from ambit.envoy import bootstrap as envoy_bootstrap
from ambit.envoy import clusters, defaults, names, network_rbac, streams, waypoint_services
from ambit.envoy.http import jwt as http_jwt
from ambit.envoy.http import routes as http_routes
from ambit.envoy.http.authorization import Place
from ambit.envoy.http.serialised_table import serialised_table
from ambit.envoy.http.telling import Told
from ambit.envoy.l7 import datagrams, waypoint_tunnels
from ambit.envoy.l7.waypoint_tunnels import Way
from ambit.envoy.node import listeners
from ambit.envoy.waypoint_services import Speaks
from ambit.envoy.words import AnyMessage
from ambit.model.http import SessionPersistence
from ambit.model.jwt import KeySource, TokenPolicy
from ambit.model.proxy import Proxy, ServiceRoutes
from ambit.model.request_policy import RequestPolicy
from ambit.model.service import HTTP, Service
from ambit.model.telemetry import TelemetryPolicy
from ambit.model.view import MeshView
from ambit.model.workload import TunnelProtocol, Workload
from ambit.plan import backends, pins, request_authorization, targets
from ambit.plan.announcement import endpoint_tags, endpoint_tags_for_spans
from ambit.plan.backends import Backend, Tagged, plainly, through_tunnel
from ambit.plan.endpoints import Choice, preferred_address
from ambit.plan.l7 import server_names
from ambit.plan.telemetry import metrics
from ambit.plan.telemetry.telling import collectors, told_of, tracers
from ambit.plan.values import (
    CLUSTER,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTES,
    NodeSettings,
    PlannedResource,
    planned,
)

_STATISTICS = ("http.hbone.", f"http.{waypoint_services.REQUESTS}.", f"udp.{datagrams.STATISTICS}.")


_Judge = tuple[Sequence[RequestPolicy], Place]


class Bound(msgspec.Struct, frozen=True):
    """What is bound to a waypoint, and the tables of ports (by `ServiceRoutes.key`) for services that have any."""

    services: tuple[Service, ...] = ()
    routes: Mapping[str, ServiceRoutes] = {}
    workloads: tuple[Workload, ...] = ()
    """Bound by their own addresses."""
    tokens: tuple[TokenPolicy, ...] = ()
    """Of those, and of the waypoint as a whole; others do not matter."""
    authorization: tuple[RequestPolicy, ...] = ()
    """As `tokens`."""
    keys: Mapping[KeySource, str] = {}
    """The JWKS that were fetched."""
    telemetry: tuple[TelemetryPolicy, ...] = ()
    """What is to be told of requests anywhere."""


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
        shortens_timeouts=True,
    )
    serialised: bytes = message.SerializeToString(deterministic=True)
    return serialised


def resources(
    proxy: Proxy, bound: Bound, view: MeshView, settings: NodeSettings, memo: Memo | None = None
) -> tuple[PlannedResource, ...]:
    """All resources of the waypoint's Envoy but certificates (`names.server_secret` of its identity) and trust.
    Whatever else a table names, `depends_on` tells of. With `memo` from the last time only what changed is made."""
    memo = memo or Memo()
    memo.turn()
    secret = names.server_secret(proxy.identity)
    kinds = tuple((key, bool(each.streams)) for key, each in bound.routes.items())
    ports = memo.of("ports", (bound.services, kinds), lambda: dict(sorted(_ports(bound))))
    services = _by_key(bound, memo)
    # All that is said beside services, routes and workloads; the very same as long as it is equal.
    others = msgspec.structs.replace(bound, services=(), routes={}, workloads=())
    policies = memo.of("policies", (others,), lambda: others)
    ways = memo.of(
        "ways", (proxy, bound.services, _seen(bound.workloads, view)), partial(_ways, bound, proxy, view)
    )
    made = [
        planned(CLUSTER, names.REFUSED, clusters.refused(names.REFUSED, {})),
        planned(CLUSTER, names.INTO, waypoint_services.into()),
        memo.of("into", (tuple(ways),), partial(_into, ways)),
        planned(LISTENER, names.CONNECT_ORIGINATE, listeners.own_originate()),
        planned(LISTENER, names.HBONE, waypoint_tunnels.listener(secret=secret, families=backends.FAMILIES)),
        memo.of(
            "table of ways",
            (ways, proxy, policies, bound.services, bound.workloads, ports),
            lambda: planned(ROUTES, names.HBONE, waypoint_tunnels.table(ways, _judged(bound, proxy, ports))),
        ),
    ]
    for (key, port), is_http in ports.items():
        service, routes = services[key], bound.routes.get(f"{key}:{port}")
        made += memo.of(
            ("inside", key, port),
            (service, proxy, routes, is_http, policies),
            partial(_made_inside, service, port, proxy, bound, settings, memo, is_http=is_http),
        )
    read = {key for (key, _), is_http in ports.items() if is_http}
    for key, service in services.items():
        if key in read:
            given = (service, proxy, policies)
            made += memo.of(("policies", key), given, partial(_made_policies, service, proxy, bound))
    tagged = endpoint_tags_for_spans if tracers(bound.telemetry, proxy) else endpoint_tags
    tunnels: set[names.Tunnel] = set()
    for workload in bound.workloads:
        made += _workload(workload, proxy, bound, view, settings, tagged)
        if http_ports(workload, view):
            made += _policies(workload, proxy, bound)
            if workload.tunnel is TunnelProtocol.HBONE:
                tunnels.add(names.Tunnel(workload.identity))
    wanted = {
        each: _speaks(view.service(each[0]), each[1], is_http=each not in ports or ports[each])
        for each in _all_backends(bound, memo)
    }
    made += metrics.resources(bound.telemetry, proxy, bound.services)
    made += server_names.note(bound.services)
    called = [
        *collectors(bound.telemetry, proxy),
        *request_authorization.showing(bound.authorization).providers,
        *_asked_by_routes(bound, memo),
    ]
    made += backends.resources(wanted, proxy, view, settings, memo, tunnels, called, tagged)
    return tuple(made)


def depends_on(proxy: Proxy, bound: Bound, memo: Memo | None = None) -> frozenset[str]:
    """Keys of the services, and uids of the workloads, that the waypoint's resources are made of."""
    called = {each.uid for each in bound.workloads}
    called.update(key for each in bound.workloads for key in each.services)
    told = collectors(bound.telemetry, proxy)
    called.update(each.service for each in told)
    called.update(each.asked.service for each in bound.authorization if each.asked is not None)
    memo = memo or Memo()
    called.update(service for service, _ in _all_backends(bound, memo))
    called.update(each.service for each in _asked_by_routes(bound, memo))
    return frozenset(called.union(_by_key(bound, memo)))


def refused_policy(name: str) -> PlannedResource:
    """Takes the place of the extension `name` that Envoy refused: it denies every request. What only tells of
    connections tells nothing."""
    if name.startswith(names.ASKS):
        return planned(EXTENSION, name, request_authorization.refused_place(name))
    if name.startswith(names.JUDGED):
        return planned(EXTENSION, name, network_rbac.extension(name, network_rbac.DECIDED))
    if name.startswith(names.ALLOWED):
        return planned(EXTENSION, name, request_authorization.refused(name))
    return planned(EXTENSION, name, http_jwt.closed(name))


def is_http(service: Service, port: int, routes: Mapping[str, ServiceRoutes]) -> bool:
    """Whether requests of this port are read: its protocol says so, or somebody wrote a route of requests for it."""
    given = routes.get(f"{service.key}:{port}")
    return not given.streams if given is not None else service.app_protocols.get(port) in HTTP


def _ports(bound: Bound) -> Iterator[tuple[Backend, bool]]:
    """Every port of a bound service, and whether it is HTTP."""
    for service in bound.services:
        for port in {each.service for each in service.ports}:
            yield (service.key, port), is_http(service, port, bound.routes)


def _ways(bound: Bound, proxy: Proxy, view: MeshView) -> dict[Way, list[str]]:
    """Authorities by what they lead into. Of two services with one address the waypoint's own has it, else the
    canonical one, which whoever comes later cannot take it from; what is a service's is no workload's."""
    ways: dict[Way, list[str]] = {}
    taken: set[str] = set()
    own = proxy.identity.namespace
    for service in sorted(
        bound.services,
        key=lambda each: (not each.is_kubernetes, each.namespace != own, not each.canonical, each.key),
    ):
        for port in sorted({each.service for each in service.ports}):
            hosts = [host_port(each, port) for each in service.single_addresses]
            if hostnames.is_name(service.hostname):
                hosts.append(f"{service.hostname}:{port}")
            free = [each for each in dict.fromkeys(hosts) if each not in taken]
            taken.update(free)
            if free:
                ways[service.key, port] = free
    for workload in bound.workloads:
        for port in (*http_ports(workload, view), waypoint_services.ANY_PORT):
            hosts = [
                host_port(each, port) if port else f"{host_port(each, 0)[:-1]}*"
                for each in workload.addresses
            ]
            free = [each for each in hosts if each not in taken]
            taken.update(free)
            if free:
                ways[workload.uid, port] = free
    return ways


def _into(ways: Iterable[Way]) -> PlannedResource:
    listeners = (names.service_cluster(key, port) for key, port in ways)
    return planned(ENDPOINTS, names.INTO, waypoint_services.ways(listeners))


def http_ports(workload: Workload, view: MeshView) -> dict[int, bool]:
    """Ports of a workload whose requests are read, because a service says that they speak HTTP; whether HTTP/2 only."""
    found: dict[int, bool] = {}
    for key, ports in workload.services.items():
        service = view.service(key)
        for port in ports if service is not None else ():
            protocol = service.app_protocols.get(port.service) if service is not None else None
            if protocol in HTTP and port.target:
                found[port.target] = protocol in backends.HTTP2
    return dict(sorted(found.items()))


def _workload(
    workload: Workload, proxy: Proxy, bound: Bound, view: MeshView, settings: NodeSettings, tagged: Tagged
) -> Iterator[PlannedResource]:
    """Requests to ports that speak HTTP, bytes to all others."""
    uid, tunnelled = workload.uid, workload.tunnel is TunnelProtocol.HBONE
    for port, is_http2 in http_ports(workload, view).items():
        name = names.service_cluster(uid, port)
        judge = _judge(workload, port, proxy, bound, is_http=True)
        yield from _inside(uid, port, proxy, None, judge, told_of(bound.telemetry, proxy, settings, workload))
        message = waypoint_services.cluster(name, Speaks.HTTP2 if is_http2 else Speaks.AS_CLIENT)
        yield planned(CLUSTER, name, message)
        address = preferred_address(workload.addresses, backends.FAMILIES[0])
        assert address is not None, "a workload that is called by its address has one"
        choice = Choice(workload, address, port)
        endpoint = through_tunnel(choice, "", tagged) if tunnelled else plainly(choice, tagged)
        yield planned(ENDPOINTS, name, waypoint_services.endpoints_of(name, [endpoint]))
    name = names.service_cluster(uid, waypoint_services.ANY_PORT)
    yield planned(LISTENER, name, waypoint_services.workload_listener(uid, tunnelled=tunnelled))
    made = clusters.dialled(name)
    if tunnelled:
        allowed = pins.of_tunnel(workload.identity, "", view, settings)
        secret = names.server_secret(proxy.identity)
        made = clusters.own_hbone(name, allowed, secret, to_port=HBONE_PORT)
    identity = workload.identity.uri if tunnelled else ""
    yield planned(CLUSTER, name, waypoint_services.to_one(made, pod=workload.name, identity=identity))


def _seen(workloads: Sequence[Workload], view: MeshView) -> tuple[object, ...]:
    """These, and all that is asked of `view` about them."""
    return tuple((each, tuple(map(view.service, each.services))) for each in workloads)


def _by_key(bound: Bound, memo: Memo) -> Mapping[str, Service]:
    return memo.of("services", (bound.services,), lambda: {each.key: each for each in bound.services})


def _all_backends(bound: Bound, memo: Memo) -> set[Backend]:
    given = (bound.services, tuple(bound.routes.values()))
    return memo.of("backends", given, partial(_backends, bound, memo))


def _backends(bound: Bound, memo: Memo) -> set[Backend]:
    """Everything that requests or bytes can go to."""
    services = _by_key(bound, memo)
    found = {(key, port.service) for key, service in services.items() for port in service.ports}
    for routes in bound.routes.values():
        if routes.service in services:
            found |= memo.of(("backends", routes.key), (routes,), partial(_of_routes, routes))
    return found


def _asked_by_routes(bound: Bound, memo: Memo) -> set[backends.Provider]:
    services, found = _by_key(bound, memo), set[backends.Provider]()
    for routes in bound.routes.values():
        if routes.service in services:
            found |= memo.of(("asked", routes.key), (routes,), partial(backends.asked_by, routes.hosts))
    return found


def _of_routes(routes: ServiceRoutes) -> set[Backend]:
    return backends.of_hosts(routes.hosts) | backends.of_streams(routes.streams)


def _speaks(service: Service | None, port: int, *, is_http: bool) -> Speaks:
    """Requests go on in the version of HTTP that the client speaks, unless the port is said to speak HTTP/2 only."""
    if not is_http:
        return Speaks.BYTES
    is_http2 = service is not None and service.app_protocols.get(port) in backends.HTTP2
    return Speaks.HTTP2 if is_http2 else Speaks.AS_CLIENT


def _inside(
    key: str,
    port: int,
    proxy: Proxy,
    routes: ServiceRoutes | None,
    judge: _Judge,
    told: Told,
    memo: Memo | None = None,
    session: SessionPersistence | None = None,
    *,
    pattern: str = "",
    target: int = 0,
) -> Iterator[PlannedResource]:
    """With a `pattern` bytes go to hosts of it, by the names in clients' hellos, at their port `target`."""
    name = names.service_cluster(key, port)
    policies, place = judge
    if not place.is_http and routes is not None:
        yield planned(LISTENER, name, waypoint_services.streams_listener(key, port, routes.streams))
        for extension in streams.extensions(name, routes.streams):
            yield planned(EXTENSION, extension.name, extension)
        return
    if not place.is_http and pattern:
        yield from server_names.inside(key, port, pattern=pattern, target=target or port)
        return
    if not place.is_http:
        yield planned(LISTENER, name, waypoint_services.tcp_listener(key, port))
        return
    allowed = names.allowed(key, port)
    yield planned(EXTENSION, allowed, request_authorization.extension(allowed, policies, place))
    showing = request_authorization.showing(policies)
    for extension in request_authorization.places(key, port, showing, [judge]):
        yield planned(EXTENSION, extension.name, extension)
    host, by = key.rpartition("/")[2], proxy.identity.uri
    listener = waypoint_services.http_listener(
        key, port, default_host=host, by=by, told=told, places=showing.places
    )
    yield planned(LISTENER, name, listener)
    given = routes.hosts if routes is not None else ()
    hosts = given or http_routes.to_service(key, port, session)
    table = serialised_table(name, hosts, memo or Memo(), port=port, more=http_routes.TableOptions(by))
    yield planned(ROUTES, name, table)


def _judged(bound: Bound, proxy: Proxy, ports: Mapping[Backend, bool]) -> Callable[[AnyMessage], None]:
    """Adds to a way into what is not read as requests who may take it."""
    subjects: list[tuple[Service | Workload, str, int]] = [
        (each, each.key, port) for each in bound.services for port in {port.service for port in each.ports}
    ]
    subjects += [(each, each.uid, waypoint_services.ANY_PORT) for each in bound.workloads]
    judges = {
        names.into_service(key, port): judge
        for subject, key, port in subjects
        if not ports.get((key, port)) and (judge := _judge(subject, port, proxy, bound, is_http=False))[0]
    }

    def judged(host: AnyMessage) -> None:
        judge = judges.get(host.name)
        if judge is not None:
            request_authorization.of_bytes(host, *judge)

    return judged


def _judge(subject: Service | Workload, port: int, proxy: Proxy, bound: Bound, *, is_http: bool) -> _Judge:
    """The policies for a port of a service, or of a workload by its own address."""
    found = [each for each in bound.authorization if targets.concern(each.targets, proxy, subject)]
    if isinstance(subject, Service):
        virtual = [(each.address, each.prefix) for each in subject.addresses]
    else:
        virtual = [(each, None) for each in subject.addresses]
    networks = (
        ip_network((address, address.max_prefixlen if prefix is None else prefix), strict=False)
        for address, prefix in virtual
    )
    return found, Place(port, tuple(networks), is_http)


def _policies(subject: Service | Workload, proxy: Proxy, bound: Bound) -> Iterator[PlannedResource]:
    """What requests to a service, or to a workload by its own address, have to meet."""
    key = subject.key if isinstance(subject, Service) else subject.uid
    tokens = [each for each in bound.tokens if targets.concern(each.targets, proxy, subject)]
    yield planned(EXTENSION, names.tokens(key), http_jwt.tokens(key, tokens, bound.keys))


def _made_inside(
    service: Service,
    port: int,
    proxy: Proxy,
    bound: Bound,
    settings: NodeSettings,
    memo: Memo,
    *,
    is_http: bool,
) -> tuple[PlannedResource, ...]:
    judge = _judge(service, port, proxy, bound, is_http=is_http)
    routes = bound.routes.get(f"{service.key}:{port}")
    told = told_of(bound.telemetry, proxy, settings, service)
    pattern = service.hostname if service.server_names is not None else ""
    target = next((each.target for each in service.ports if each.service == port), 0)
    return tuple(
        _inside(
            service.key,
            port,
            proxy,
            routes,
            judge,
            told,
            memo,
            service.session,
            pattern=pattern,
            target=target,
        )
    )


def _made_policies(service: Service, proxy: Proxy, bound: Bound) -> tuple[PlannedResource, ...]:
    return tuple(_policies(service, proxy, bound))
