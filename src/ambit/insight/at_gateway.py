"""What becomes of a request that comes to a gateway at the edge: which listener takes it, what policies say of it
there, and who the gateway is to what is behind it; from configuration alone. Pure."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ambit.core import hostnames
from ambit.core.address import Address
from ambit.core.errors import BadInput
from ambit.core.identity import Identity
from ambit.insight.at_tokens import NOTHING, Shown, borne
from ambit.insight.at_waypoint import ruling_of
from ambit.insight.manifests import Compiled
from ambit.insight.ruling import ALLOWED, REFUSED, Ruling
from ambit.insight.way import Way, imagined
from ambit.model.http import Host
from ambit.model.proxy import ClientTrust, Listener, ListenerRoutes, Protocol, Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.workload import TunnelProtocol
from ambit.plan import targets
from ambit.plan.l7 import gateway
from ambit.policy.requests import Request, RequestFacts

_SPIFFE = "spiffe://"
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
    shown: Shown = NOTHING


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
        own = _named_in_hello(own, given.host)
    if not own:
        known = ", ".join(f"{each.port} ({_named(each)})" for each in given.proxy.listeners)
        raise BadInput(
            f"{given.proxy.key} reads no such requests for {given.host} on port {given.port}",
            f"its listeners that can be used are {known}"
            if known
            else "none of its listeners can be used; `ambit check` and the Gateway's status say why",
        )
    routes = {
        each.listener: each
        for each in compiled.routes
        if isinstance(each, ListenerRoutes) and each.gateway == given.proxy.key
    }
    return gateway.of_listeners(own, on_port, gateway.Attached(routes))


def at_gateway(given: Arrival, compiled: Compiled) -> tuple[Ruling, Request]:
    """What policies say of the request, and the request as it goes on. Raises BadInput for a certificate that cannot be
    tried."""
    trust = _asking(given)
    if trust is not None and trust.must_verify and given.shown.certificate is None:
        reason = f"port {given.port} asks its clients for a certificate, and this one shows none"
        return Ruling(REFUSED, reason), given.request
    rules = [each for each in compiled.tokens if targets.concern(each.targets, given.proxy)]
    token = borne(rules, given.request, given.shown)
    if token.refused:
        return token.ruling(), given.request
    identity, principal = _proven(given, trust)
    facts = RequestFacts(
        source=given.source,
        port=given.port,
        remote=_remote(given.request.headers, given.proxy.trusted_proxies),
        request=token.request,
        server_name=given.host if given.by_tls else "",
        identity=identity,
        principal=principal,
    )
    policies = [each for each in compiled.request_policies if targets.concern(each.targets, given.proxy)]
    return ruling_of(policies, facts, token.said), msgspec.structs.replace(token.request, claims={})


def _named_in_hello(listeners: Iterable[Listener], host: str) -> list[Listener]:
    """The one that takes connections for this name, if any does."""
    own = [each for each in listeners if hostnames.covers(each.hostname or hostnames.ANY, host)]
    return sorted(own, key=lambda each: hostnames.by_precision(each.hostname or hostnames.ANY))[:1]


def _asking(given: Arrival) -> ClientTrust | None:
    """What is believed about certificates that clients are asked for; None where they are asked for none."""
    if not given.by_tls:
        return None
    on_port = (each for each in given.proxy.listeners if each.port == given.port)
    return next((each.clients for each in _named_in_hello(on_port, given.host)), None)


def _proven(given: Arrival, trust: ClientTrust | None) -> tuple[Identity | None, str]:
    """Who the client is by its certificate, as `RequestFacts` has it."""
    shown = given.shown.certificate
    if trust is None or not trust.must_verify or not shown:
        return None, ""
    if len(shown) > 1:
        raise BadInput(
            f"the certificate has several names: {', '.join(shown)}",
            "a rule about callers hits it where it denies; ask with a certificate of one name",
        )
    name = shown[0].removeprefix(_SPIFFE)
    if name == shown[0]:
        return None, ""
    try:
        return Identity.parse(shown[0]), ""
    except ValueError:
        return None, name


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


def as_backends_see(proxy: Proxy) -> Way:
    """Who leads what came by the gateway to its backends."""
    return Way(proxy.key, proxy, msgspec.structs.replace(imagined(proxy), tunnel=TunnelProtocol.HBONE))


def going_on(given: Arrival, request: Request) -> Request:
    """The request as the gateway sends it on: with the address that it saw behind what it believes."""
    said = request.headers.get(_FORWARDED, "") if given.proxy.trusted_proxies else ""
    forwarded = f"{said}, {given.source}" if said else str(given.source)
    return msgspec.structs.replace(request, headers={**request.headers, _FORWARDED: forwarded})


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
