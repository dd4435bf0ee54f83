"""The names of a cluster: which records the zone `cluster.local` and its reverse zones hold.

Pure. Schema: Kubernetes DNS-Based Service Discovery 1.1.0; where that leaves a choice (Pod names, what a name
between two existing ones answers), what CoreDNS does in a cluster made by kubeadm.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

import msgspec

from ambit.core.address import Address
from ambit.core.dns import Query, Rcode, Record, Soa, Srv, Type, address_record
from ambit.core.names import CLUSTER_DOMAIN
from ambit.local.fabric.services import Endpoint, EndpointSlice, Service, ServicePort, SlicesByService

TTL = 5
"""Seconds, of answers and of their absence: pods come and go quickly here."""


class Reply(msgspec.Struct, frozen=True):
    """What the zone says. Nothing found still has `rcode` NOERROR when the name exists."""

    rcode: Rcode
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()


class Zone:
    """A snapshot of the names; cheap to make, so it is made anew after a change."""

    def __init__(
        self, services: Iterable[Service], slices: SlicesByService, domain: str = CLUSTER_DOMAIN
    ) -> None:
        self._services = {service.key: service for service in services}
        self._slices = slices
        self._domain = domain
        self._namespaces = {namespace for namespace, _ in self._services}
        self._reverse: dict[Address, str] | None = None
        mailbox = f"hostmaster.{domain}"
        soa = Soa(f"ns.dns.{domain}", mailbox, 1, 7200, 1800, 86400, TTL)
        self._soa = Record(domain, TTL, soa, Type.SOA)

    def answer(self, query: Query) -> Reply | None:
        """The reply to a question, or None when its name is not of this cluster."""
        name = query.name
        if name == self._domain or name.endswith(f".{self._domain}"):
            return self._forward(query)
        address = _reverse_address(name)
        if address is None:
            return None
        if self._reverse is None:
            self._reverse = dict(self._reverse_names())
        target = self._reverse.get(address)
        if target is None:
            return None
        records = (Record(name, TTL, target, Type.PTR),) if query.type in (Type.PTR, Type.ANY) else ()
        return Reply(Rcode.NOERROR, records)

    def _forward(self, query: Query) -> Reply:
        labels = query.name[: -len(self._domain)].rstrip(".").split(".")
        match labels:
            case [""]:
                if query.type in (Type.SOA, Type.ANY):
                    return Reply(Rcode.NOERROR, (self._soa,))
                return self._nothing()
            case ["svc"] | ["pod"]:
                return self._nothing()
            case [namespace, "svc" | "pod"]:
                return self._nothing() if namespace in self._namespaces else self._unknown()
            case [dashed, namespace, "pod"]:
                return self._pod(query, dashed, namespace)
            case [*front, service, namespace, "svc"]:
                found = self._services.get((namespace, service))
                return self._unknown() if found is None else self._service(query, found, front)
            case _:
                return self._unknown()

    def _nothing(self) -> Reply:
        return Reply(Rcode.NOERROR, authorities=(self._soa,))

    def _unknown(self) -> Reply:
        return Reply(Rcode.NXDOMAIN, authorities=(self._soa,))

    def _pod(self, query: Query, dashed: str, namespace: str) -> Reply:
        """`10-244-1-5.<namespace>.pod`: the address in the name (CoreDNS: `pods insecure`)."""
        address = _dashed_address(dashed)
        if address is None or namespace not in self._namespaces:
            return self._unknown()
        return self._addresses(query, [address])

    def _service(self, query: Query, service: Service, front: list[str]) -> Reply:
        if service.spec.type == "ExternalName":
            return self._external(query, service) if not front else self._unknown()
        match front:
            case []:
                if query.type == Type.SRV:
                    return self._ports(query, service, service.spec.ports or ())
                return self._addresses(query, self._own_addresses(service))
            case [hostname] if not hostname.startswith("_"):
                if not service.headless:
                    return self._unknown()
                named = [address for name, address, _ in self._headless(service) if name == hostname]
                return self._addresses(query, named) if named else self._unknown()
            case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
                chosen = [
                    candidate
                    for candidate in service.spec.ports or ()
                    if candidate.name == port[1:] and candidate.protocol.lower() == protocol[1:]
                ]
                return self._ports(query, service, chosen) if chosen else self._unknown()
        return self._unknown()

    def _external(self, query: Query, service: Service) -> Reply:
        """An alias; its target's addresses follow when they are of this cluster."""
        target = service.spec.external_name.rstrip(".").lower()
        if not target or target == query.name:
            return self._nothing()
        alias = Record(query.name, TTL, target, Type.CNAME)
        if query.type not in (Type.A, Type.AAAA) or not target.endswith(f".{self._domain}"):
            return Reply(Rcode.NOERROR, (alias,))
        key = tuple(reversed(target.removesuffix(f".svc.{self._domain}").split(".")))
        found = self._services.get((key[0], key[1])) if len(key) == 2 else None
        if found is None or found.spec.type == "ExternalName":
            return Reply(Rcode.NOERROR, (alias,))
        further = self._matching(query.type, target, self._own_addresses(found))
        return Reply(Rcode.NOERROR, (alias, *further))

    def _ports(self, query: Query, service: Service, ports: Iterable[ServicePort]) -> Reply:
        if query.type not in (Type.SRV, Type.ANY):
            return self._nothing()
        owner = self._name(service)
        answers: list[Record] = []
        additionals: dict[tuple[str, Address], Record] = {}
        for port in ports:
            if not service.headless:
                answers.append(Record(query.name, TTL, Srv(0, 100, port.port, owner), Type.SRV))
                for address in self._own_addresses(service):
                    additionals[owner, address] = address_record(owner, TTL, address)
                continue
            for name, address, part in self._headless(service):
                number = part.target_port(port)
                if number is not None:
                    target = f"{name}.{owner}"
                    answers.append(Record(query.name, TTL, Srv(0, 100, number, target), Type.SRV))
                    additionals[target, address] = address_record(target, TTL, address)
        if not answers:
            return self._nothing()
        unique = tuple(dict.fromkeys(answers))
        return Reply(Rcode.NOERROR, unique, additionals=tuple(additionals.values()))

    def _addresses(self, query: Query, addresses: Iterable[Address]) -> Reply:
        found = self._matching(query.type, query.name, addresses)
        return Reply(Rcode.NOERROR, found) if found else self._nothing()

    def _matching(self, kind: int, owner: str, addresses: Iterable[Address]) -> tuple[Record, ...]:
        versions = _VERSIONS.get(kind, ())
        return tuple(
            address_record(owner, TTL, address)
            for address in dict.fromkeys(addresses)
            if address.version in versions
        )

    def _own_addresses(self, service: Service) -> list[Address]:
        if service.headless:
            return [address for _, address, _ in self._headless(service)]
        return [ip_address(text) for text in service.cluster_addresses]

    def _headless(self, service: Service) -> Iterator[tuple[str, Address, EndpointSlice]]:
        """Name, address and slice of each endpoint that has a name now."""
        for part in self._slices.get(service.key, ()):
            for endpoint in part.endpoints or ():
                if endpoint.is_ready or service.spec.publish_not_ready_addresses:
                    for text in endpoint.addresses:
                        yield _endpoint_name(endpoint, text), ip_address(text), part

    def _reverse_names(self) -> Iterator[tuple[Address, str]]:
        """Cluster addresses, and endpoints of headless Services that were given a hostname."""
        for service in self._services.values():
            if service.headless:
                for name, address, _ in self._headless(service):
                    if _dashed_address(name) != address:
                        yield address, f"{name}.{self._name(service)}"
            elif service.spec.type != "ExternalName":
                for text in service.cluster_addresses:
                    yield ip_address(text), self._name(service)

    def _name(self, service: Service) -> str:
        return f"{service.metadata.name}.{service.metadata.namespace}.svc.{self._domain}"


_VERSIONS: dict[int, tuple[int, ...]] = {Type.A: (4,), Type.AAAA: (6,), Type.ANY: (4, 6)}


def _endpoint_name(endpoint: Endpoint, address: str) -> str:
    """Its hostname, or its address with dashes (CoreDNS)."""
    return endpoint.hostname or address.replace(".", "-").replace(":", "-")


def _dashed_address(text: str) -> Address | None:
    for separator in (".", ":"):
        try:
            return ip_address(text.replace("-", separator))
        except ValueError:
            continue
    return None


def _reverse_address(name: str) -> Address | None:
    """The address that a name below `in-addr.arpa` or `ip6.arpa` stands for."""
    try:
        if name.endswith(".in-addr.arpa"):
            return ip_address(".".join(reversed(name.removesuffix(".in-addr.arpa").split("."))))
        if name.endswith(".ip6.arpa"):
            digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
            return ip_address(bytes.fromhex(digits)) if len(digits) == 32 else None
    except ValueError:
        return None
    return None
