"""What becomes of a request that comes to a gateway at the edge: which listener takes it, what policies say of it
there, and what the endpoints behind say to the gateway; from configuration alone. Tokens and certificates cannot be
tried: it is asked without both. Pure."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ambit.core import hostnames
from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.insight.at_waypoint import ruling_of
from ambit.insight.manifests import Compiled
from ambit.insight.ruling import ALLOWED, DENIED, REFUSED, Ruling
from ambit.insight.way import Way, imagined
from ambit.model.http import Host
from ambit.model.proxy import Listener, ListenerRoutes, Protocol, Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.workload import TunnelProtocol
from ambit.plan import gateway, targets
from ambit.policy.requests import Request, RequestFacts

_BY_TLS = "https"
_FORWARDED = "x-forwarded-for"


class Arrival(msgspec.Struct, frozen=True):
    """A request as it comes to a gateway: `source` opened the connection; `host` and `port` are the URL's, and the name
    in the hello when it is `by_tls`."""

    proxy: Proxy
    source: Address
    port: int
    host: str
    request: Request
    by_tls: bool


def find_gateway(name: str, compiled: Compiled, namespace: str) -> Proxy:
    """The gateway at the edge of this name, `NAMESPACE/NAME` or `NAME`. Raises BadInput."""
    where, _, short = name.rpartition("/")
    key = f"{where or namespace}/{short}"
    known = {each.key: each for each in compiled.proxies if each.kind is ProxyKind.GATEWAY}
    if key not in known:
        hint = f"there are {', '.join(sorted(known))}" if known else "there is none at the edge"
        raise BadInput(f"no gateway {key}", hint)
    return known[key]


def gateway_of(service: Service | None, compiled: Compiled) -> Proxy | None:
    """The gateway at the edge whose Service this is."""
    for each in compiled.proxies:
        if service is not None and each.kind is ProxyKind.GATEWAY and each.service == service.hostname:
            return each
    return None


def hosts_for(given: Arrival, compiled: Compiled) -> tuple[Host, ...]:
    """The hosts of the listener that takes the request. Raises BadInput when none reads requests there."""
    protocol = Protocol.HTTPS if given.by_tls else Protocol.HTTP
    on_port = [each for each in given.proxy.listeners if each.port == given.port]
    own = [each for each in on_port if each.protocol is protocol]
    if given.by_tls:
        own = [each for each in own if hostnames.covers(each.hostname or hostnames.ANY, given.host)]
        own = sorted(own, key=lambda each: hostnames.by_precision(each.hostname or hostnames.ANY))[:1]
    if not own:
        known = ", ".join(f"{each.port} ({_named(each)})" for each in given.proxy.listeners)
        raise BadInput(
            f"{given.proxy.key} reads no such requests for {given.host} on port {given.port}",
            f"its listeners are {known}" if known else "it has no listener that can be used",
        )
    routes = {
        each.listener: each
        for each in compiled.routes
        if isinstance(each, ListenerRoutes) and each.gateway == given.proxy.key
    }
    return gateway.of_listeners(own, on_port, gateway.Attached(routes))


def at_gateway(given: Arrival, compiled: Compiled) -> Ruling:
    """What policies say of the request."""
    for each in compiled.tokens:
        if each.is_closed and targets.concern(each.targets, given.proxy):
            return Ruling(DENIED, f"{each.origin} cannot be read, so no request passes")
    policies = [each for each in compiled.request_policies if targets.concern(each.targets, given.proxy)]
    facts = RequestFacts(
        source=given.source,
        port=given.port,
        remote=_remote(given.request.headers, given.proxy.trusted_proxies),
        request=given.request,
        server_name=given.host if given.by_tls else "",
    )
    return ruling_of(policies, facts)


def connecting(proxy: Proxy, source: Address, port: int, compiled: Compiled) -> Ruling:
    """What policies say of a connection to a port, where nobody reads requests. The name in the hello is not known."""
    protocols = {each.protocol for each in proxy.listeners if each.port == port}
    if not protocols:
        return Ruling(REFUSED, f"gateway {proxy.key} has no listener on port {port} that can be used")
    if any(each.is_of_requests for each in protocols):
        return Ruling(ALLOWED, f"gateway {proxy.key} decides about each request: ask with METHOD URL")
    policies = [each for each in compiled.request_policies if targets.concern(each.targets, proxy)]
    server_name = None if Protocol.TLS in protocols else ""
    return ruling_of(policies, RequestFacts(source=source, port=port, server_name=server_name))


Through = Callable[[Way, Service, int, Compiled], tuple[Ruling, ...]]


def leading(
    given: Arrival, compiled: Compiled, through: Through
) -> Callable[[Service, int], tuple[Ruling, ...]]:
    """What the endpoints of a backend say to the gateway."""
    pod = msgspec.structs.replace(imagined(given.proxy), tunnel=TunnelProtocol.HBONE)
    way = Way(given.proxy.key, given.proxy, pod)
    return lambda backend, port: through(way, backend, port, compiled)


def _remote(headers: Mapping[str, str], trusted: int) -> Address | None:
    """The address that the farthest of so many proxies has told of; None when there are fewer."""
    said: Sequence[str] = [each.strip() for each in headers.get(_FORWARDED, "").split(",")]
    if not trusted or len(said) < trusted:
        return None
    try:
        return ipaddress.ip_address(said[-trusted])
    except ValueError:
        return None


def _named(listener: Listener) -> str:
    return " ".join((listener.protocol.value, *((listener.hostname,) if listener.hostname else ())))
