"""A small mesh of names for tests of the node's DNS."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from ambit.core.identity import Identity
from ambit.model.service import IpFamilies, Service, VirtualAddress, Visibility
from ambit.model.workload import Workload, WorkloadStatus


class Names:
    """`ServiceNames` over values in memory."""

    def __init__(self, services: Iterable[Service], workloads: Iterable[Workload] = ()) -> None:
        self._services = tuple(services)
        self._workloads = tuple(workloads)

    def services_by_hostname(self, hostname: str) -> Sequence[Service]:
        return [service for service in self._services if service.hostname == hostname]

    def endpoints(self, service: Service) -> Sequence[Workload]:
        return [workload for workload in self._workloads if service.key in workload.services]


def service(
    hostname: str,
    *addresses: str,
    namespace: str = "default",
    network: str = "",
    families: IpFamilies = IpFamilies.AUTOMATIC,
    canonical: bool = False,
    prefix: int | None = None,
    visibility: Visibility = Visibility.PUBLIC,
) -> Service:
    virtual = tuple(VirtualAddress(network, ip_address(address), prefix) for address in addresses)
    return Service(
        name=hostname.partition(".")[0],
        namespace=namespace,
        hostname=hostname,
        addresses=virtual,
        ip_families=families,
        canonical=canonical,
        visibility=visibility,
    )


def workload(
    name: str,
    of: Service,
    *addresses: str,
    network: str = "",
    status: WorkloadStatus = WorkloadStatus.HEALTHY,
) -> Workload:
    return Workload(
        uid=f"cluster//Pod/default/{name}",
        name=name,
        namespace="default",
        identity=Identity("cluster.local", "default", "default"),
        addresses=tuple(ip_address(address) for address in addresses),
        network=network,
        status=status,
        services={of.key: ()},
    )
