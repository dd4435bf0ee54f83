"""What becomes of a request, from configuration alone: which waypoint reads it, what policies say of it there, which
rule of which route it meets, where that leads, and whether the endpoints let the waypoint in; or the client, where its
own node proxy routes its requests. Pure."""

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec

from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.insight import at_pods
from ambit.insight.at_gateway import Arrival, at_gateway, find_gateway, gateway_of, hosts_for, leading
from ambit.insight.at_waypoint import Passage, at_waypoint, reads
from ambit.insight.ends import find_destination, find_source
from ambit.insight.manifests import Compiled
from ambit.insight.ruling import ALLOWED, ASKED, DENIED, MIXED, Ruling, verdict_of
from ambit.insight.way import waypoint_between
from ambit.insight.why import Answer, through, why
from ambit.model.http import Action, Entry, Host, PathKind, RequestMatch
from ambit.model.proxy import Proxy, ServiceRoutes
from ambit.model.request_policy import Attribute
from ambit.model.service import Service
from ambit.model.workload import TunnelProtocol, Workload
from ambit.policy.requests import Request
from ambit.policy.route import Asked, met

ANSWERED = "answered"
_PORTS = {"http": 80, "https": 443}
_NOT_RECORDED = frozenset({Attribute.HEADER, Attribute.REQUEST_PRINCIPAL, Attribute.CLAIM})
NO_WAYPOINT = "no waypoint reads it: what is decided is decided about the connection"
NO_REQUESTS = "the waypoint reads no requests on this port: what is decided is decided about the connection"

AT_POD = "its server's node reads it"
TO_POD = "no route: requests go to the pod that was asked"


class Share(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Where a part of such requests goes: `backend` is `<namespace>/<name>:<port>` of a service, or of a pod that
    was asked itself, `percent` how many.
    `verdict` is that of its endpoints, `reason` why it gets to none."""

    backend: str
    percent: float
    verdict: str
    rulings: tuple[Ruling, ...] = ()
    reason: str = ""


class RequestAnswer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """`verdict`: allowed, denied, refused, mixed, asked (by who is asked first, else allowed), or answered by the
    waypoint itself (a redirect, an error). `route` names the rule that it meets as records do, `met` by what; `reason`
    says what else there is to say. Of a request that nobody reads `connection` has the answer; one that the client's
    own node proxy reads has neither. `policy` is what policies for requests say at the waypoint; what they deny goes
    nowhere, and has no route. `service` is the key of the service that was asked; `by_headers`: something that decides
    looks at headers or tokens."""

    source: str
    request: str
    verdict: str
    waypoint: str = ""
    gateway: str = ""
    """The one at the edge that it came to; then there is no waypoint."""
    route: str = ""
    met: str = ""
    origin: str = ""
    reason: str = ""
    policy: Ruling | None = None
    shares: tuple[Share, ...] = ()
    connection: Answer | None = None
    service: str = ""
    by_headers: bool = False

    @property
    def reader(self) -> str:
        """The Gateway whose proxy reads it."""
        return self.waypoint or self.gateway


def why_request(
    source: str,
    method: str,
    url: str,
    compiled: Compiled,
    namespace: str = "default",
    headers: Mapping[str, str] | None = None,
) -> RequestAnswer:
    """The answer for a request; `url` names its service as `ambit.insight.ends` reads it. Raises BadInput."""
    host, port, path = _parts(url)
    client = find_source(source, compiled, namespace)
    where = client.namespace if isinstance(client, Workload) else namespace
    target = find_destination(f"{host}:{port}", compiled, where)
    if (edge := gateway_of(target.service, compiled)) is not None:
        return _at_gateway(edge, source, method, url, compiled, namespace, headers)
    connection = why(source, f"{host}:{port}", compiled, namespace)
    answer = RequestAnswer(connection.source, f"{method} {url}", connection.verdict, connection.waypoint)
    way = waypoint_between(client, target.service or target.workload, compiled)
    service = target.service
    answer = msgspec.structs.replace(
        answer,
        service=service.key if service is not None else "",
        by_headers=service is not None and _by_headers(_all_hosts(service, port, compiled), compiled),
    )
    table = service.inline_routes(port) if service is not None else None
    if service is not None and table is not None and _is_enrolled(client):
        asked = _asked(method, host, path, headers, where)
        request = Request(method, _authority(url, asked), path, asked.headers)

        def as_client(backend: Service, port: int) -> tuple[Ruling, ...]:
            found = why(source, f"{backend.hostname}:{port}", compiled, namespace).rulings
            held = (at_pods.held_to(each, service, compiled) for each in found)
            return tuple(at_pods.judged(each, request, compiled) for each in held)

        return _of_service(answer, table, asked, as_client, compiled)
    if way is None and any(at_pods.is_read(each, compiled) for each in connection.rulings):
        asked = _asked(method, host, path, headers, where)
        request = Request(method, _authority(url, asked), path, asked.headers)
        rulings = tuple(at_pods.judged(each, request, compiled) for each in connection.rulings)
        verdict = verdict_of(rulings)
        connection = msgspec.structs.replace(connection, verdict=verdict, rulings=rulings)
        return msgspec.structs.replace(answer, verdict=verdict, reason=AT_POD, connection=connection)
    if way is None or way.pod is None:
        reason = NO_WAYPOINT if way is None else way.refused
        return msgspec.structs.replace(answer, reason=reason, connection=connection)
    passed = way
    tables = {each.key: each for each in compiled.routes if isinstance(each, ServiceRoutes)}
    bound = service or target.workload
    if (
        way.proxy is None
        or bound is None
        or not isinstance(client, Workload)
        or not reads(bound, port, compiled)
    ):
        return msgspec.structs.replace(answer, reason=NO_REQUESTS, connection=connection)
    asked = _asked(method, host, path, headers, where)
    request = Request(method, _authority(url, asked), path, asked.headers)
    ruling = at_waypoint(Passage(client, way.proxy, bound, port, target.address), compiled, request)
    answer = msgspec.structs.replace(answer, policy=ruling)
    if ruling.verdict == DENIED:
        return msgspec.structs.replace(answer, verdict=DENIED)
    if service is None:
        share = Share(f"{bound.namespace}/{bound.name}:{port}", 100.0, connection.verdict, connection.rulings)
        return _led(answer, TO_POD, (share,))

    def as_waypoint(backend: Service, port: int) -> tuple[Ruling, ...]:
        return through(passed, backend, port, compiled)

    table = tables.get(f"{service.key}:{port}") or ServiceRoutes(service.key, port)
    return _of_service(answer, table, asked, as_waypoint, compiled)


def why_at_gateway(
    source: str,
    method: str,
    url: str,
    compiled: Compiled,
    name: str,
    namespace: str = "default",
    headers: Mapping[str, str] | None = None,
) -> RequestAnswer:
    """The answer for a request that comes to the gateway of this name at the edge; `url` is as its client writes it.
    Raises BadInput."""
    proxy = find_gateway(name, compiled, namespace)
    return _at_gateway(proxy, source, method, url, compiled, namespace, headers)


def _at_gateway(
    proxy: Proxy,
    source: str,
    method: str,
    url: str,
    compiled: Compiled,
    namespace: str,
    headers: Mapping[str, str] | None,
) -> RequestAnswer:
    host, port, path = _parts(url)
    client = find_source(source, compiled, namespace)
    # Whoever comes by a gateway has no identity there, a workload of the mesh neither.
    address = client.addresses[0] if isinstance(client, Workload) else client
    asked = _asked(method, host, path, headers, "")
    request = Request(method, _authority(url, asked), path, asked.headers)
    arrival = Arrival(proxy, address, port, host, request, urlsplit(url).scheme == "https")
    hosts = hosts_for(arrival, compiled)
    ruling = at_gateway(arrival, compiled)
    answer = RequestAnswer(
        str(address),
        f"{method} {url}",
        DENIED,
        gateway=proxy.key,
        policy=ruling,
        by_headers=_by_headers(hosts, compiled),
    )
    if ruling.verdict == DENIED:
        return answer
    # Of several names in one the port does not matter.
    asked = msgspec.structs.replace(asked, host=asked.host.partition(":")[0].lower())
    return _met(answer, hosts, asked, leading(arrival, compiled, through), compiled)


_Lead = Callable[[Service, int], tuple[Ruling, ...]]
"""What the endpoints of a backend say to who leads the request there."""


def _asked(method: str, host: str, path: str, headers: Mapping[str, str] | None, where: str) -> Asked:
    given = {key.lower(): value for key, value in (headers or {}).items()}
    return Asked(method, given.get("host", host), path, given, where)


def _authority(url: str, asked: Asked) -> str:
    """As clients send it: without the port that the scheme stands for."""
    parts = urlsplit(url)
    is_implied = parts.port in (None, _PORTS.get(parts.scheme))
    return asked.headers.get("host") or (asked.host if is_implied else f"{asked.host}:{parts.port}")


def _of_service(
    answer: RequestAnswer, table: ServiceRoutes, asked: Asked, lead: _Lead, compiled: Compiled
) -> RequestAnswer:
    if not table.hosts:
        share = _share(lead, table.service, table.port, 100.0, compiled)
        reason = "no route: requests go to the service's own endpoints"
        return _led(answer, reason, (share,))
    return _met(answer, table.hosts, asked, lead, compiled)


def _met(
    answer: RequestAnswer, hosts: tuple[Host, ...], asked: Asked, lead: _Lead, compiled: Compiled
) -> RequestAnswer:
    entry = met(hosts, asked)
    if entry is None:
        reason = f"none of its rules matches: 404. They are {_rules(hosts)}"
        return msgspec.structs.replace(answer, verdict=ANSWERED, reason=reason)
    answer = msgspec.structs.replace(
        answer, route=entry.name, met=_in_words(entry.match), origin=str(entry.origin or "")
    )
    return _acted(answer, entry.action, lead, compiled)


def _acted(answer: RequestAnswer, action: Action, lead: _Lead, compiled: Compiled) -> RequestAnswer:
    if action.redirect is not None:
        reason = f"redirected with {action.redirect.status}"
        return msgspec.structs.replace(answer, verdict=ANSWERED, reason=reason)
    total = sum(each.weight for each in action.backends)
    if not total:
        reason = f"the rule leads nowhere: {action.status}"
        return msgspec.structs.replace(answer, verdict=ANSWERED, reason=reason)
    shares = tuple(
        _share(lead, each.service, each.port, round(100 * each.weight / total, 1), compiled)
        for each in action.backends
        if each.weight
    )
    return _led(answer, "", shares)


def _led(answer: RequestAnswer, reason: str, shares: tuple[Share, ...]) -> RequestAnswer:
    verdicts = {each.verdict for each in shares}
    verdict = verdicts.pop() if len(verdicts) == 1 else MIXED
    if verdict == ALLOWED and answer.policy is not None and answer.policy.verdict == ASKED:
        verdict = ASKED
    return msgspec.structs.replace(answer, verdict=verdict, reason=reason, shares=shares)


def _share(lead: _Lead, key: str, port: int, percent: float, compiled: Compiled) -> Share:
    service = next((each for each in compiled.services if each.key == key), None)
    if service is None:
        return Share(
            key or "nobody", percent, ANSWERED, reason="there is no such service, or it is not allowed: 500"
        )
    rulings = lead(service, port)
    reason = "" if rulings else f"no healthy endpoint for port {port}: 503"
    return Share(_named(service, port), percent, verdict_of(rulings), rulings, reason)


def _named(service: Service, port: int) -> str:
    return f"{service.namespace}/{service.name}:{port}"


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


def _all_hosts(service: Service, port: int, compiled: Compiled) -> tuple[Host, ...]:
    """Of rules of this port, wherever they are followed."""
    tables = [each for each in compiled.routes if isinstance(each, ServiceRoutes)]
    inline = service.inline_routes(port)
    found = [each for each in tables if (each.service, each.port) == (service.key, port)]
    found += [inline] if inline is not None else []
    return tuple(host for each in found for host in each.hosts)


def _by_headers(hosts: tuple[Host, ...], compiled: Compiled) -> bool:
    """Whether anything looks at what records do not have: these rules, or any policy."""
    if any(entry.match.headers for host in hosts for entry in host.entries):
        return True
    return any(
        condition.attribute in _NOT_RECORDED
        for policy in compiled.request_policies
        for rule in policy.rules
        for clause in rule.clauses
        for match in clause.matches
        for condition in match.conditions
    )


def _is_enrolled(client: Workload | Address) -> bool:
    """Whether a node proxy carries what it sends."""
    return isinstance(client, Workload) and client.tunnel is TunnelProtocol.HBONE


def _rules(hosts: tuple[Host, ...]) -> str:
    entries: list[Entry] = [entry for host in hosts for entry in host.entries]
    return "; ".join(f"{each.name} ({_in_words(each.match)})" for each in entries) or "none"


def _in_words(match: RequestMatch) -> str:
    words = []
    if match.path is not None:
        words.append(
            {PathKind.EXACT: "path", PathKind.PREFIX: "path below", PathKind.REGEX: "path like"}[
                match.path.kind
            ]
            + f" {match.path.value}"
        )
    if match.method:
        words.append(f"method {match.method}")
    for kind, found in (("header", match.headers), ("query", match.queries)):
        words += [f"{kind} {each.name}{' like ' if each.is_regex else '='}{each.value}" for each in found]
    if match.source_namespaces:
        words.append(f"from {' or '.join(match.source_namespaces)}")
    return ", ".join(words) or "every request"
