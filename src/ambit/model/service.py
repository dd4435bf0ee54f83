"""A service: a name, virtual addresses and ports. Its endpoints are found on workloads."""

from enum import IntEnum

import msgspec

from ambit.core.address import Address
from ambit.model.backend_tls import BackendTls
from ambit.model.http import SessionPersistence
from ambit.model.inline_rules import InlineRules, closing
from ambit.model.policy import Authorization
from ambit.model.proxy import ServiceRoutes
from ambit.model.telemetry import InlineTelemetry
from ambit.model.workload import GatewayAddress, Port, Workload


class IpFamilies(IntEnum):
    AUTOMATIC = 0
    IPV4_ONLY = 1
    IPV6_ONLY = 2
    DUAL = 3


class Scope(IntEnum):
    """Locality levels of `LoadBalancing.routing_preference`."""

    REGION = 1
    ZONE = 2
    SUBZONE = 3
    NODE = 4
    CLUSTER = 5
    NETWORK = 6


class BalancingMode(IntEnum):
    UNSPECIFIED = 0
    STRICT = 1
    FAILOVER = 2
    PASSTHROUGH = 3


class HealthPolicy(IntEnum):
    ONLY_HEALTHY = 0
    ALLOW_ALL = 1


class AppProtocol(IntEnum):
    UNKNOWN = 0
    HTTP11 = 1
    HTTP2 = 2
    GRPC = 3
    TCP = 4
    TLS = 5


HTTP = frozenset({AppProtocol.HTTP11, AppProtocol.HTTP2, AppProtocol.GRPC})
"""Protocols of requests."""


class Visibility(IntEnum):
    """Who may see a service: everybody, or its own namespace."""

    PUBLIC = 0
    NAMESPACE = 1


class LoadBalancing(msgspec.Struct, frozen=True):
    routing_preference: tuple[Scope, ...] = ()
    mode: BalancingMode = BalancingMode.UNSPECIFIED
    health_policy: HealthPolicy = HealthPolicy.ONLY_HEALTHY


class WeightedWaypoint(msgspec.Struct, frozen=True):
    """One of several waypoints of a service and its part of the connections."""

    gateway: GatewayAddress
    weight: int


class VirtualAddress(msgspec.Struct, frozen=True, order=True):
    """One virtual address of a service; `prefix` is given when it is a CIDR rather than a host."""

    network: str
    address: Address
    prefix: int | None = None


class RetryBudget(msgspec.Struct, frozen=True):
    """Of the requests to a service that one proxy has under way, `percent` may be retries; `at_least` so many may be in
    any case."""

    percent: int
    at_least: int


class ServerNames(msgspec.Struct, frozen=True):
    """Where names in clients' hellos may lead to beside public addresses (`ambit.model.server_names`): ranges in their
    usual form. To `own` addresses of the cluster they never lead."""

    ranges: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


class Service(msgspec.Struct, frozen=True):
    """`hostname` is fully qualified. `app_protocols` maps service port to protocol, `backend_tls` to the TLS that L7
    proxies speak to its servers. With `session_affinity` all connections of one client address go to one endpoint.
    With `ingress_use_waypoint` gateways go through the waypoint as well.
    `inline`: requests are routed where they come from, by these tables of its ports; None where they are not. With
    `rules` its pods' own nodes read them and enforce these, or tell what they match where none of them is `enforced`.
    `telemetry`: what those who read them tell."""

    name: str
    namespace: str
    hostname: str
    addresses: tuple[VirtualAddress, ...] = ()
    ports: tuple[Port, ...] = ()
    app_protocols: dict[int, AppProtocol] = {}
    subject_alt_names: tuple[str, ...] = ()
    waypoint: GatewayAddress | None = None
    load_balancing: LoadBalancing | None = None
    ip_families: IpFamilies = IpFamilies.AUTOMATIC
    canonical: bool = False
    visibility: Visibility = Visibility.PUBLIC
    session_affinity: bool = False
    weighted_waypoints: tuple[WeightedWaypoint, ...] = ()
    ingress_use_waypoint: bool = False
    backend_tls: dict[int, BackendTls] = {}
    retry_budget: RetryBudget | None = None
    session: SessionPersistence | None = None
    """Of requests for which no route says another."""
    inline: tuple[ServiceRoutes, ...] | None = None
    rules: InlineRules | None = None
    telemetry: InlineTelemetry | None = None
    server_names: ServerNames | None = None
    """Its waypoint leads connections to the hosts that clients' hellos name, of those that `hostname` stands for."""

    @property
    def key(self) -> str:
        """Its resource name in the workload API."""
        return f"{self.namespace}/{self.hostname}"

    @property
    def is_kubernetes(self) -> bool:
        """Whether it is a Kubernetes Service: canonical, and called after itself. No ServiceEntry ever is both."""
        return self.canonical and self.hostname.startswith(f"{self.name}.{self.namespace}.svc.")

    @property
    def single_addresses(self) -> tuple[Address, ...]:
        """Those of `addresses` that are no ranges, in whatever network."""
        return tuple(each.address for each in self.addresses if each.prefix is None)

    @property
    def has_waypoint(self) -> bool:
        """Whether connections must go through one of `waypoints`, of which there may be none that can be used."""
        return self.waypoint is not None or bool(self.weighted_waypoints)

    @property
    def waypoints(self) -> tuple[WeightedWaypoint, ...]:
        """The waypoints that connections go through, each with its part. `waypoint` counts when no other has one
        (ztunnel `state.rs::sample_weighted_waypoint`)."""
        weighted = tuple(each for each in self.weighted_waypoints if each.weight)
        alone = (WeightedWaypoint(self.waypoint, 1),) if self.waypoint is not None else ()
        return weighted or alone

    def target_port(self, workload: Workload, port: int) -> int:
        """A workload's port behind one of the service's; 0 when it serves none."""
        for each in (*workload.services.get(self.key, ()), *self.ports):
            if each.service == port and each.target:
                return each.target
        return 0

    def inline_routes(self, port: int) -> ServiceRoutes | None:
        """The table by which callers' own proxies route requests to this port (one without hosts for its endpoints);
        None where they do not: the port's protocol does not say HTTP, and it has no route."""
        if self.inline is None:
            return None
        found = next((each for each in self.inline if each.port == port), None)
        is_http = self.app_protocols.get(port) in HTTP
        return found or (ServiceRoutes(self.key, port) if is_http else None)

    @property
    def enforced(self) -> InlineRules | None:
        """Its `rules`, if they may refuse something."""
        return self.rules if self.rules is not None and self.rules.forbid else None

    def closing(self, workload: Workload) -> Authorization | None:
        """What stands for `rules` at a pod where nobody enforces them; None when there is nothing to enforce."""
        ports = self._targets(workload)
        if not ports or self.enforced is None:
            return None
        return closing(self.name, workload.namespace, ports, asks=self.enforced.ask)

    def lifted(self, workload: Workload) -> frozenset[str]:
        """Keys of all policies that stand for whatever `rules` the service has: a pod may have that of its former
        rules a moment longer."""
        ports = self._targets(workload)
        if not ports or self.enforced is None:
            return frozenset()
        both = (closing(self.name, workload.namespace, ports, asks=each) for each in (False, True))
        return frozenset(each.key for each in both)

    def _targets(self, workload: Workload) -> tuple[int, ...]:
        return tuple(sorted({each.target for each in workload.services.get(self.key, ()) if each.target}))

    @property
    def lets_pass(self) -> bool:
        """Whether connections go on to the address that was dialled."""
        balancing = self.load_balancing
        return balancing is not None and balancing.mode is BalancingMode.PASSTHROUGH and not self.has_waypoint

    def is_visible_to(self, namespace: str) -> bool:
        """Whether clients there get to know of it. For others it does not exist."""
        return self.visibility is Visibility.PUBLIC or self.namespace == namespace
