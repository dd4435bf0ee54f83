"""What the node answers to one DNS question of one pod, or that the question belongs to the pod's nameserver.

Pure. Only A and AAAA questions about services are answered, with the rules of ztunnel (`dns/server.rs`). Beyond them:

- Whatever a short name may mean, Services go before other hosts, and exact hosts before patterns. A pattern matches
  names of the cluster below a namespace only. So no host takes the name of a Service of another namespace.
- A service that exists but has no address of the family asked for gets an empty answer, never "no such name", because
  resolvers take the latter as true for both families. The empty answer carries a SOA record, so that it is not
  cached longer than `NEGATIVE_TTL` (RFC 2308).
- A nameserver's chain of aliases (an ExternalName Service) that ends at a name of the mesh is finished here.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from ambit.agent.nameservers import TIMEOUT
from ambit.core.address import Address
from ambit.core.dns import CLASS_ANY, CLASS_IN, Query, Rcode, Record, Soa, Type, address_record
from ambit.core.names import CLUSTER_DOMAIN
from ambit.model.service import HealthPolicy, IpFamilies, Service
from ambit.model.workload import Workload, WorkloadStatus
from ambit.node.dns.names import Candidate, candidates, default_searches, wildcards

TTL = 30
"""Seconds; ztunnel's."""
NEGATIVE_TTL = 5
"""Seconds that the absence of an address may be remembered: endpoints come soon."""


class ServiceNames(Protocol):
    """What the mesh knows about names."""

    def services_by_hostname(self, hostname: str) -> Sequence[Service]:
        """Services with exactly this host name (lower case; may begin with `*.`), of any namespace."""
        ...

    def endpoints(self, service: Service) -> Sequence[Workload]:
        """Workloads that serve it, ready or not."""
        ...


class Client(msgspec.Struct, frozen=True):
    """The pod that asks, with the search list of its resolver; None means the kubelet's usual one."""

    namespace: str
    network: str = ""
    uid: str = ""
    searches: tuple[str, ...] | None = None


class Settings(msgspec.Struct, frozen=True):
    domain: str = CLUSTER_DOMAIN
    preferred_namespace: str = ""
    ipv6: bool = True
    """Whether AAAA questions may get addresses."""
    forward_timeout: float = TIMEOUT
    """Seconds that a pod's nameservers have together to answer one question."""


class Resolution(msgspec.Struct, frozen=True):
    """An answer from here. `service` is what the name stood for, None for a bare error."""

    rcode: Rcode = Rcode.NOERROR
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    service: Service | None = None


class Found(msgspec.Struct, frozen=True):
    """The service that a name stands for. `host` is the host name, perhaps with `*`, that knew the `candidate`."""

    service: Service
    candidate: Candidate
    host: str

    @property
    def alias(self) -> str | None:
        """The name to answer under when it is not the one asked: an exact host without a search domain."""
        return None if self.host.startswith("*.") else self.candidate.alias


def asks_for_addresses(query: Query) -> bool:
    return query.type in (Type.A, Type.AAAA) and query.klass in (CLASS_IN, CLASS_ANY) and bool(query.name)


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
    if query.edns_version != 0:
        return Resolution(Rcode.BADVERS)
    if not asks_for_addresses(query):
        return None
    found = find(query.name, client, view, settings)
    if found is None:
        return None
    aliases = () if found.alias is None else (Record(query.name, TTL, found.alias, Type.CNAME),)
    return _resolution(query, aliases, found.service, client, view, settings, shuffle)


def finish(
    query: Query,
    chain: tuple[Record, ...],
    client: Client,
    view: ServiceNames,
    settings: Settings,
    shuffle: Callable[[list[Address]], None],
) -> Resolution | None:
    """The answer to a question that a nameserver answered with these aliases only; None when the mesh does not know
    where they lead. An alias is a whole name: nothing is made of a short one."""
    end = str(chain[-1].data)
    service = _choose(view.services_by_hostname(end), client, settings)
    if service is None:
        matched = _matched(end, client, view, settings)
        if matched is None:
            return None
        service = matched[0]
    return _resolution(query, chain, service, client, view, settings, shuffle)


def find(asked: str, client: Client, view: ServiceNames, settings: Settings) -> Found | None:
    """The service that a name stands for when this client asks."""
    searches = client.searches
    if searches is None:
        searches = default_searches(client.namespace, settings.domain)
    several = tuple(candidates(asked, client.namespace, settings.domain, searches))
    services = f".svc.{settings.domain}"
    for candidate in sorted(several, key=lambda each: not each.name.endswith(services)):
        service = _choose(view.services_by_hostname(candidate.name), client, settings)
        if service is not None:
            return Found(service, candidate, candidate.name)
    for candidate in several:
        matched = _matched(candidate.name, client, view, settings)
        if matched is not None:
            return Found(matched[0], candidate, matched[1])
    return None


def _matched(name: str, client: Client, view: ServiceNames, settings: Settings) -> tuple[Service, str] | None:
    """The service of the most specific pattern. A name of the cluster is matched inside its namespace only."""
    services = f".svc.{settings.domain}"
    inside = f".{name}".endswith(f".{settings.domain}")
    for host in wildcards(name):
        if inside and (host == f"*{services}" or not host.endswith(services)):
            return None
        service = _choose(view.services_by_hostname(host), client, settings)
        if service is not None:
            return service, host
    return None


def _resolution(
    query: Query,
    aliases: tuple[Record, ...],
    service: Service,
    client: Client,
    view: ServiceNames,
    settings: Settings,
    shuffle: Callable[[list[Address]], None],
) -> Resolution:
    owner = str(aliases[-1].data) if aliases else query.name
    found = addresses(service, 4 if query.type == Type.A else 6, client, view, settings)
    shuffle(found)
    records = tuple(address_record(owner, TTL, address) for address in found)
    absent = () if found else (_start_of_authority(owner, service, settings),)
    return Resolution(answers=(*aliases, *records), authorities=absent, service=service)


def _start_of_authority(owner: str, service: Service, settings: Settings) -> Record:
    """Of the zone that the name is in: the cluster's, or one that begins at the host of a ServiceEntry."""
    host = service.hostname.removeprefix("*.")
    zone = settings.domain if host.endswith(f".{settings.domain}") else host
    if owner != zone and not owner.endswith(f".{zone}"):
        zone = owner
    domain = settings.domain
    soa = Soa(f"ns.dns.{domain}", f"hostmaster.{domain}", 1, 7200, 1800, 86400, NEGATIVE_TTL)
    return Record(zone, NEGATIVE_TTL, soa, Type.SOA)


def _choose(services: Iterable[Service], client: Client, settings: Settings) -> Service | None:
    """Of those that the client may see: a Kubernetes Service first, then its namespace's, then the canonical one, then
    the preferred namespace's, then any."""
    suffix = f".svc.{settings.domain}"
    usable = [
        service
        for service in services
        if service.is_visible_to(client.namespace) and (_hosts(service) or service.hostname.endswith(suffix))
    ]
    return min(
        usable,
        key=lambda service: (
            not service.is_kubernetes,
            service.namespace != client.namespace,
            not service.canonical,
            service.namespace != settings.preferred_namespace,
            service.key,
        ),
        default=None,
    )


def _hosts(service: Service) -> bool:
    return any(virtual.prefix is None for virtual in service.addresses)


def addresses(
    service: Service, version: int, client: Client, view: ServiceNames, settings: Settings
) -> list[Address]:
    """Of this IP version, for this client: virtual ones, or the ready endpoints' when the service has none."""
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
