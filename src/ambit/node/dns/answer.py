"""What the node answers to one DNS question of one pod, or that the question belongs to the pod's nameserver.

Pure. Only A and AAAA questions about services are answered, with the rules of ztunnel (`dns/server.rs`); a
service that exists but has no address of the family asked for gets an empty answer, never "no such name",
because resolvers take the latter as true for both families.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from ambit.core.address import Address
from ambit.core.dns import CLASS_ANY, CLASS_IN, Query, Rcode, Record, Type, address_record
from ambit.core.names import CLUSTER_DOMAIN
from ambit.model.service import HealthPolicy, IpFamilies, Service
from ambit.model.workload import Workload, WorkloadStatus
from ambit.node.dns.names import Candidate, candidates, default_searches, wildcards

TTL = 30
"""Seconds; ztunnel's."""


class ServiceNames(Protocol):
    """What the mesh knows about names."""

    def services_by_hostname(self, hostname: str) -> Sequence[Service]:
        """Services with exactly this host name (lower case; may begin with `*.`), of any namespace."""
        ...

    def endpoints(self, service: Service) -> Sequence[Workload]:
        """Workloads that serve it, ready or not."""
        ...


class Client(msgspec.Struct, frozen=True):
    """The pod that asks. `searches` empty means kubelet's search list."""

    namespace: str
    network: str = ""
    uid: str = ""
    searches: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True):
    domain: str = CLUSTER_DOMAIN
    preferred_namespace: str = ""
    ipv6: bool = True
    """Whether AAAA questions may get addresses."""


class Resolution(msgspec.Struct, frozen=True):
    """An answer from here. `service` is what the name stood for, None for a bare error."""

    rcode: Rcode = Rcode.NOERROR
    answers: tuple[Record, ...] = ()
    service: Service | None = None


def answer(
    query: Query,
    client: Client,
    view: ServiceNames,
    settings: Settings,
    shuffle: Callable[[list[Address]], None],
) -> Resolution | None:
    """The answer, or None when the question is to be forwarded. `shuffle` reorders a list in place."""
    if query.opcode != 0:
        return Resolution(Rcode.NOTIMP)
    if query.type not in (Type.A, Type.AAAA) or query.klass not in (CLASS_IN, CLASS_ANY) or not query.name:
        return None
    found = _find(query.name, client, view, settings)
    if found is None:
        return None
    service, alias = found
    addresses = _addresses(service, 4 if query.type == Type.A else 6, client, view, settings)
    shuffle(addresses)
    owner = alias or query.name
    records = [address_record(owner, TTL, address) for address in addresses]
    if alias is not None:
        records.insert(0, Record(query.name, TTL, alias, Type.CNAME))
    return Resolution(answers=tuple(records), service=service)


def _find(
    asked: str, client: Client, view: ServiceNames, settings: Settings
) -> tuple[Service, str | None] | None:
    """The service that the name stands for, and the alias to answer under."""
    searches = client.searches or default_searches(client.namespace, settings.domain)
    for candidate in candidates(asked, client.namespace, settings.domain, searches):
        service = _choose(view.services_by_hostname(candidate.name), client, settings)
        if service is not None:
            return service, candidate.alias
        service = _by_wildcard(candidate, client, view, settings)
        if service is not None:
            return service, None
    return None


def _by_wildcard(
    candidate: Candidate, client: Client, view: ServiceNames, settings: Settings
) -> Service | None:
    for pattern in wildcards(candidate.name):
        service = _choose(view.services_by_hostname(pattern), client, settings)
        if service is not None:
            return service
    return None


def _choose(services: Iterable[Service], client: Client, settings: Settings) -> Service | None:
    """The client's namespace first, then the canonical one, then the preferred namespace, then any."""
    suffix = f".svc.{settings.domain}"
    usable = [service for service in services if _hosts(service) or service.hostname.endswith(suffix)]
    return min(
        usable,
        key=lambda service: (
            service.namespace != client.namespace,
            not service.canonical,
            service.namespace != settings.preferred_namespace,
            service.key,
        ),
        default=None,
    )


def _hosts(service: Service) -> bool:
    return any(virtual.prefix is None for virtual in service.addresses)


def _addresses(
    service: Service, version: int, client: Client, view: ServiceNames, settings: Settings
) -> list[Address]:
    if version == 6 and (not settings.ipv6 or service.ip_families == IpFamilies.IPV4_ONLY):
        return []
    if version == 4 and service.ip_families == IpFamilies.IPV6_ONLY:
        return []
    if _hosts(service):
        return [
            virtual.address
            for virtual in service.addresses
            if virtual.prefix is None
            and virtual.network == client.network
            and virtual.address.version == version
        ]
    everybody = (
        service.load_balancing is not None and service.load_balancing.health_policy == HealthPolicy.ALLOW_ALL
    )
    found: list[Address] = []
    for workload in view.endpoints(service):
        if workload.network != client.network:
            continue
        if everybody or workload.status == WorkloadStatus.HEALTHY:
            found += [address for address in workload.addresses if address.version == version][:1]
    return found
