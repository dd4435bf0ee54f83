"""Decision records: what agents tell of a connection or request, the same whoever tells. Pure."""

from enum import StrEnum

import msgspec

from ambit.core.identity import Identity
from ambit.plan.announcement import Baggage, parse_baggage

ANSWERED = "answered"
"""Value of a request's `hop`: the proxy itself did, and no endpoint was asked."""
LONGEST_PLACE = 300
"""Characters of a host with a port. Who opens a tunnel may ask for more, and records of it are kept."""


class Reporter(StrEnum):
    SOURCE = "source"
    DESTINATION = "destination"
    WAYPOINT = "waypoint"
    GATEWAY = "gateway"


class End(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One end of a connection; empty fields are not known."""

    address: str
    workload: str = ""
    """Name of the pod."""
    workload_name: str = ""
    """Name of what owns the pod, as Istio's metrics have it."""
    namespace: str = ""
    identity: str = ""
    canonical_service: str = ""
    canonical_revision: str = ""
    cluster: str = ""
    region: str = ""
    zone: str = ""
    service: str = ""
    """`<namespace>/<hostname>` that was asked for; where only the pod's address is known, one that it serves."""


class RequestPart(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a record of a request has besides. `path` is without query; all as the client asked, before any route
    changed it. `route` is the rule that led it on, `flags` and `details` are Envoy's (RESPONSE_FLAGS,
    RESPONSE_CODE_DETAILS)."""

    method: str = ""
    host: str = ""
    path: str = ""
    protocol: str = ""
    code: int = 0
    grpc_status: str = ""
    route: str = ""
    attempts: int = 0
    """How often endpoints were asked."""
    flags: str = ""
    details: str = ""
    id: str = ""
    """Its `x-request-id`."""
    trace: str = ""
    """The application's own trace (`traceparent` or B3), 32 hexadecimal digits."""


class SessionPart(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a record of a client of UDP has besides: the Gateway's listener, the rule that led it on, and datagrams from
    the client and back."""

    listener: str = ""
    route: str = ""
    received: int = 0
    sent: int = 0


class Flow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One connection as one side of it reports it, one request (`request`) as who has read it does, or what a client
    sent by UDP (`datagrams`). `time` is when it began (seconds since 1970); bytes are `received` from client to server
    and `sent` from server to client."""

    time: float
    node: str
    reporter: Reporter
    source: End
    destination: End
    hop: str = ""
    """How it went on: tunnel, same-node, direct, refused; answered (by the proxy itself)."""
    decision: str = "allow"
    policy: str = ""
    cut: bool = False
    """It was open when the policy came that denies it, and was ended then."""
    dry_run: str = ""
    """What of the dry-run policies would have denied it (only the destination tells)."""
    audited: tuple[str, ...] = ()
    """Rules of AUDIT policies that a request matches."""
    error: str = ""
    received: int = 0
    sent: int = 0
    milliseconds: float = 0.0
    trace: str = ""
    """32 hexadecimal digits that both sides' records of a tunnel have in common."""
    mutual_tls: bool = False
    """Both identities are verified (also on one node, where no TLS is needed)."""
    proxy: str = ""
    """The Gateway whose proxy reports, `<namespace>/<name>`."""
    request: RequestPart | None = None
    datagrams: SessionPart | None = None

    @property
    def failed(self) -> bool:
        return self.decision == "deny" or bool(self.error)


def peer(address: str, uri: str, said: str) -> End:
    """Who opened a tunnel with the identity `uri`: what it says of itself (`baggage`) counts as far as it does not
    contradict its certificate."""
    try:
        identity = Identity.parse(uri)
    except ValueError:
        return End(address, identity=uri)
    found = parse_baggage(said)
    if found.namespace != identity.namespace:
        found = Baggage(namespace=identity.namespace)
    return described(address, found, identity=uri)


def described(
    address: str, said: Baggage, *, workload: str = "", identity: str = "", service: str = ""
) -> End:
    """An end of which `said` is true."""
    return End(
        address,
        workload=workload,
        workload_name=said.workload_name,
        namespace=said.namespace,
        identity=identity,
        canonical_service=said.canonical_name,
        canonical_revision=said.canonical_revision,
        cluster=said.cluster,
        region=said.locality.region,
        zone=said.locality.zone,
        service=service,
    )
