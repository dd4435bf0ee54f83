"""One shared copy of Services and EndpointSlices: the Service table, the load balancer and the cluster's DNS server
read the same two collections, so they share the watches, and agree on whose an address is."""

import asyncio
from collections.abc import Callable, Iterator

from ambit.kube.client import Client
from ambit.kube.informer import Informer
from ambit.kube.resource import ENDPOINT_SLICES, SERVICES
from ambit.local.fabric.holders import Holders, settled
from ambit.local.fabric.services import EndpointSlice, Service, SlicesByService, read_service, read_slice


class ServiceCatalog:
    """A live copy of Services and EndpointSlices. `run` it; `changed` is called after every change."""

    def __init__(self, client: Client) -> None:
        self._services = Informer(client, SERVICES, read_service)
        self._slices = Informer(client, ENDPOINT_SLICES, read_slice)
        self._holders: Holders = {}

    async def run(self) -> None:
        """Follow both collections until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run())
            group.create_task(self._slices.run())

    async def wait_synced(self) -> None:
        await self._services.wait_synced()
        await self._slices.wait_synced()

    @property
    def is_synced(self) -> bool:
        """Whether both collections were complete once."""
        return self._services.is_synced and self._slices.is_synced

    def subscribe(self, changed: Callable[[], None]) -> None:
        def tell(*_: object) -> None:
            changed()

        self._services.subscribe(tell)
        self._slices.subscribe(tell)

    @property
    def services(self) -> Iterator[Service]:
        return iter(self._services.items.values())

    def settled(self) -> list[Service]:
        """Services with those addresses of load balancers that count (`ambit.local.fabric.holders`)."""
        found, self._holders = settled(self.services, self._holders)
        return found

    def slices(self) -> SlicesByService:
        """All slices by Service, each group in a stable order."""
        groups: dict[tuple[str, str], list[EndpointSlice]] = {}
        for key in sorted(self._slices.items):
            part = self._slices.items[key]
            groups.setdefault(part.service, []).append(part)
        return {key: tuple(parts) for key, parts in groups.items()}
