"""Whose an address of a load balancer is, when statuses of several Services say that they have it.

A status is text that somebody wrote (`services/status`), so it takes nothing from others:

1. It counts on Services of type LoadBalancer only, and the cluster's own addresses (of nodes, pods, Services) never.
2. Addresses of our own load balancer count on Services that it serves, as many as it gives, and each belongs to one:
   to whom it belonged before, else to the oldest that says so.
3. Others are what somebody else's load balancer has given. Several Services may share one, as such load balancers do;
   of those with one port on it the oldest is called (`ambit.local.fabric.service_table`).
"""

from collections.abc import Iterable
from ipaddress import ip_address

import msgspec

from ambit.core.address import Address, Network
from ambit.local.fabric.services import Ingress, LoadBalancer, Service, ServiceStatus
from ambit.local.layout import BALANCERS_V4, BALANCERS_V6, OWN_NETWORKS

Claim = tuple[tuple[str, str], str]
"""Key and uid of a Service."""
Holders = dict[Address, Claim]


def settled(services: Iterable[Service], before: Holders) -> tuple[list[Service], Holders]:
    """The Services, oldest first, with those addresses in their statuses that count, and who has which of ours now.
    `before` is what that was the last time."""
    ordered = sorted(services, key=lambda service: service.metadata.age)
    claims: dict[Address, list[Claim]] = {}
    for service in ordered:
        if is_right(service):
            for text in service.balancer_addresses:
                claims.setdefault(ip_address(text), []).append(_claim(service))
    held = {
        address: before[address] if before.get(address) in several else several[0]
        for address, several in claims.items()
    }

    def counts(service: Service, text: str) -> bool:
        address = ip_address(text)
        if service.balanced:
            return held.get(address) == _claim(service)
        return service.spec.type == "LoadBalancer" and not is_own(address)

    def kept(service: Service) -> Service:
        given = service.balancer_addresses
        own = tuple(text for text in given if counts(service, text))
        if own == given:
            return service
        status = ServiceStatus(LoadBalancer(tuple(map(Ingress, own))))
        return msgspec.structs.replace(service, status=status)

    return [kept(service) for service in ordered], held


def is_own(address: Address) -> bool:
    """Whether an address is one that the cluster itself gives away: who merely claims it would get what is meant for
    others (CVE-2020-8554)."""
    return any(address in network for network in OWN_NETWORKS)


def is_right(service: Service) -> bool:
    """Whether its status says what our own load balancer may have written."""
    if not service.balanced:
        return False
    given = service.balancer_addresses
    wanted = service.spec.load_balancer_ip
    if wanted:
        return given == (wanted,) and is_given(wanted)
    return [ip_address(text).version for text in given] == families(service) and all(map(is_given, given))


def is_given(text: str) -> bool:
    """Whether our own load balancer gives this address to Services."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    pool: Network = BALANCERS_V4 if address.version == 4 else BALANCERS_V6
    return address in pool and address != pool.network_address and address != pool.broadcast_address


def families(service: Service) -> list[int]:
    """IP versions of the addresses that it has in the cluster, in their order."""
    return [ip_address(text).version for text in service.cluster_addresses]


def _claim(service: Service) -> Claim:
    return service.key, service.metadata.uid
