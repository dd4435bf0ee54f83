"""A workload: one pod (or WorkloadEntry) with addresses and an identity.

Field for field what the workload API carries (`istio.workload.Workload`), as Python values.
"""

from enum import IntEnum

import msgspec

from ambit.core.address import Address
from ambit.core.identity import Identity
from ambit.core.names import CLOSED_WITHOUT_WAYPOINT, UNUSABLE_WAYPOINT


class TunnelProtocol(IntEnum):
    NONE = 0
    HBONE = 1


class WorkloadStatus(IntEnum):
    HEALTHY = 0
    UNHEALTHY = 1


class WorkloadType(IntEnum):
    DEPLOYMENT = 0
    CRONJOB = 1
    POD = 2
    JOB = 3


class NetworkMode(IntEnum):
    STANDARD = 0
    HOST_NETWORK = 1


class TunnelledAs(IntEnum):
    """What an application behind a tunnel is told of it: nothing, or the PROXY protocol in front of the bytes."""

    NONE = 0
    PROXY = 1


class Port(msgspec.Struct, frozen=True, order=True):
    """Service port to the port on this endpoint; `target` 0 means a named port that is unknown here."""

    service: int
    target: int


class GatewayAddress(msgspec.Struct, frozen=True):
    """Where a waypoint or network gateway is: a service (namespace, hostname) or a network address."""

    port: int
    namespace: str = ""
    hostname: str = ""
    network: str = ""
    address: Address | None = None

    @property
    def refusal(self) -> tuple[str, str] | None:
        """For a name that nobody has: which waypoint is meant (`<namespace>/<name>`, empty where there is none), and
        why nothing gets there."""
        if self.hostname.endswith(f".{UNUSABLE_WAYPOINT}"):
            name = self.hostname.removesuffix(f".{UNUSABLE_WAYPOINT}").removesuffix(f".{self.namespace}")
            return f"{self.namespace}/{name}", "not usable"
        if self.hostname.endswith(f".{CLOSED_WITHOUT_WAYPOINT}"):
            return "", "closed by a policy"
        return None


class ApplicationTunnel(msgspec.Struct, frozen=True):
    """How what arrives through tunnels is handed to the application, a waypoint behind a node proxy. `port`: which of
    its ports takes it all; 0 the one that was asked for."""

    protocol: TunnelledAs = TunnelledAs.NONE
    port: int = 0


class Locality(msgspec.Struct, frozen=True):
    region: str = ""
    zone: str = ""
    subzone: str = ""


class Workload(msgspec.Struct, frozen=True):
    """`uid` is istiod's form `<cluster>//Pod/<namespace>/<name>`; `services` maps `<namespace>/<hostname>`
    to the ports this workload serves it on; `policies` are names of selector-scoped Authorizations
    (`<namespace>/<name>`)."""

    uid: str
    name: str
    namespace: str
    identity: Identity
    addresses: tuple[Address, ...] = ()
    hostname: str = ""
    network: str = ""
    tunnel: TunnelProtocol = TunnelProtocol.NONE
    waypoint: GatewayAddress | None = None
    network_gateway: GatewayAddress | None = None
    node: str = ""
    canonical_name: str = ""
    canonical_revision: str = ""
    workload_type: WorkloadType = WorkloadType.POD
    workload_name: str = ""
    native_tunnel: bool = False
    policies: tuple[str, ...] = ()
    status: WorkloadStatus = WorkloadStatus.HEALTHY
    cluster_id: str = ""
    services: dict[str, tuple[Port, ...]] = {}
    locality: Locality = Locality()
    network_mode: NetworkMode = NetworkMode.STANDARD
    capacity: int = 1
    application_tunnel: ApplicationTunnel | None = None

    @property
    def key(self) -> str:
        """Its resource name in the workload API."""
        return self.uid

    @property
    def is_pod(self) -> bool:
        return self.uid.partition("/")[2].startswith("/Pod/")
