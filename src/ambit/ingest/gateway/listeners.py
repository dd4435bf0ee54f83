"""Listeners of gateways at the edge: which are accepted, which routes they take (Gateway API v1.6 `Listener`).

- Of listeners on one port the first decides what it speaks; those that speak something else are conflicted.
- Ports that the proxy itself needs are not to be had.
- Kinds of routes that the protocol does not carry are refused, the others are taken.
"""

from collections.abc import Callable, Sequence

import msgspec

from ambit.core.names import METRICS_PORT, NODE_ADMIN_PORT, READINESS_PORT
from ambit.core.selector import Selector
from ambit.ingest.gateway.conditions import ACCEPTED, CONFLICTED, RESOLVED, no, yes
from ambit.ingest.gateway.key_pairs import Secrets, Unusable, resolve
from ambit.ingest.gateway.shares import Shares
from ambit.ingest.gateway.tls_options import HTTP3, TERMINATE_MODE, asks_clients, terms_of
from ambit.model.proxy import ClientTrust, KeyPair, Listener, Protocol, TlsTerms
from ambit.model.status import Condition, ListenerStatus
from ambit.objects import gateway

REQUESTS = ("HTTPRoute", "GRPCRoute")
KINDS: dict[Protocol, tuple[str, ...]] = {
    Protocol.HTTP: REQUESTS,
    Protocol.HTTPS: REQUESTS,
    Protocol.TLS: ("TLSRoute", "TCPRoute"),
    Protocol.TCP: ("TCPRoute",),
    Protocol.UDP: ("UDPRoute",),
}
"""What listeners can speak, and the kinds of routes that each carries."""
_PASSED = ("TLSRoute",)
"""Of TLS that is passed through: whoever reads none of it knows a connection by nothing but the name in its hello."""
KINDS_REFUSED = "InvalidRouteKinds"
_TERMINATE = "Terminate"
_BY_NAME = frozenset({Protocol.HTTPS, Protocol.TLS})
"""Can share a port: the name in a client's hello tells them apart."""
_OWN_PORTS = frozenset({NODE_ADMIN_PORT, METRICS_PORT, READINESS_PORT})


class Admission(msgspec.Struct, frozen=True):
    """Whom a listener lets in, by namespace."""

    sources: str
    selector: Selector = Selector()

    def admits(self, own: str, namespace: str, labels: dict[str, str]) -> bool:
        """Whether objects of a namespace with these labels may be bound to a gateway of namespace `own`."""
        match self.sources:
            case "All":
                return True
            case "Selector":
                return self.selector.matches(labels)
            case "Same":
                return own == namespace
            case _:
                return False


class EdgeListener(msgspec.Struct, frozen=True):
    """A listener as routes find it, good or bad. `kinds` are those of routes that it takes."""

    given: gateway.Listener
    kinds: tuple[str, ...]
    admission: Admission
    conditions: tuple[Condition, ...]
    certificates: tuple[KeyPair, ...] = ()
    clients: ClientTrust | None = None
    owner: str = ""
    """The key of the ListenerSet that it is of; empty for the Gateway's own."""

    @property
    def id(self) -> str:
        """Its name among all listeners of a gateway. A Gateway's own have no slash in theirs."""
        return f"{self.owner}/{self.name}" if self.owner else self.name

    @property
    def name(self) -> str:
        return self.given.name

    @property
    def accepted(self) -> bool:
        return self.conditions[0].holds

    @property
    def conflicted(self) -> bool:
        return self.conditions[1].holds

    @property
    def usable(self) -> bool:
        """Accepted, and with a certificate where one is needed."""
        resolved = self.conditions[2]
        return self.accepted and (
            resolved.holds or resolved.reason == KINDS_REFUSED or bool(self.clients and self.certificates)
        )

    @property
    def model(self) -> Listener:
        """Of a usable one."""
        given = self.given
        certificates = tuple(each.name for each in self.certificates)
        return Listener(
            self.id,
            given.port,
            Protocol(given.protocol),
            given.hostname.lower(),
            certificates,
            self.clients,
            self.terms,
        )

    @property
    def terms(self) -> TlsTerms:
        return terms_of(_options(self.given))[0]

    @property
    def asks_clients(self) -> bool:
        """For a certificate, by an option of its own."""
        return asks_clients(_options(self.given))

    @property
    def status(self) -> ListenerStatus:
        return ListenerStatus(self.name, self.conditions, self.kinds)


class Standing:
    """Listeners of a gateway that have their port and host name. Others are asked for by what they could be in the way
    of, and never one by one: whoever may add listeners must not take the control plane's time with many."""

    def __init__(self) -> None:
        self._first: dict[int, dict[tuple[Protocol, bool], gateway.Listener]] = {}
        self._named: dict[tuple[int, str, bool], gateway.Listener] = {}

    def take(self, given: gateway.Listener) -> None:
        """One more, which `conflict` has nothing against."""
        protocol = _protocol(given.protocol)
        if protocol is None or protocol not in KINDS:
            return  # it cannot be had, and is in nobody's way
        told_apart = protocol, terms_of(_options(given))[0].http3
        self._first.setdefault(given.port, {}).setdefault(told_apart, given)
        self._named.setdefault(_name(given, protocol), given)

    def conflict(self, given: gateway.Listener) -> Condition | None:
        """With one of these, on the port of `given`."""
        protocol = _protocol(given.protocol)
        if protocol is None or protocol not in KINDS:
            return None
        for (other, _), each in self._first.get(given.port, {}).items():
            if found := _by_protocol(given, protocol, each, other):
                return found
        same = self._named.get(_name(given, protocol))
        if same is None:
            return None
        text = f"listener {same.name} has port {given.port} and this hostname already"
        return Condition(CONFLICTED, "True", "HostnameConflict", text)


def compiled_listeners(
    given: Sequence[gateway.Listener],
    kind: str,
    namespace: str,
    known: Secrets,
    *,
    standing: Standing | None = None,
    shares: Shares | None = None,
    owner: str = "",
) -> tuple[EdgeListener, ...]:
    """In the order of the object, of this kind and namespace. `standing` are those of other objects that go before, to
    which these are added, `shares` what namespaces have of them. One that has lost its port or host name, or that its
    namespace has no room for, is in nobody's way."""
    standing = standing or Standing()
    found = []
    for each in given:
        if shares is not None and (refusal := shares.refusal(namespace, each)):
            found.append(_beyond(each, refusal, owner))
            continue
        compiled = _listener(each, standing, lambda ref: resolve(ref, kind, namespace, known), owner)
        found.append(compiled)
        if not compiled.conflicted:
            standing.take(each)
        if shares is not None and compiled.accepted:
            shares.take(namespace, each)
    return tuple(found)


def admission_of(given: gateway.Listener) -> Admission:
    """Whom a listener lets in."""
    allowed = given.allowed_routes.namespaces
    return Admission(allowed.sources, allowed.selector)


def _listener(
    given: gateway.Listener,
    standing: Standing,
    find: Callable[[gateway.SecretReference], KeyPair | Unusable],
    owner: str,
) -> EdgeListener:
    kinds, resolved = _kinds(given)
    certificates, problem = _certificates(given, find)
    resolved = problem or resolved
    conflict = standing.conflict(given)
    if conflict is not None:
        accepted = no(ACCEPTED, conflict.reason, conflict.message)
    else:
        accepted = _refusal(given) or yes(ACCEPTED)
    conditions = (accepted, conflict or no(CONFLICTED, "NoConflicts", ""), resolved)
    return EdgeListener(given, kinds, admission_of(given), conditions, certificates, owner=owner)


def _beyond(given: gateway.Listener, refusal: Condition, owner: str) -> EdgeListener:
    """One that is refused unseen: there may be very many."""
    kinds, resolved = _kinds(given)
    conditions = (refusal, no(CONFLICTED, "NoConflicts", ""), resolved)
    return EdgeListener(given, kinds, admission_of(given), conditions, owner=owner)


def _certificates(
    given: gateway.Listener, find: Callable[[gateway.SecretReference], KeyPair | Unusable]
) -> tuple[tuple[KeyPair, ...], Condition | None]:
    """Those that a listener shows, or why it has none."""
    tls = given.tls or gateway.ListenerTls()
    if _protocol(given.protocol) not in _BY_NAME or tls.mode != _TERMINATE:
        return (), None
    found = [find(each) for each in tls.certificate_refs]
    bad = [each for each in found if isinstance(each, Unusable)]
    if bad:
        return (), no(RESOLVED, bad[0].reason, "; ".join(each.text for each in bad))
    if not found:
        return (), no(RESOLVED, "InvalidCertificateRef", "tls.certificateRefs: there is none")
    return tuple(each for each in found if isinstance(each, KeyPair)), None


def _kinds(given: gateway.Listener) -> tuple[tuple[str, ...], Condition]:
    """The kinds of routes that it takes, and whether all that it names are known."""
    carried = _carried(given)
    named = given.allowed_routes.kinds
    if not named:
        return carried, yes(RESOLVED)
    good = [each.kind for each in named if each.group == gateway.GROUP and each.kind in carried]
    bad = [each.kind for each in named if each.kind not in good]
    if bad:
        mode = f" of mode {given.tls.mode}" if given.tls and given.protocol == Protocol.TLS.value else ""
        text = f"allowedRoutes.kinds: {given.protocol}{mode} carries no {', '.join(bad)}"
        return tuple(good), no(RESOLVED, KINDS_REFUSED, text)
    return tuple(good), yes(RESOLVED)


def _carried(given: gateway.Listener) -> tuple[str, ...]:
    protocol = _protocol(given.protocol)
    if protocol is Protocol.TLS and given.tls and given.tls.mode != _TERMINATE:
        return _PASSED
    return KINDS.get(protocol, ()) if protocol is not None else ()


def _name(given: gateway.Listener, protocol: Protocol) -> tuple[int, str, bool]:
    """What one listener alone can have."""
    return given.port, given.hostname.lower(), protocol is Protocol.UDP


def _by_protocol(
    given: gateway.Listener, protocol: Protocol, each: gateway.Listener, other: Protocol
) -> Condition | None:
    """Whether a listener cannot be on one port with another because of what they speak."""
    if (protocol is Protocol.UDP) is not (other is Protocol.UDP):
        if terms_of(_options(given))[0].http3 or terms_of(_options(each))[0].http3:
            text = (
                f"{HTTP3} needs port {given.port} of UDP as well, and listener {each.name} is on that number"
            )
            return Condition(CONFLICTED, "True", "ProtocolConflict", text)
        return None  # ports of UDP and of TCP are two things
    if other is not protocol and not {other, protocol} <= _BY_NAME:
        text = f"port {given.port} speaks {each.protocol} already, for listener {each.name}"
        return Condition(CONFLICTED, "True", "ProtocolConflict", text)
    return None


def _refusal(given: gateway.Listener) -> Condition | None:
    if _protocol(given.protocol) not in KINDS:
        known = ", ".join(each.value for each in KINDS)
        return no(ACCEPTED, "UnsupportedProtocol", f"a gateway speaks {known}, not {given.protocol}")
    if _protocol(given.protocol) is Protocol.HTTPS and given.tls and given.tls.mode != _TERMINATE:
        return no(ACCEPTED, "UnsupportedValue", f"tls.mode: {given.tls.mode} is not for requests")
    if given.port in _OWN_PORTS:
        return no(ACCEPTED, "PortUnavailable", f"port {given.port} is the proxy's own")
    if given.tls and given.tls.mode != _TERMINATE and given.tls.options:
        return no(ACCEPTED, "UnsupportedValue", f"tls.options: TLS of mode {given.tls.mode} ends elsewhere")
    terms, problem = terms_of(_options(given))
    if terms.http3 and given.protocol != Protocol.HTTPS.value:
        problem = f"{HTTP3}: {given.protocol} carries no requests"
    if asks_clients(_options(given)) and given.protocol != Protocol.HTTPS.value:
        problem = f"{TERMINATE_MODE}: clients are asked for certificates by listeners of protocol HTTPS only"
    return no(ACCEPTED, "UnsupportedValue", f"tls.options: {problem}") if problem else None


def _options(given: gateway.Listener) -> dict[str, str]:
    return given.tls.options if given.tls else {}


def _protocol(text: str) -> Protocol | None:
    try:
        return Protocol(text)
    except ValueError:
        return None
