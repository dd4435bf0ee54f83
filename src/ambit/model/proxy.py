"""L7 proxies, and what each does with which traffic."""

from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.model.http import Entry, Host
from ambit.model.streams import Stream


class ProxyKind(Enum):
    WAYPOINT = "waypoint"
    INLINE = "inline"
    GATEWAY = "gateway"


class WaypointFor(Enum):
    """Which traffic a waypoint takes (`istio.io/waypoint-for`)."""

    SERVICE = "service"
    WORKLOAD = "workload"
    ALL = "all"
    NONE = "none"


class Protocol(Enum):
    HBONE = "HBONE"
    HTTP = "HTTP"
    HTTPS = "HTTPS"
    TLS = "TLS"
    TCP = "TCP"
    UDP = "UDP"

    @property
    def is_of_requests(self) -> bool:
        """Whether requests are read in it, by routes of requests."""
        return self in (Protocol.HTTP, Protocol.HTTPS)


class ClientTrust(msgspec.Struct, frozen=True):
    """Roots (PEM) of certificates that clients are asked for; without `must_verify` anybody comes in."""

    roots: str
    must_verify: bool = True


class TlsTerms(msgspec.Struct, frozen=True):
    """What a listener that ends TLS takes: `suites` are those of TLS 1.2 in order of preference, by OpenSSL's names,
    empty for the usual ones; with `newest_only` nothing before TLS 1.3. With `http3` requests come by QUIC as well, on
    the port of UDP with its number."""

    suites: tuple[str, ...] = ()
    newest_only: bool = False
    http3: bool = False


class Listener(msgspec.Struct, frozen=True):
    """One listener of a gateway, accepted. `hostname` is empty for any. Its routes: `ListenerRoutes`."""

    name: str
    port: int
    protocol: Protocol
    hostname: str = ""
    certificates: tuple[str, ...] = ()
    """Names of `KeyPair`s, where it ends TLS; one of protocol TLS without any passes it through."""
    clients: ClientTrust | None = None
    terms: TlsTerms = TlsTerms()


class Patch(msgspec.Struct, frozen=True):
    """A strategic merge patch (JSON) to the object of this kind that is made of a Gateway. It is known to change
    nothing but what people may."""

    kind: str
    json: str


class Parameters(msgspec.Struct, frozen=True):
    """What people want of the objects that are made of a Gateway, in the order in which it counts. With a `problem`
    (one sentence) these stay as they are."""

    patches: tuple[Patch, ...] = ()
    problem: str = ""


class Proxy(msgspec.Struct, frozen=True):
    """One Gateway that has a proxy. `key` is `<namespace>/<name>` of the Gateway; `service` the hostname of the
    Service in front of its pods."""

    key: str
    kind: ProxyKind
    identity: Identity
    service: str
    origin: ObjectRef
    takes: WaypointFor = WaypointFor.SERVICE
    listeners: tuple[Listener, ...] = ()
    client_certificate: str = ""
    """Name of the `KeyPair` that it shows to servers that a policy has it speak TLS to."""
    parameters: Parameters = Parameters()
    trusted_proxies: int = 0
    """Of a gateway: how many proxies are before it whose word about a request's way counts."""


class ListenerRoutes(msgspec.Struct, frozen=True):
    """What a gateway (by its key) does with what comes to one of its listeners. Each of `hosts` has one domain: the
    listener's own, or what a route and the listener have in common. `streams` are of listeners that read no requests:
    the first one that matches has a connection."""

    gateway: str
    listener: str
    hosts: tuple[Host, ...] = ()
    streams: tuple[Stream, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.gateway}#{self.listener}"


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate chain, leaf first, and its private key, both PEM. `name` is `<namespace>/<name>` of its Secret."""

    name: str
    chain: str
    key: str

    def __repr__(self) -> str:
        return f"KeyPair({self.name})"


class GatewayCertificates(msgspec.Struct, frozen=True):
    """What the listeners of a gateway (by its key) show their clients, and it its servers. For nobody but its own
    proxies."""

    gateway: str
    pairs: tuple[KeyPair, ...]

    @property
    def key(self) -> str:
        return self.gateway


class ServiceRoutes(msgspec.Struct, frozen=True):
    """What the waypoint of a service does with requests, or with connections (`streams`), to one of its ports. A port
    without one goes to the service's own endpoints; so does a request that no entry of an empty table matches. Of
    streams that take a connection the one of the most specific host name counts, of several the first."""

    service: str
    port: int
    hosts: tuple[Host, ...] = ()
    streams: tuple[Stream, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.service}:{self.port}"

    @property
    def own_entries(self) -> Iterator[Entry]:
        """Of requests: without those of other namespaces' routes, which are for their own requests only."""
        entries = (entry for host in self.hosts for entry in host.entries)
        return (each for each in entries if not each.match.source_namespaces)


def called_by(entries: Iterable[Entry], streams: Iterable[Stream]) -> set[tuple[str, int]]:
    """Keys and ports of the services that requests, copies of them, questions about them and connections go to."""
    found = {each for entry in entries for each in entry.action.called()}
    return found | {
        (each.service, each.port) for stream in streams for each in stream.backends if each.service
    }
