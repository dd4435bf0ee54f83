"""Writes into the status of ServiceEntries which addresses their hosts have (`ambit.ingest.istio.allocation`).

Every replica reads all entries; the elected one writes. Nodes learn an address as everybody does, from the status, so
what a pod was told is always written down.
"""

import logging
from collections.abc import Callable

import msgspec

from ambit.daemon.logs import event
from ambit.ingest.istio.allocation import AddressBook, is_allocated
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.informer import EventKind
from ambit.kube.resource import SERVICE_ENTRIES
from ambit.kube.workqueue import WorkQueue
from ambit.objects.networking import AllocatedAddress, ServiceEntry

log = logging.getLogger("ambit.control.allocation")


class AddressWriter:
    """Writes while `leading`, from the moment when all entries are known (`run`)."""

    def __init__(self, client: Client, leading: Callable[[], bool]) -> None:
        self._client = client
        self._leading = leading
        self._book = AddressBook()
        self._entries: dict[str, ServiceEntry] = {}
        self._queue: WorkQueue[str] = WorkQueue("addresses of service entries")

    def observed(self, kind: EventKind, old: ServiceEntry | None, new: ServiceEntry | None) -> None:
        """An entry came, changed or went."""
        entry = new or old
        if entry is None:
            return
        key = entry.metadata.key
        if kind == "deleted" or new is None:
            self._entries.pop(key, None)
            others = self._book.forget(key)
        else:
            self._entries[key] = new
            others = self._book.note(new)
            self._queue.add(key)
        for other in others:
            self._queue.add(other)

    def started_leading(self) -> None:
        """Look at every entry again."""
        for key in self._entries:
            self._queue.add(key)

    async def run(self) -> None:
        """Write until cancelled."""
        await self._queue.run(self._reconcile, workers=4)

    async def _reconcile(self, key: str) -> None:
        entry = self._entries.get(key)
        if entry is None or not self._leading():
            return
        wanted = self._book.wanted(key)
        if is_allocated(entry) and len(wanted) < 2 * len(set(entry.spec.hosts)):
            full = self._book.has_its_share(entry.metadata.namespace)
            whose = "its namespace has its share of addresses" if full else "none is left"
            event(log, logging.ERROR, "hosts of a ServiceEntry have no address", name=key, reason=whose)
        if _same(entry.status.addresses, wanted):
            return
        name, namespace = entry.metadata.name, entry.metadata.namespace
        try:
            live = await self._client.get(SERVICE_ENTRIES, name, namespace)
        except NotFound:
            return
        seen = msgspec.convert(live, ServiceEntry)
        if (seen.metadata.uid, seen.metadata.generation) != (entry.metadata.uid, entry.metadata.generation):
            return  # The watch brings what is there now, and leads here again.
        if _same(seen.status.addresses, wanted):
            return
        addresses = [msgspec.to_builtins(each) for each in wanted] or None
        await self._client.patch(
            SERVICE_ENTRIES,
            name,
            {
                "metadata": {"resourceVersion": live["metadata"].get("resourceVersion")},
                "status": {"addresses": addresses},
            },
            namespace,
            subresource="status",
            field_manager="ambit",
        )


def _same(one: tuple[AllocatedAddress, ...], other: tuple[AllocatedAddress, ...]) -> bool:
    return set(one) == set(other)
