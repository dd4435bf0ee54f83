"""What becomes of a request, from configuration alone: which waypoint reads it, what policies say of it there, which
rule of which route it meets, where that leads, and whether the endpoints let the waypoint in; or the client, where its
own node proxy routes its requests. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.insight import at_pods
from ambit.insight.at_gateway import (
    Arrival,
    as_backends_see,
    at_gateway,
    find_gateway,
    gateway_of,
    going_on,
    hosts_for,
)
from ambit.insight.at_tokens import NOTHING, Shown
from ambit.insight.at_waypoint import Passage, at_waypoint, reads
from ambit.insight.ends import Destination, find_destination, find_source
from ambit.insight.leading import (
    Lead,
    Led,
    Part,
    RequestAnswer,
    Share,
    all_hosts,
    at_table,
    by_headers,
    led,
    of_service,
)
from ambit.insight.manifests import Compiled
from ambit.insight.ruling import DENIED, REFUSED, Ruling, together, verdict_of
from ambit.insight.way import Way, each_alone, waypoint_between
from ambit.insight.why import connecting_to, through
from ambit.model.proxy import Proxy, ServiceRoutes
from ambit.model.service import Service
from ambit.model.workload import TunnelProtocol, Workload
from ambit.policy.requests import Request
from ambit.policy.route import Asked

_PORTS = {"http": 80, "https": 443}
NO_WAYPOINT = "no waypoint reads it: what is decided is decided about the connection"
NO_REQUESTS = "the waypoint reads no requests on this port: what is decided is decided about the connection"

IN_TLS = "a client that speaks TLS (https) is not understood: port"
AT_POD = "its server's node reads it"
TO_POD = "no route: requests go to the pod that was asked"


class _Asking(msgspec.Struct, frozen=True):
    """A request as somebody asks about it."""

    method: str
    url: str
    headers: Mapping[str, str]
    shown: Shown

    def to(self, host: str, where: str) -> Asked:
        """As routes see it; `where` is the namespace that it comes from."""
        return Asked(self.method, self.headers.get("host", host), _parts(self.url)[2], self.headers, where)

    def request(self, asked: Asked) -> Request:
        """As policies see it."""
        return Request(self.method, _authority(self.url, asked), asked.path, asked.headers)


def why_request(
    source: str,
    method: str,
    url: str,
    compiled: Compiled,
    namespace: str = "default",
    headers: Mapping[str, str] | None = None,
    shown: Shown = NOTHING,
) -> RequestAnswer:
    """The answer for a request; `url` names its service as `ambit.insight.ends` reads it. Raises BadInput."""
    host, port, _ = _parts(url)
    asking = _Asking(method, url, _lowered(headers), shown)
    client = find_source(source, compiled, namespace)
    where = client.namespace if isinstance(client, Workload) else namespace
    target = find_destination(f"{host}:{port}", compiled, where)
    if (edge := gateway_of(target.service, compiled)) is not None:
        return _at_gateway(edge, client, asking, compiled)
    if target.service is None:
        return _between(client, target, asking, compiled)
    parts = tuple(
        Part(percent, _between(client, msgspec.structs.replace(target, service=each), asking, compiled))
        for percent, each in each_alone(client, target.service, compiled)
    )
    if len(parts) == 1:
        return parts[0].answer
    one, verdict = parts[0].answer, together(each.answer.verdict for each in parts)
    return RequestAnswer(one.source, one.request, verdict, service=one.service, parts=parts)


def _between(
    client: Workload | Address, target: Destination, asking: _Asking, compiled: Compiled
) -> RequestAnswer:
    """The answer for these ends; the first waypoint of a service takes everything."""
    connection = connecting_to(client, target, compiled)
    service, bound, port = target.service, target.service or target.workload, target.port
    answer = RequestAnswer(
        connection.source,
        f"{asking.method} {asking.url}",
        connection.verdict,
        connection.waypoint,
        service=service.key if service is not None else "",
        by_headers=service is not None and by_headers(all_hosts(service, port, compiled), compiled),
    )
    where = client.namespace if isinstance(client, Workload) else ""
    asked = asking.to(_parts(asking.url)[0], where)
    request = asking.request(asked)
    table = service.inline_routes(port) if service is not None else None
    in_tls = msgspec.structs.replace(answer, verdict=REFUSED, reason=f"{IN_TLS} {port} speaks HTTP")
    is_tls = urlsplit(asking.url).scheme == "https"
    if service is not None and table is not None and isinstance(client, Workload) and _is_enrolled(client):
        if is_tls:
            return in_tls
        lead = _as_client(client, service, request, asking.shown, compiled)
        return of_service(answer, table, asked, lead, compiled)
    way = waypoint_between(client, bound, compiled)
    if way is None and any(at_pods.is_read(each, compiled) for each in connection.rulings):
        if is_tls:
            return in_tls
        rulings = tuple(at_pods.judged(each, request, compiled, asking.shown) for each in connection.rulings)
        verdict = verdict_of(rulings)
        connection = msgspec.structs.replace(connection, verdict=verdict, rulings=rulings)
        return msgspec.structs.replace(answer, verdict=verdict, reason=AT_POD, connection=connection)
    if way is None or way.pod is None:
        reason = NO_WAYPOINT if way is None else way.refused
        return msgspec.structs.replace(answer, reason=reason, connection=connection)
    if (
        way.proxy is None
        or bound is None
        or not isinstance(client, Workload)
        or not reads(bound, port, compiled)
    ):
        return msgspec.structs.replace(answer, reason=NO_REQUESTS, connection=connection)
    if is_tls:
        return in_tls
    passage = Passage(client, way.proxy, bound, port, target.address)
    if service is not None:
        return _by_waypoint(answer, way, passage, asked, request, asking.shown, compiled)
    ruling = at_waypoint(passage, compiled, request, asking.shown)
    answer = msgspec.structs.replace(answer, policy=ruling)
    if ruling.verdict == DENIED:
        return msgspec.structs.replace(answer, verdict=DENIED)
    share = Share(f"{bound.namespace}/{bound.name}:{port}", 100.0, connection.verdict, connection.rulings)
    return led(answer, TO_POD, (share,))


def _as_client(
    client: Workload, service: Service, request: Request, shown: Shown, compiled: Compiled
) -> Lead:
    """Endpoints of backends, asked by the client's own node."""

    def lead(backend: Service, port: int) -> tuple[Ruling, ...]:
        target = find_destination(f"{backend.hostname}:{port}", compiled, client.namespace)
        found = connecting_to(client, target, compiled).rulings
        held = (at_pods.held_to(each, service, compiled) for each in found)
        return tuple(at_pods.judged(each, request, compiled, shown) for each in held)

    return lead


def _by_waypoint(
    answer: RequestAnswer,
    way: Way,
    passage: Passage,
    asked: Asked,
    request: Request,
    shown: Shown,
    compiled: Compiled,
) -> RequestAnswer:
    """The answer of the waypoint of a service, which reads the request."""
    ruling = at_waypoint(passage, compiled, request, shown)
    answer = msgspec.structs.replace(answer, policy=ruling)
    if ruling.verdict == DENIED:
        return msgspec.structs.replace(answer, verdict=DENIED)
    assert isinstance(passage.bound, Service), "a pod has no routes"
    key, port = passage.bound.key, passage.port
    tables = {each.key: each for each in compiled.routes if isinstance(each, ServiceRoutes)}
    table = tables.get(f"{key}:{port}") or ServiceRoutes(key, port)

    def lead(backend: Service, port: int) -> Led:
        return through(way, backend, port, compiled)

    return of_service(answer, table, asked, lead, compiled)


def why_at_gateway(
    source: str,
    method: str,
    url: str,
    compiled: Compiled,
    name: str,
    namespace: str = "default",
    headers: Mapping[str, str] | None = None,
    shown: Shown = NOTHING,
) -> RequestAnswer:
    """The answer for a request that comes to the gateway of this name at the edge; `url` is as its client writes it.
    Raises BadInput."""
    proxy = find_gateway(name, compiled, namespace)
    client = find_source(source, compiled, namespace)
    return _at_gateway(proxy, client, _Asking(method, url, _lowered(headers), shown), compiled)


def _at_gateway(
    proxy: Proxy, client: Workload | Address, asking: _Asking, compiled: Compiled
) -> RequestAnswer:
    host, port, _ = _parts(asking.url)
    # Whoever comes by a gateway has no identity of the mesh's tunnels there, a workload neither.
    address = client.addresses[0] if isinstance(client, Workload) else client
    asked = asking.to(host, "")
    by_tls = urlsplit(asking.url).scheme == "https"
    arrival = Arrival(proxy, address, port, host, asking.request(asked), by_tls, asking.shown)
    hosts = hosts_for(arrival, compiled)
    ruling, request = at_gateway(arrival, compiled)
    answer = RequestAnswer(
        str(address),
        f"{asking.method} {asking.url}",
        ruling.verdict,
        gateway=proxy.key,
        policy=ruling,
        by_headers=by_headers(hosts, compiled),
    )
    if ruling.verdict in (DENIED, REFUSED):
        return answer
    # Of several names in one the port does not matter.
    asked = msgspec.structs.replace(asked, host=asked.host.partition(":")[0].lower())
    lead = _from_gateway(proxy, going_on(arrival, request), asking, compiled)
    return at_table(answer, hosts, asked, lead, compiled)


def _from_gateway(proxy: Proxy, request: Request, asking: _Asking, compiled: Compiled) -> Lead:
    """Backends as the gateway calls them: their endpoints, or by way of their waypoints. What the gateway's routes
    change in a request is not looked at."""
    own = as_backends_see(proxy)
    assert own.pod is not None, "it is imagined where there is none"
    client = own.pod

    def lead(backend: Service, port: int) -> Led:
        if not backend.ingress_use_waypoint or not backend.has_waypoint:
            return through(own, backend, port, compiled)
        return tuple(
            Part(percent, by_way(each, port)) for percent, each in each_alone(client, backend, compiled)
        )

    def by_way(service: Service, port: int) -> RequestAnswer:
        asked = Asked(request.method, request.host, request.path, request.headers, client.namespace)
        answer = RequestAnswer(proxy.key, f"{asking.method} {asking.url}", REFUSED, service=service.key)
        way = waypoint_between(client, service, compiled)
        if way is None or way.pod is None or way.proxy is None:
            reason = way.refused if way is not None else NO_WAYPOINT
            return msgspec.structs.replace(answer, reason=reason)
        answer = msgspec.structs.replace(answer, waypoint=way.name)
        if not reads(service, port, compiled):
            rulings = through(way, service, port, compiled)
            share = Share(f"{service.namespace}/{service.name}:{port}", 100.0, verdict_of(rulings), rulings)
            return led(answer, NO_REQUESTS, (share,))
        passage = Passage(client, way.proxy, service, port)
        return _by_waypoint(answer, way, passage, asked, request, asking.shown, compiled)

    return lead


def _lowered(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {key.lower(): value for key, value in (headers or {}).items()}


def _authority(url: str, asked: Asked) -> str:
    """As clients send it: without the port that the scheme stands for."""
    parts = urlsplit(url)
    is_implied = parts.port in (None, _PORTS.get(parts.scheme))
    return asked.headers.get("host") or (asked.host if is_implied else f"{asked.host}:{parts.port}")


def _parts(url: str) -> tuple[str, int, str]:
    """Host, port and path with query. Raises BadInput."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError as problem:
        raise BadInput(f"{url!r} is no URL: {problem}") from problem
    if not port or not parts.hostname:
        raise BadInput(f"{url!r} is no URL of HTTP", "give it as http://web/path or http://web.shop:8080/")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _is_enrolled(client: Workload | Address) -> bool:
    """Whether a node proxy carries what it sends."""
    return isinstance(client, Workload) and client.tunnel is TunnelProtocol.HBONE
