"""Names of the Envoy resources of a node proxy: one grammar, readable and reversible.

| name | resource |
| --- | --- |
| `out\\|POD`, `in\\|POD`, `plain\\|POD` | listeners 15001, 15008, 15006 of one pod |
| `local\\|POD` | cluster that dials inside the pod's namespace |
| `handed\\|POD`, `app\\|POD` | of a pod whose tunnels are handed on: internal listener, application |
| `policy\\|POD` | extension (ECDS): the pod's L4 authorization on HBONE |
| `hosts\\|POD` | extension (ECDS): names by which tunnels from other networks ask for the pod |
| `dst\\|POD\\|ADDRESS:PORT` | on-demand cluster: where this pod's connection to this destination goes |
| `tun\\|POD\\|ADDRESS:PORT` | on-demand cluster: the endpoints of this destination that are reached through a tunnel |
| `req\\|POD\\|ADDRESS:PORT` | listener, and table, of requests to this destination, where they are routed inline |
| `svc\\|req\\|POD\\|ADDRESS:PORT\\|SERVICE\\|PORT` | cluster: a backend of that table |
| `svc\\|req\\|POD\\|ADDRESS:PORT\\|copies\\|SERVICE\\|PORT` | cluster and listener: the way of copies to one |
| `svc\\|req\\|POD\\|ADDRESS:PORT\\|spans\\|SERVICE\\|PORT` | cluster and listener: the way of spans of them |
| `svc\\|req\\|POD\\|ADDRESS:PORT\\|logs\\|SERVICE\\|PORT` | cluster and listener: the way of their access logs |
| `in\\|POD` | also: table (RDS) of a pod some of whose requests are read where it is |
| `into\\|pod\\|POD\\|PORT`, `svc\\|pod\\|POD\\|PORT` | of such a port: the way in, and listener and cluster of it |
| `tokens\\|pod\\|POD\\|PORT`, `allowed\\|pod\\|POD\\|PORT` | extensions (ECDS): what its requests have to meet |
| `asks\\|pod\\|POD\\|PORT\\|PLACE` | extension (ECDS): whom they are shown to |
| `own\\|pod\\|POD\\|SERVICE\\|PORT\\|PROTOCOL` | cluster and listener: calls of the node itself in the name of a pod |
| `into\\|own\\|pod\\|…` | cluster: where these go |
| `dns\\|POD\\|NAME:PORT` | on-demand cluster: what this name resolves to, dialled as the pod would |
| `hbone\\|IDENTITY`, `hbone\\|SERVICE\\|IDENTITY` | on-demand cluster: tunnels to one identity |
| `net\\|FAMILY\\|HOST:PORT\\|SERVICE\\|GATEWAY` | on-demand cluster: tunnels through a gateway's tunnels |
| `IDENTITY`, `c\\|IDENTITY` | secrets: a workload's certificate as server, and as client |
| `svc\\|SERVICE\\|PORT` | at a waypoint: cluster, its endpoints, internal listener and table of a service's port |
| `svc\\|SERVICE\\|PORT#ROUTE` | at a waypoint: extension (ECDS): where connections go by a rule for bytes |
| `into` | at a waypoint: cluster that leads into those internal listeners, and its endpoints |
| `into\\|SERVICE\\|PORT` | at a waypoint: what leads there in the table of tunnels |
| `names\\|SERVICE\\|PORT` | at a waypoint: cluster of what names in clients' hellos have resolved to |
| `tokens\\|SERVICE` | at a waypoint: extension (ECDS): which tokens requests to a service may carry |
| `port\\|PORT` | at a gateway: listener of a port, and table of its requests in plain text |
| `udp\\|PORT` | at a gateway: listener of a UDP port, cluster of what its datagrams go to, and its endpoints |
| `quic\\|PORT` | at a gateway: listener of HTTP/3 on the port of its listeners by TLS |
| `port\\|PORT\\|LISTENER` | at a gateway: table of requests to a listener by TLS |
| `cert\\|SECRET` | at a gateway: secret: what it shows its clients |
| `cert\\|clients\\|PORT` | at a gateway: secret: roots of what clients show |
| `allowed\\|SERVICE\\|PORT` | at a waypoint: extension (ECDS): authorization of requests to a service's port |
| `judged\\|GATEWAY\\|PORT` | at a gateway: extension (ECDS): what policies say of connections, for records |
| `trust` | secret: the roots of every trust domain |

POD is `<namespace>/<name>/<sandbox>`. A sandbox never returns, so a name of a pod that is gone is never used
again: removing its on-demand clusters is safe although Envoy never asks twice for a name.
Client and server certificate names differ because Envoy does not ask on demand for a name that is subscribed.
"""

import hashlib

import msgspec

from ambit.core.address import Address, host_port, parse_host_port
from ambit.core.identity import Identity
from ambit.model.workload import GatewayAddress

ASKED, TUNNELLED, RESOLVED = "dst", "tun", "dns"
"""Forms of a destination's name: the first two by its address, the last by the host name of an endpoint."""
_INNER, _BY_ADDRESS = "net", "@"
_REQUESTS = "req"
CONNECT_ORIGINATE = "connect_originate"
"""Internal listener: wraps what it gets into an HBONE tunnel named by the endpoint's metadata."""
DIRECT_ORIGINATE = "direct_originate"
"""Internal listener: goes on to the destination named by the endpoint's metadata, without a tunnel."""
OUTSIDE_ORIGINATE = "outside_originate"
"""Internal listener: as `direct_originate`, for endpoints of any address family outside of the node: the connection
is made in the source pod's namespace, from whichever of its addresses fits."""
NETWORK_ORIGINATE = "network_originate"
"""Internal listener: as `connect_originate`, for the inner one of two tunnels to another network."""
SHOWN = "cert|"
"""Secrets of a gateway's own, which the control plane sends."""
REFUSED = "refused"
LIMITED = "limited"
"""Refuses new destinations of a pod that has too many of them."""
"""Cluster without endpoints."""
DENIED_DATAGRAMS = "denied-datagrams"
"""There is no such cluster: Envoy counts each datagram that is led there (`downstream_sess_no_route`)."""
PASSTHROUGH = "passthrough"
"""Cluster of destinations that cannot belong to the mesh: dialled as the pod would."""
UNRESOLVED = "unresolved"
"""Stands for the cluster of a backend that does not exist. There is no such cluster."""
HBONE = "hbone"
"""At a waypoint: the listener of tunnels, and the table of what they may lead to."""
INTO = "into"
"""At a waypoint: the cluster that leads from tunnels into listeners; also the key by which a route says into which."""
TRUST = "trust"
AUTHORITY = "authority"
METRICS = "metrics"
NAMES = "names"
"""Of an L7 proxy: who signs now and what is revoked, and what becomes of metrics, for its agent only."""
XDS_CLUSTER = "xds"
LOGS_CLUSTER = "logs"
LOGS_PATH, LINES_PATH = "/logs", "/lines"
"""Where Envoy posts what the agent is to understand, and what it is to print."""
"""The agent: where configuration comes from, and where access logs go."""

TOKENS = "envoy.filters.http.jwt_authn"
CLAIMS = "payload"
"""Namespace and key of the dynamic metadata with all claims of the token that was found valid."""

ALLOWED = "allowed|"
"""Begins the names of extensions that authorize requests."""
JUDGED = "judged|"
"""Begins the names of extensions that tell what policies say of connections."""
WAY = "into|"
"""Begins the names of what leads from a tunnel into a listener."""
ASKS = "asks|"
"""Begins the names of extensions that have somebody else authorize requests."""

METADATA = "ambit"
"""Namespace of our metadata on clusters, endpoints and access-log tags."""

_TRACE_DIGITS = 13
"""Of the 32 of a trace; nanoseconds since 1970 have 19 until the year 2286."""

LOG_OUTBOUND = "outbound"
LOG_INBOUND = "inbound"
LOG_PLAINTEXT = "plaintext"
LOG_TUNNEL = "tunnel"
LOG_REQUESTS = "requests"
LOG_LINES = "lines"
LOG_STREAMS = "streams"
LOG_DATAGRAMS = "datagrams"
"""Kinds of access-log lines: the listener's, or of the tunnels that all pods share (only those that failed or
carried much)."""


class Destination(msgspec.Struct, frozen=True):
    """What a pod (`source`, a pod key) wants to reach; with `tunnelled` only what is reached through a tunnel. Envoy
    never asks twice for a name: to ask anew, a pod gets another `generation` of names."""

    source: str
    address: Address
    port: int
    generation: int = 0
    tunnelled: bool = False


class Resolved(msgspec.Struct, frozen=True):
    """A host name that a pod (`source`, a pod key) is led to."""

    source: str
    hostname: str
    port: int
    generation: int = 0


class Tunnel(msgspec.Struct, frozen=True):
    """The identity a tunnel's server must have; `service` adds that service's `subject_alt_names`."""

    identity: Identity
    service: str = ""


class Inner(msgspec.Struct, frozen=True):
    """A tunnel for `authority` (a service's host name and port) through the gateway of another network, whose server
    must have one of the `subject_alt_names` of `service`. `family` is preferred among the gateway's addresses."""

    family: int
    authority: str
    service: str
    gateway: GatewayAddress


def pod_key(namespace: str, name: str, sandbox: str) -> str:
    return f"{namespace}/{name}/{sandbox}"


def outbound_listener(pod: str) -> str:
    return f"out|{pod}"


def hbone_listener(pod: str) -> str:
    return f"in|{pod}"


def plaintext_listener(pod: str) -> str:
    return f"plain|{pod}"


def local_cluster(pod: str) -> str:
    return f"local|{pod}"


def handed(pod: str) -> str:
    return f"handed|{pod}"


def application(pod: str) -> str:
    return f"app|{pod}"


def hosts(pod: str) -> str:
    return f"hosts|{pod}"


def policy(pod: str) -> str:
    return f"policy|{pod}"


def policy_of_readers(pod: str) -> str:
    """As `policy`, where tunnels go to who reads requests: never that of a listener that knows of nobody who does."""
    return f"read-policy|{pod}"


def destination(source: str, address: Address, port: int, generation: int = 0) -> str:
    return destination_prefix(source, generation) + host_port(address, port)


def destination_prefix(source: str, generation: int = 0) -> str:
    """All destination names of one pod and generation start with this; Envoy appends the original destination."""
    return _prefix(ASKED, source, generation)


def tunnelled(source: str, address: Address, port: int, generation: int = 0) -> str:
    return tunnelled_prefix(source, generation) + host_port(address, port)


def tunnelled_prefix(source: str, generation: int = 0) -> str:
    """As `destination_prefix`, for destinations that are known to have tunnelled endpoints."""
    return _prefix(TUNNELLED, source, generation)


def requests(asked: Destination) -> str:
    """Of the listener that a destination's requests are read by, and of their table."""
    return _prefix(_REQUESTS, asked.source, asked.generation) + host_port(asked.address, asked.port)


def requests_backend(requests: str, service: str) -> str:
    """Stands for the service in the name of a cluster that is only for requests to one destination."""
    return f"{requests}|{service}"


def requests_copies(requests: str, service: str) -> str:
    """As `requests_backend`, of what sends copies there."""
    return requests_backend(f"{requests}|copies", service)


def requests_spans(requests: str, service: str) -> str:
    """As `requests_backend`, of what spans of them are sent by."""
    return requests_backend(f"{requests}|spans", service)


def requests_logs(requests: str, service: str) -> str:
    """As `requests_backend`, of what their access logs are sent by."""
    return requests_backend(f"{requests}|logs", service)


def resolved(source: str, hostname: str, port: int, generation: int = 0) -> str:
    return f"{_prefix(RESOLVED, source, generation)}{hostname}:{port}"


def forms(name: str) -> frozenset[str]:
    """All names of the destination that one of them stands for."""
    kind, _, rest = name.partition("|")
    form, _ = _kind(kind)
    if form == RESOLVED:
        return frozenset({name})
    return frozenset(f"{each}{kind.removeprefix(form)}|{rest}" for each in (ASKED, TUNNELLED))


def tunnel(identity: Identity, service: str = "") -> str:
    return f"hbone|{service}|{identity.uri}" if service else f"hbone|{identity.uri}"


def pod_requests(pod: str) -> str:
    """Stands for a service in the names of what reads requests to the pod where it is."""
    return f"pod|{pod}"


def at_pod(pod: str, service: str) -> str:
    """Stands in logs for a service whose requests are read where this pod is."""
    return f"{pod_requests(pod)}|{service}"


def parse_at_pod(text: str) -> tuple[str, str] | None:
    """Pod and service of an `at_pod`; None for anything else."""
    pod, separator, service = text.removeprefix(pod_requests("")).partition("|")
    return (pod, service) if separator and text.startswith(pod_requests("")) else None


def from_pod(pod: str, service: str) -> str:
    """Stands in logs for a service whose requests are read where they come from, at this pod."""
    return f"{_REQUESTS}|{pod}|{service}"


def parse_from_pod(text: str) -> tuple[str, str] | None:
    """Pod and service of a `from_pod`; None for anything else."""
    kind, _, rest = text.partition("|")
    pod, separator, service = rest.partition("|")
    return (pod, service) if separator and kind == _REQUESTS else None


def service_cluster(service: str, port: int) -> str:
    return f"svc|{service}|{port}"


def server_names(service: str, port: int, share: int) -> str:
    return f"names|{service}|{port}|{share}"


def stream(listener: str, rule: str) -> str:
    """Of a listener's filter chain for this rule, and of the extension that says what it does."""
    return f"{listener}#{rule}"


def service_of(name: str) -> str:
    """The key in a name of `service_cluster` or `into_service`; empty for any other."""
    kind, _, rest = name.partition("|")
    return rest.rpartition("|")[0] if kind in ("svc", "into") else ""


def into_service(service: str, port: int) -> str:
    return f"{WAY}{service}|{port}"


def tokens(subject: str) -> str:
    """`subject` is the key of a service, or the uid of a workload that is called by its own address."""
    return f"tokens|{subject}"


def gateway_port(port: int) -> str:
    return f"port|{port}"


def gateway_quic_port(port: int) -> str:
    return f"quic|{port}"


def gateway_udp_port(port: int) -> str:
    return f"udp|{port}"


def gateway_listener(port: int, listener: str) -> str:
    return f"port|{port}|{listener}"


def client_roots(listener: str) -> str:
    """Roots of the certificates that clients of a `gateway_listener` are asked for."""
    return f"{SHOWN}clients|{listener}"


def shown_certificate(secret: str) -> str:
    return f"{SHOWN}{secret}"


def allowed(subject: str, port: int) -> str:
    """`subject` as for `tokens`."""
    return f"{ALLOWED}{subject}|{port}"


def port_allowed(subject: str, name: str) -> int | None:
    """The port of `allowed`, if the name is one of this subject."""
    start, _, port = name.rpartition("|")
    return int(port) if start == f"{ALLOWED}{subject}" else None


def judged(gateway: str, port: int) -> tuple[str, str]:
    """Of what decides, and of the dry run. `gateway` is its key."""
    return f"{JUDGED}{gateway}|{port}", f"{JUDGED}{gateway}|{port}|dry-run"


def asks(subject: str, port: int, place: int = 0) -> str:
    """`subject` as for `tokens`; `place` counts those whom requests to it may have to be shown to."""
    return f"{ASKS}{subject}|{port}|{place}"


def provider(service: str, port: int, *, is_grpc: bool) -> str:
    """Of the cluster by which a proxy itself calls a service."""
    return f"own|{service}|{port}|{'grpc' if is_grpc else 'http'}"


def called_by(pod: str, provider: str) -> str:
    """As `provider`, where a node calls in the name of a pod; also of the listener that it leads to."""
    return provider.replace("|", f"|{pod_requests(pod)}|", 1)


def way_of(call: str) -> str:
    """The cluster that a `called_by` goes on to."""
    return f"{WAY}{call}"


def inner(asked: Inner) -> str:
    gateway = asked.gateway
    where = f"{gateway.namespace}/{gateway.hostname}:{gateway.port}"
    if gateway.address is not None:
        where = f"{_BY_ADDRESS}{gateway.network}/{host_port(gateway.address, gateway.port)}"
    return f"{_INNER}|{asked.family}|{asked.authority}|{asked.service}|{where}"


def server_secret(identity: Identity) -> str:
    return identity.uri


def client_secret(identity: Identity) -> str:
    return f"c|{identity.uri}"


def trace_prefix(pod: str) -> str:
    """The digits (hexadecimal) that traces of a pod's tunnels begin with; the connection's nanosecond follows."""
    return hashlib.blake2b(pod.encode(), digest_size=8).hexdigest()[:_TRACE_DIGITS]


def parse_cluster(name: str) -> Destination | Resolved | Tunnel | Inner:
    """What an on-demand cluster's name asks for. Raises ValueError for any other name."""
    kind, _, rest = name.partition("|")
    if kind == _INNER:
        return _parse_inner(rest)
    first, separator, last = rest.rpartition("|")
    form, generation = _kind(kind)
    if form == RESOLVED and separator:
        hostname, _, digits = last.rpartition(":")
        return Resolved(first, hostname, int(digits), generation)
    if form and separator:
        address, port = parse_host_port(last)
        return Destination(first, address, port, generation, tunnelled=form == TUNNELLED)
    if kind == "hbone":
        return Tunnel(Identity.parse(last), first)
    raise ValueError(f"{name!r} is not the name of an on-demand cluster")


def _parse_inner(rest: str) -> Inner:
    family, authority, service, where = rest.split("|")
    if where.startswith(_BY_ADDRESS):
        network, _, place = where.removeprefix(_BY_ADDRESS).rpartition("/")
        address, port = parse_host_port(place)
        return Inner(int(family), authority, service, GatewayAddress(port, network=network, address=address))
    namespaced, _, digits = where.rpartition(":")
    namespace, _, hostname = namespaced.partition("/")
    gateway = GatewayAddress(int(digits), namespace=namespace, hostname=hostname)
    return Inner(int(family), authority, service, gateway)


def parse_secret(name: str) -> Identity:
    """Whose certificate a secret's name asks for. Raises ValueError for any other name."""
    return Identity.parse(name.removeprefix("c|"))


def pod_of(name: str) -> str | None:
    """The key of the pod that a resource belongs to, None for resources of no single pod."""
    kind, _, rest = name.partition("|")
    if kind in {"out", "in", "plain", "local", "policy", "read-policy", "handed", "app", "hosts"}:
        return rest
    if _kind(kind)[0]:
        return rest.partition("|")[0]
    return None


def generation_of(name: str) -> int:
    """The generation of a destination's name; 0 for other names."""
    return _kind(name.partition("|")[0])[1]


def _prefix(form: str, source: str, generation: int) -> str:
    return f"{form}.{generation}|{source}|" if generation else f"{form}|{source}|"


def _kind(kind: str) -> tuple[str, int]:
    """Form and generation of a destination's kind; empty and 0 for other kinds."""
    form, dot, number = kind.partition(".")
    if form not in {ASKED, TUNNELLED, RESOLVED} or (dot and not number.isdecimal()):
        return "", 0
    return form, int(number or 0)
