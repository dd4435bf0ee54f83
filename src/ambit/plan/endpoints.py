"""Which workloads a connection to a service may go to (ztunnel `state.rs::load_balance`).

An endpoint counts when it is healthy (or the service allows all), serves the port, and can be reached: it lies in this
network and has an address of a family that the service has, or a name that can be resolved; or it lies in another
network that has a gateway. Preference walks the service's scopes and stops at the first
mismatch; STRICT keeps full matches only, FAILOVER the best rank only. Where the caller is, the given settings say
(`ambit.plan.values.place_of`). Choice among those left is Envoy's, weighted by
capacity; of a service with session affinity it is made here, by the client's address.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from typing import Protocol, TypeVar

import msgspec

from ambit.core.address import Address
from ambit.model.service import BalancingMode, HealthPolicy, IpFamilies, LoadBalancing, Scope, Service
from ambit.model.view import MeshView
from ambit.model.workload import GatewayAddress, TunnelProtocol, Workload, WorkloadStatus
from ambit.plan.values import NodeSettings

_VERSIONS = {IpFamilies.IPV4_ONLY: (4,), IpFamilies.IPV6_ONLY: (6,)}


class Choice(msgspec.Struct, frozen=True):
    workload: Workload
    address: Address
    port: int


class NamedChoice(msgspec.Struct, frozen=True):
    """An endpoint without an address, to be resolved by its workload's host name."""

    workload: Workload
    port: int


class RemoteChoice(msgspec.Struct, frozen=True):
    """An endpoint of another network, to be reached through that network's `gateway`."""

    workload: Workload
    gateway: GatewayAddress


AnyChoice = Choice | NamedChoice | RemoteChoice


class _OfWorkload(Protocol):
    @property
    def workload(self) -> Workload: ...


T = TypeVar("T", bound=_OfWorkload)


class Sought(Enum):
    """What an endpoint is looked for: to serve, to be the waypoint of what is served, or to be the gateway of another
    network, which lies there and has an address here."""

    SERVER = auto()
    WAYPOINT = auto()
    GATEWAY = auto()


def all_choices(
    service: Service,
    port: int,
    family: int,
    view: MeshView,
    settings: NodeSettings,
    sought: Sought = Sought.SERVER,
) -> tuple[AnyChoice, ...]:
    """Endpoints for `port` of `service`, in order of uid; `family` (4 or 6) is preferred among addresses."""
    balancing = service.load_balancing or LoadBalancing()
    found: list[AnyChoice] = []
    for workload in view.endpoints(service):
        target = service.target_port(workload, port)
        if not target and sought is Sought.WAYPOINT and workload.application_tunnel is not None:
            # Nobody asks this service for the port: its node hands everything to the application's own.
            target = port
        if not target or not _is_usable(workload, balancing):
            continue
        choice = _choice(service, workload, target, family, settings, sought)
        if choice is not None:
            found.append(choice)
    return tuple(_nearest(found, balancing, settings))


def _choice(
    service: Service, workload: Workload, port: int, family: int, settings: NodeSettings, sought: Sought
) -> AnyChoice | None:
    if workload.network != settings.network and sought is not Sought.GATEWAY:
        return RemoteChoice(workload, workload.network_gateway) if workload.network_gateway else None
    allowed = _VERSIONS.get(service.ip_families, (4, 6))
    address = preferred_address((each for each in workload.addresses if each.version in allowed), family)
    if address is not None:
        return Choice(workload, address, port)
    # A name is resolved by the proxy, which then dials it as it is: not where a tunnel is wanted.
    if workload.hostname and workload.tunnel is TunnelProtocol.NONE:
        return NamedChoice(workload, port)
    return None


def choices(
    service: Service, port: int, family: int, view: MeshView, settings: NodeSettings
) -> tuple[Choice, ...]:
    """Those of `all_choices` that have an address."""
    found = all_choices(service, port, family, view, settings)
    return tuple(each for each in found if isinstance(each, Choice))


def for_client(service: Service, addresses: Iterable[Address], found: Sequence[T]) -> tuple[T, ...]:
    """Those of `found` that a client with these addresses gets: all, or with session affinity always the same one, on
    every node, after every restart, for all ports and families. When another endpoint goes nobody moves; a new one
    takes over its own share of clients only, by capacity (weighted rendezvous hashing, Schindelhauer and Schomaker
    2005)."""
    client = preferred_address(addresses, 4)

    def score(choice: T) -> tuple[float, str]:
        uid = choice.workload.uid
        drawn = int.from_bytes(hashlib.blake2b(f"{client}|{uid}".encode(), digest_size=6).digest()) + 1
        # Between 0 and 1, both excluded: 49 bits are exact in a float.
        return choice.workload.capacity / -math.log(drawn / ((1 << 48) + 1)), uid

    return (max(found, key=score),) if service.session_affinity and found else tuple(found)


def preferred_address(addresses: Iterable[Address], family: int) -> Address | None:
    """One of `addresses`, of this family if there is one."""
    return min(addresses, key=lambda each: each.version != family, default=None)


def _is_usable(workload: Workload, balancing: LoadBalancing) -> bool:
    healthy = workload.status == WorkloadStatus.HEALTHY or balancing.health_policy == HealthPolicy.ALLOW_ALL
    return healthy and workload.capacity > 0


def _nearest(found: list[AnyChoice], balancing: LoadBalancing, settings: NodeSettings) -> list[AnyChoice]:
    preference = balancing.routing_preference
    if not preference or balancing.mode not in {BalancingMode.STRICT, BalancingMode.FAILOVER}:
        return found
    ranks = [_rank(choice.workload, preference, settings) for choice in found]
    full = (preference[0] is Scope.NETWORK, len(preference))
    wanted = full if balancing.mode == BalancingMode.STRICT else max(ranks, default=full)
    return [choice for choice, rank in zip(found, ranks, strict=True) if rank == wanted]


def _rank(workload: Workload, preference: tuple[Scope, ...], settings: NodeSettings) -> tuple[bool, int]:
    """How many scopes match. Where the network comes first, it goes before everything else, and the others still
    count in other networks."""
    first = preference[0] is Scope.NETWORK
    in_network = first and _matches(workload, Scope.NETWORK, settings)
    rank = 0
    for scope in preference:
        if first and scope is Scope.NETWORK and not in_network:
            continue
        if not _matches(workload, scope, settings):
            break
        rank += 1
    return in_network, rank


def _matches(workload: Workload, scope: Scope, settings: NodeSettings) -> bool:
    locality = workload.locality
    match scope:
        case Scope.REGION:
            return locality.region == settings.region
        case Scope.ZONE:
            return locality.zone == settings.zone
        case Scope.SUBZONE:
            return locality.subzone == settings.subzone
        case Scope.NODE:
            return workload.node == settings.node
        case Scope.CLUSTER:
            return workload.cluster_id == settings.cluster_id
        case Scope.NETWORK:
            return workload.network == settings.network
