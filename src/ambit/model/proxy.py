"""L7 proxies, and what each does with which traffic."""

from enum import Enum

import msgspec

from ambit.core.finding import ObjectRef
from ambit.core.identity import Identity
from ambit.model.http import Host


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


class Listener(msgspec.Struct, frozen=True):
    """One listener of a gateway, accepted and with its routes. `hostname` is empty for any."""

    name: str
    port: int
    protocol: Protocol
    hostname: str = ""
    hosts: tuple[Host, ...] = ()


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


class ServiceRoutes(msgspec.Struct, frozen=True):
    """What the waypoint of a service does with requests to one of its ports. A port without one goes to the
    service's own endpoints; so does a request that no entry of an empty table matches."""

    service: str
    port: int
    hosts: tuple[Host, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.service}:{self.port}"
