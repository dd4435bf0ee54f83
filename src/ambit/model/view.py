"""Questions about the mesh that a node proxy's configuration depends on, and a simple in-memory answer.

`MeshView` is what `ambit.plan` reads. The node agent answers from its state file; `Snapshot` says the same in the
plainest way, for meshes that fit in memory and as the standard that the state file is tested against.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from ambit.core.address import Address, Network, outer_network, sorted_networks
from ambit.model.policy import Authorization, Scope
from ambit.model.service import Service
from ambit.model.workload import NetworkMode, TunnelProtocol, Workload


class MeshView(Protocol):
    """Lookups by the keys of the workload API. Nothing is copied; answers are frozen values."""

    def workload(self, uid: str) -> Workload | None:
        """The workload with this resource name."""

    def workload_by_address(self, network: str, address: Address) -> Workload | None:
        """Whose address it is, by `preference` when several say so; host-network workloads are not found by address
        (ztunnel `state.rs`)."""

    def service(self, key: str) -> Service | None:
        """The service named `<namespace>/<hostname>`."""

    def service_by_address(
        self, network: str, address: Address, *, client_namespace: str = ""
    ) -> Service | None:
        """The service with this virtual address. Exact addresses go before CIDRs, longer CIDRs before
        shorter; between equals a Kubernetes Service, then the client's namespace, then the canonical one, then the
        first by key. One that the client may not see does not count."""

    def has_address(self, network: str, address: Address) -> bool:
        """Whether a service or workload has exactly this address, whoever may see it."""

    def endpoints(self, service: Service) -> Sequence[Workload]:
        """Workloads that name the service, ready or not, in order of uid."""

    def policies_for(self, workload: Workload) -> tuple[tuple[Authorization, ...], tuple[str, ...]]:
        """Authorizations that apply to a destination (global, its namespace's, those it names), in order of
        key, and the names it gives that are not known: such a workload accepts nothing."""

    def outer_networks(self, network: str) -> tuple[Network, ...]:
        """Networks outside `ambit.core.address.INNER_NETWORKS` in which the mesh has an address (`outer_network`
        of each), sorted. A destination in neither belongs to nobody in the mesh."""


class Snapshot:
    """A `MeshView` over values in memory; immutable once made."""

    def __init__(
        self,
        workloads: Iterable[Workload] = (),
        services: Iterable[Service] = (),
        authorizations: Iterable[Authorization] = (),
    ) -> None:
        self._workloads = {workload.uid: workload for workload in workloads}
        self._services = {service.key: service for service in services}
        self._authorizations = {policy.key: policy for policy in authorizations}
        self._by_address = {
            (workload.network, address): workload
            for workload in sorted(self._workloads.values(), key=preference, reverse=True)
            if workload.network_mode == NetworkMode.STANDARD
            for address in workload.addresses
        }
        self._endpoints: dict[str, list[Workload]] = {}
        for workload in sorted(self._workloads.values(), key=lambda each: each.uid):
            for key in workload.services:
                self._endpoints.setdefault(key, []).append(workload)

    def workload(self, uid: str) -> Workload | None:
        return self._workloads.get(uid)

    def workload_by_address(self, network: str, address: Address) -> Workload | None:
        return self._by_address.get((network, address))

    def service(self, key: str) -> Service | None:
        return self._services.get(key)

    def service_by_address(
        self, network: str, address: Address, *, client_namespace: str = ""
    ) -> Service | None:
        return select_service(self._services.values(), network, address, client_namespace)

    def has_address(self, network: str, address: Address) -> bool:
        return (network, address) in self._by_address or any(
            (each.network, each.address, each.prefix) == (network, address, None)
            for service in self._services.values()
            for each in service.addresses
        )

    def endpoints(self, service: Service) -> Sequence[Workload]:
        return tuple(self._endpoints.get(service.key, ()))

    def policies_for(self, workload: Workload) -> tuple[tuple[Authorization, ...], tuple[str, ...]]:
        named = set(workload.policies)
        policies = tuple(
            policy
            for key, policy in sorted(self._authorizations.items())
            if policy.scope == Scope.GLOBAL
            or (policy.scope == Scope.NAMESPACE and policy.namespace == workload.namespace)
            or (policy.scope == Scope.WORKLOAD_SELECTOR and key in named)
        )
        return policies, tuple(sorted(named - self._authorizations.keys()))

    def outer_networks(self, network: str) -> tuple[Network, ...]:
        hosts = (address for name, address in self._by_address if name == network)
        virtual = (
            (each.address, each.prefix)
            for service in self._services.values()
            for each in service.addresses
            if each.network == network
        )
        found = {outer_network(address) for address in hosts} | {outer_network(*each) for each in virtual}
        return sorted_networks(each for each in found if each is not None)


def preference(workload: Workload) -> tuple[bool, bool, str]:
    """Sorts workloads that say they have one address: pods before others, then HBONE before plain, then by uid
    (ztunnel `state/workload.rs`)."""
    return (not workload.is_pod, workload.tunnel is not TunnelProtocol.HBONE, workload.uid)


def holder(
    view: MeshView, network: str, address: Address, *, client_namespace: str = ""
) -> Service | Workload | None:
    """Whom connections to an address are for. A pod's own address goes before every service: whatever somebody writes
    about it, the way there has identity and policy. The address of another workload goes before a range, and before a
    service that only lets connections go on to where they were going."""
    service = view.service_by_address(network, address, client_namespace=client_namespace)
    workload = view.workload_by_address(network, address)
    if service is None or workload is None:
        return service or workload
    exact = any(each.prefix is None and each.address == address for each in service.addresses)
    return service if exact and not workload.is_pod and not service.lets_pass else workload


def select_service(
    candidates: Iterable[Service], network: str, address: Address, client_namespace: str
) -> Service | None:
    """The best of `candidates` that has this virtual address, by the order of
    `MeshView.service_by_address`."""
    found: list[tuple[tuple[int, bool, bool, bool, str], Service]] = []
    for service in candidates:
        if not service.is_visible_to(client_namespace):
            continue
        for virtual in service.addresses:
            if virtual.network != network or virtual.address.version != address.version:
                continue
            length = address.max_prefixlen if virtual.prefix is None else virtual.prefix
            shift = address.max_prefixlen - length
            if int(virtual.address) >> shift == int(address) >> shift:
                rank = (
                    -length,
                    not service.is_kubernetes,
                    service.namespace != client_namespace,
                    not service.canonical,
                    service.key,
                )
                found.append((rank, service))
    return min(found, key=lambda each: each[0])[1] if found else None
