"""Gives Services of type LoadBalancer an address, as a cloud's controller does.

The addresses belong to the fabric's networks and are translated by the Service tables like cluster
addresses, so pods, nodes and the fabric itself reach them; the host does through forwards. A Service that
asks for one (`loadBalancerIP`) gets it when it is free and of these networks, else none. A Service that names a
`loadBalancerClass` is left to whoever implements that class. What else a status says is put right.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from ambit.core.address import Address, Network
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import SERVICES
from ambit.local.fabric.catalog import ServiceCatalog
from ambit.local.fabric.following import apply_changes
from ambit.local.fabric.holders import families, is_given, is_right
from ambit.local.fabric.services import Service
from ambit.local.layout import BALANCERS_V4, BALANCERS_V6

log = logging.getLogger(__name__)

Changes = dict[tuple[str, str], tuple[str, ...]]
"""Addresses that the status of these Services must get."""


class LoadBalancerController:
    """Keeps `status.loadBalancer` right."""

    def __init__(self, client: Client, catalog: ServiceCatalog) -> None:
        self._client = client
        self._catalog = catalog
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Follow the catalog until cancelled."""
        self._catalog.subscribe(self._changed.set)
        await self._catalog.wait_synced()
        await apply_changes(self._changed, self._apply, "load balancer address not written")

    async def _apply(self) -> None:
        written = {service.key: service.balancer_addresses for service in self._catalog.services}
        for key, addresses in put_right(self._catalog.settled(), written).items():
            await self._write(key, addresses)

    async def _write(self, key: tuple[str, str], addresses: tuple[str, ...]) -> None:
        ingress = [{"ip": address, "ipMode": "VIP"} for address in addresses]
        patch = {"status": {"loadBalancer": {"ingress": ingress} if ingress else None}}
        try:
            await self._client.patch(SERVICES, key[1], patch, key[0], subresource="status")
        except NotFound:
            return


def put_right(services: Iterable[Service], written: Changes) -> Changes:
    """What must be written, also where statuses say more (`written`) than of what counts is there (`settled`). Pure."""
    services = list(services)
    changes = assign(services)
    for service in services:
        given = service.balancer_addresses
        if not service.spec.load_balancer_class and written.get(service.key, given) != given:
            changes.setdefault(service.key, given)
    return changes


def assign(services: Iterable[Service]) -> Changes:
    """What must be written: an address of each family that a Service has, kept for as long as it wants one.

    Pure. Services beyond the pool's size get none.
    """
    changes: Changes = {}
    taken: set[Address] = set()
    ordered = sorted(services, key=lambda service: service.key)
    for service in ordered:
        if service.balanced and is_right(service):
            taken.update(ip_address(text) for text in service.balancer_addresses)
    for service in ordered:
        wanted = service.spec.load_balancer_ip
        if service.balanced and wanted and not is_right(service):
            given = (wanted,) if is_given(wanted) and ip_address(wanted) not in taken else ()
            taken.update(ip_address(text) for text in given)
            if given != service.balancer_addresses:
                changes[service.key] = given
    free = {4: _free(BALANCERS_V4, taken), 6: _free(BALANCERS_V6, taken)}
    for service in ordered:
        if service.spec.load_balancer_class or (service.balanced and service.spec.load_balancer_ip):
            continue
        if not service.balanced:
            if service.balancer_addresses:
                changes[service.key] = ()
        elif not is_right(service):
            chosen = [next(free[version], None) for version in families(service)]
            changes[service.key] = tuple(str(address) for address in chosen if address is not None)
            if changes[service.key] == service.balancer_addresses:
                del changes[service.key]
    return changes


def _free(pool: Network, taken: set[Address]) -> Iterator[Address]:
    for address in pool.hosts():
        if address not in taken:
            taken.add(address)
            yield address
