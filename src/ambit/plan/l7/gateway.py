"""Everything that the Envoy of one gateway at the edge gets: pure, from the mesh as the control plane knows it.

For each port a listener and its tables, and what requests can go to. A request is answered by the most specific
listener of its port alone (GEP-1713 "listener isolation"). Services are called directly, not by way of their
waypoints.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from ambit.core import hostnames
from ambit.core.memo import Memo
from ambit.envoy import clusters, names, network_rbac, refusals, streams, tls
from ambit.envoy.http import jwt as http_jwt
from ambit.envoy.http.authorization import Place
from ambit.envoy.http.routes import TableOptions
from ambit.envoy.http.serialised_table import serialised_table
from ambit.envoy.l7 import gateway_listeners
from ambit.envoy.l7.admission import Admission
from ambit.envoy.node import listeners
from ambit.envoy.waypoint_services import Speaks
from ambit.model.http import Action, Entry, Host, RequestMatch
from ambit.model.jwt import KeySource, TokenPolicy
from ambit.model.proxy import KeyPair, Listener, ListenerRoutes, Protocol, Proxy
from ambit.model.request_policy import RequestPolicy
from ambit.model.streams import Datagrams, Stream
from ambit.model.telemetry import TelemetryPolicy
from ambit.model.view import MeshView
from ambit.plan import backends, request_authorization, targets
from ambit.plan.announcement import endpoint_tags, endpoint_tags_for_spans
from ambit.plan.backends import Backend
from ambit.plan.l7 import datagrams
from ambit.plan.l7.circles import circles
from ambit.plan.telemetry import metrics
from ambit.plan.telemetry.telling import collectors, told_of, tracers
from ambit.plan.values import (
    CLUSTER,
    EXTENSION,
    LISTENER,
    ROUTES,
    SECRET,
    NodeSettings,
    PlannedResource,
    planned,
)

_GRPC_ROUTE = "GRPCRoute"
_MISDIRECTED = 421
_WITHHELD = (refusals.HEADER,)
"""What a waypoint behind the gateway says of itself is for callers in the mesh."""
_Insides = Mapping[str, Sequence[str]]
"""Host names of a port's listeners, by the patterns of other listeners that cover them."""
_IN_PLAIN_TEXT = (Protocol.HTTP, Protocol.TCP)


class Attached(msgspec.Struct, frozen=True):
    """What is attached to a gateway: the routes of listeners, by their names."""

    routes: Mapping[str, ListenerRoutes] = {}
    tokens: tuple[TokenPolicy, ...] = ()
    """Those for others do not matter."""
    keys: Mapping[KeySource, str] = {}
    """The JWKS that were fetched."""
    certificates: tuple[KeyPair, ...] = ()
    telemetry: tuple[TelemetryPolicy, ...] = ()
    """What is to be printed anywhere."""
    datagrams: Mapping[str, Datagrams] = {}
    """UDP ports of services, by their keys."""
    authorization: tuple[RequestPolicy, ...] = ()
    """As `tokens`."""


def resources(
    proxy: Proxy, attached: Attached, view: MeshView, settings: NodeSettings, memo: Memo | None = None
) -> tuple[PlannedResource, ...]:
    """All resources of the gateway's Envoy but its certificate (`names.server_secret` of its identity) and trust.
    Whatever else a table names, `depends_on` tells of. With `memo` from the last time only what changed is made."""
    memo = memo or Memo()
    memo.turn()
    tokens = [each for each in attached.tokens if targets.concern(each.targets, proxy)]
    made = [
        planned(CLUSTER, names.REFUSED, clusters.refused(names.REFUSED, {})),
        planned(LISTENER, names.CONNECT_ORIGINATE, listeners.own_originate()),
        planned(EXTENSION, names.tokens(proxy.key), http_jwt.tokens(proxy.key, tokens, attached.keys)),
    ]
    policies = [each for each in attached.authorization if targets.concern(each.targets, proxy)]
    showing = request_authorization.showing(policies)
    told = told_of(attached.telemetry, proxy, settings)
    edge = gateway_listeners.Edge(proxy.key, backends.FAMILIES, told, proxy.trusted_proxies, showing.places)
    wanted = _speaks(proxy, attached, view)
    asked = _asked_by_routes(attached)
    back = circles(
        proxy,
        attached.routes,
        attached.datagrams,
        wanted.keys() | {(each.service, each.port) for each in asked},
        {(each.service, each.port) for each in showing.providers},
        view,
    )
    by_port: dict[int, list[Listener]] = defaultdict(list)
    for each in proxy.listeners:
        if each.protocol is Protocol.UDP:
            given = attached.routes.get(each.name)
            admission = _admission(policies, each.port)
            made += datagrams.resources(each, given, attached.datagrams, admission, back)
        else:
            by_port[each.port].append(each)
    for port, on_port in sorted(by_port.items()):
        by_tls = on_port[0].protocol not in _IN_PLAIN_TEXT
        if any(each.protocol.is_of_requests for each in on_port):
            name = names.allowed(proxy.key, port)
            place = Place(port, is_edge=True, by_tls=by_tls)
            made.append(planned(EXTENSION, name, request_authorization.extension(name, policies, place)))
            for extension in request_authorization.places(proxy.key, port, showing, [(policies, place)]):
                made.append(planned(EXTENSION, extension.name, extension))
        if any(not each.protocol.is_of_requests for each in on_port):
            admission = _admission(policies, port, by_tls=by_tls)
            parts = ((network_rbac.DECIDED, admission.rows), (network_rbac.TRIED, admission.dry_run))
            for name, (prefix, rows) in zip(names.judged(proxy.key, port), parts, strict=True):
                made.append(planned(EXTENSION, name, network_rbac.extension(name, prefix, rows)))
        if on_port[0].protocol is Protocol.HTTP:
            made += _http(port, on_port, attached, edge, memo)
        elif by_tls:
            admission = _admission(policies, port, by_tls=True)
            made += _secured(port, on_port, attached, edge, admission, memo)
        else:
            made += _tcp(port, on_port[0], attached, edge, _admission(policies, port))
    for pair in attached.certificates:
        name = names.shown_certificate(pair.name)
        made.append(planned(SECRET, name, tls.certificate(name, chain_pem=pair.chain, key_pem=pair.key)))
    made += metrics.resources(attached.telemetry, proxy)
    called = [*collectors(attached.telemetry, proxy), *showing.providers, *asked]
    tagged = endpoint_tags_for_spans if tracers(attached.telemetry, proxy) else endpoint_tags
    made += backends.resources(
        wanted, proxy, view, settings, memo, providers=called, tagged=tagged, back=back.has
    )
    return tuple(made)


def depends_on(proxy: Proxy, attached: Attached, view: MeshView) -> frozenset[str]:
    """Keys of the services that the gateway's resources are made of."""
    called = {
        key
        for each in attached.routes.values()
        for key, _ in backends.of_hosts(each.hosts) | backends.of_streams(each.streams)
    }
    called.update(each.asked.service for each in attached.authorization if each.asked is not None)
    called.update(each.service for each in _asked_by_routes(attached))
    services = [found for each in called if (found := view.service(each)) is not None]
    waypoints = {part.gateway for each in services for part in backends.waypoints_of(each, proxy)}
    told = (each.service for each in collectors(attached.telemetry, proxy))
    own = f"{proxy.identity.namespace}/{proxy.service}"
    return frozenset({own, *called, *(f"{each.namespace}/{each.hostname}" for each in waypoints), *told})


def _asked_by_routes(attached: Attached) -> set[backends.Provider]:
    return backends.asked_by(host for each in attached.routes.values() for host in each.hosts)


def isolated(own: Sequence[Listener], attached: Attached) -> tuple[Host, ...]:
    """The hosts of all listeners of a port: of each what no more specific one has."""
    return of_listeners(own, own, attached)


def of_listeners(
    own: Sequence[Listener], on_port: Sequence[Listener], attached: Attached
) -> tuple[Host, ...]:
    """As `isolated`, of some listeners of a port."""
    inside = _insides(on_port)
    return tuple(host for listener in own for host in _own(listener, inside, attached))


def _own(listener: Listener, inside: _Insides, attached: Attached) -> Iterator[Host]:
    """The hosts of a listener that no more specific one of its port has."""
    others = set(_within(listener, inside))
    routes = attached.routes.get(listener.name)
    for host in routes.hosts if routes is not None else (Host((listener.hostname or hostnames.ANY,)),):
        if others.isdisjoint(hostnames.covering(host.domains[0])):
            yield host


def _insides(on_port: Sequence[Listener]) -> _Insides:
    """Of the listeners of a port. Not each is compared with each other: there can be thousands."""
    own = dict.fromkeys(each.hostname or hostnames.ANY for each in on_port)
    found = defaultdict(list)
    for name in own:
        for pattern in hostnames.covering(name):
            if pattern != name and pattern in own:
                found[pattern].append(name)
    return found


def _within(listener: Listener, inside: _Insides) -> Sequence[str]:
    """The host names of more specific listeners."""
    return inside.get(listener.hostname or hostnames.ANY, ())


def _admission(policies: Sequence[RequestPolicy], port: int, *, by_tls: bool = False) -> Admission:
    """Who may connect where nobody reads requests."""
    place = Place(port, is_http=False, is_edge=True, by_tls=by_tls)
    return request_authorization.of_connections(policies, place)


def _http(
    port: int, own: Sequence[Listener], attached: Attached, edge: gateway_listeners.Edge, memo: Memo
) -> Iterator[PlannedResource]:
    name = names.gateway_port(port)
    yield planned(LISTENER, name, gateway_listeners.http(port, edge=edge))
    table = serialised_table(
        name, isolated(own, attached), memo, port=port, more=TableOptions(withheld=_WITHHELD)
    )
    yield planned(ROUTES, name, table)


def _tcp(
    port: int,
    listener: Listener,
    attached: Attached,
    edge: gateway_listeners.Edge,
    admission: Admission,
) -> Iterator[PlannedResource]:
    given = _streams(listener, (), attached)
    name = names.gateway_port(port)
    yield planned(LISTENER, name, gateway_listeners.tcp(port, given, edge=edge, admission=admission))
    yield from _extensions(name, given)


def _secured(
    port: int,
    own: Sequence[Listener],
    attached: Attached,
    edge: gateway_listeners.Edge,
    admission: Admission,
    memo: Memo,
) -> Iterator[PlannedResource]:
    found = []
    inside = _insides(own)
    for each in own:
        name = names.gateway_listener(port, each.name)
        secrets = tuple(map(names.shown_certificate, each.certificates))
        if each.protocol is Protocol.HTTPS:
            found.append(_of_requests(name, secrets, each))
            if each.clients is not None:
                roots = names.client_roots(name)
                yield planned(
                    SECRET, roots, tls.client_roots(roots, each.clients.roots, must=each.clients.must_verify)
                )
            hosts = (*_own(each, inside, attached), *_misdirected(each, inside))
            quic = port if each.terms.http3 else 0
            more = TableOptions(quic_port=quic, withheld=_WITHHELD)
            table = serialised_table(name, hosts, memo, port=port, scheme="https", more=more)
            yield planned(ROUTES, name, table)
        else:
            given = _streams(each, _within(each, inside), attached)
            found.append(gateway_listeners.Secured(name, secrets, terms=each.terms, streams=given))
            yield from _extensions(name, given)
    message = gateway_listeners.secured(port, found, edge=edge, admission=admission)
    yield planned(LISTENER, names.gateway_port(port), message)
    by_quic = [each for each in found if each.terms.http3]
    if by_quic:
        name = names.gateway_quic_port(port)
        yield planned(LISTENER, name, gateway_listeners.quic(port, by_quic, edge=edge))


def _of_requests(name: str, secrets: tuple[str, ...], listener: Listener) -> gateway_listeners.Secured:
    made = gateway_listeners.Secured(name, secrets, listener.hostname, terms=listener.terms)
    clients = listener.clients
    if clients is None:
        return made
    return msgspec.structs.replace(
        made, client_roots=names.client_roots(name), must_verify=clients.must_verify
    )


def _extensions(listener: str, given: Iterable[Stream]) -> Iterator[PlannedResource]:
    for extension in streams.extensions(listener, given):
        yield planned(EXTENSION, extension.name, extension)


def _streams(listener: Listener, others: Sequence[str], attached: Attached) -> tuple[Stream, ...]:
    """Those of a listener, for the names that no more specific one of its port (`others`) has."""
    routes = attached.routes.get(listener.name)
    found = []
    theirs = set(others)
    for stream in routes.streams if routes is not None else ():
        left = tuple(name for name in stream.hostnames if theirs.isdisjoint(hostnames.covering(name)))
        if left or not stream.hostnames:
            found.append(msgspec.structs.replace(stream, hostnames=left))
    return tuple(found)


def _misdirected(listener: Listener, inside: _Insides) -> Iterator[Host]:
    """Requests that came by the name of one listener and are for another's: clients may use one connection for several
    names (RFC 9110 section 15.5.20), past what the other asks for."""
    mine = listener.hostname or hostnames.ANY
    answer = (Entry("-/-/misdirected", RequestMatch(), Action(status=_MISDIRECTED)),)
    for other in _within(listener, inside):
        yield Host((other,), answer)
    if mine != hostnames.ANY:
        yield Host((hostnames.ANY,), answer)


def _speaks(proxy: Proxy, attached: Attached, view: MeshView) -> dict[Backend, Speaks]:
    """What clients speak says nothing about backends: what is not said to speak HTTP/2 only, and is no backend of
    gRPC, is spoken to in HTTP/1.1."""
    hosts = [host for each in attached.routes.values() for host in each.hosts]
    calls = backends.of_hosts(_only(hosts, is_grpc=True))
    requests = backends.of_hosts(_only(hosts, is_grpc=False))
    found = {}
    for backend in calls | requests:
        service = view.service(backend[0])
        if service is not None and service.app_protocols.get(backend[1]) in backends.HTTP2:
            found[backend] = Speaks.HTTP2
        elif backend not in calls:
            found[backend] = Speaks.HTTP1
        else:
            found[backend] = Speaks.AS_CLIENT if backend in requests else Speaks.HTTP2
    udp = {each.name for each in proxy.listeners if each.protocol is Protocol.UDP}
    for each in attached.routes.values():
        for backend in backends.of_streams(each.streams) if each.listener not in udp else ():
            found.setdefault(backend, Speaks.BYTES)
    return found


def _only(hosts: Iterable[Host], *, is_grpc: bool) -> Iterator[Host]:
    for host in hosts:
        entries = [
            each
            for each in host.entries
            if (each.origin is not None and each.origin.kind == _GRPC_ROUTE) is is_grpc
        ]
        yield Host(host.domains, tuple(entries))
