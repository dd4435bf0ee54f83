"""What all controllers share: a queue fed by caches, status writes that skip no-ops, events, adoption."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

from ambit.core.errors import AmbitError
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.informer import EventKind
from ambit.kube.reflector import Key
from ambit.kube.resource import EVENTS, Resource
from ambit.kube.workqueue import WorkQueue
from ambit.local.controllers.caches import Cache, Caches
from ambit.local.controllers.objects import (
    Object,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    owner_reference,
    selector_of,
    short_hash,
    timestamp,
    uid_of,
)

log = logging.getLogger(__name__)


class Controller(ABC):
    """Makes the world match one object at a time. Subclasses watch and implement `reconcile`."""

    name: ClassVar[str]

    def __init__(self, caches: Caches) -> None:
        self.caches = caches
        self.client: Client = caches.client
        self.queue: WorkQueue[Key] = WorkQueue(self.name)
        self._watched: list[Cache] = []

    def watch(
        self, resource: Resource, keys_of: Callable[[Object], Iterable[Key]] = lambda value: (key_of(value),)
    ) -> Cache:
        """Reconcile the keys that `keys_of` names for an object, old or new, whenever it changes."""
        cache = self.caches.of(resource)

        def changed(kind: EventKind, old: Object | None, new: Object | None) -> None:
            for value in (old, new):
                if value is None:
                    continue
                try:
                    for key in keys_of(value):
                        self.queue.add(key)
                except (LookupError, TypeError, ValueError):
                    # Some object related to this one is malformed; that must not end the watch for all.
                    log.exception("%s: cannot tell what %s concerns", self.name, key_of(value))

        cache.informer.subscribe(changed)
        self._watched.append(cache)
        return cache

    @abstractmethod
    async def reconcile(self, key: Key) -> None:
        """Look at the key's object and everything that belongs to it, and do what is missing."""

    async def run(self) -> None:
        """Reconcile until cancelled; starts when all watched caches are complete."""
        for cache in self._watched:
            await cache.informer.wait_synced()
        await self.queue.run(self.reconcile)

    async def write_status(self, resource: Resource, value: Object, status: Object) -> None:
        """Make `status` the object's status, unless it is already; a vanished object is no error."""
        old = value.get("status") or {}
        patch = {field: new for field, new in status.items() if old.get(field) != new}
        patch |= dict.fromkeys(field for field in old if field not in status)
        if not patch:
            return
        namespace, name = key_of(value)
        try:
            await self.client.patch(resource, name, {"status": patch}, namespace, subresource="status")
        except NotFound:
            return

    async def record(
        self, resource: Resource, value: Object, reason: str, message: str, *, kind: str = "Normal"
    ) -> None:
        """Write an event about the object. Events are for people: one that cannot be written is dropped."""
        namespace, name = key_of(value)
        now = time.time()
        event = {
            "metadata": {
                "name": f"{name}.{short_hash([uid_of(value), reason, message, now], 16)}",
                "namespace": namespace or "default",
            },
            "involvedObject": {
                "apiVersion": resource.api_version,
                "kind": resource.kind,
                "namespace": namespace,
                "name": name,
                "uid": uid_of(value),
                "resourceVersion": value["metadata"].get("resourceVersion", ""),
            },
            "reason": reason,
            "message": message,
            "type": kind,
            "source": {"component": self.name},
            "reportingComponent": self.name,
            "firstTimestamp": timestamp(now),
            "lastTimestamp": timestamp(now),
            "count": 1,
        }
        try:
            await self.client.create(EVENTS, event)
        except AmbitError:
            return

    async def claim(self, owner_resource: Resource, owner: Object, resource: Resource) -> list[Object]:
        """Objects that `owner` controls.

        Those that match its selector and have no controller are adopted; those that no longer match are
        released.
        """
        cache, selector, mine = self.caches.of(resource), selector_of(owner), []
        for value in cache.owned_by(uid_of(owner)):
            if is_deleting(value) or selector.matches(labels_of(value)):
                mine.append(value)
            else:
                await self._own(resource, value, None, uid_of(owner))
        if is_deleting(owner):
            return mine
        for value in cache.in_namespace(key_of(owner)[0]):
            if controller_of(value) is None and not is_deleting(value) and selector.matches(labels_of(value)):
                reference = owner_reference(owner_resource, owner)
                mine.append(await self._own(resource, value, reference, uid_of(owner)))
        return mine

    async def _own(self, resource: Resource, value: Object, reference: Object | None, uid: str) -> Object:
        namespace, name = key_of(value)
        owners = [item for item in value["metadata"].get("ownerReferences") or () if item["uid"] != uid]
        if reference is not None:
            owners.append(reference)
        metadata = {"ownerReferences": owners, "resourceVersion": value["metadata"]["resourceVersion"]}
        return await self.client.patch(resource, name, {"metadata": metadata}, namespace)

    async def remove(self, resource: Resource, value: Object) -> None:
        """Delete exactly this object (by uid); already gone is fine."""
        namespace, name = key_of(value)
        try:
            await self.client.delete(resource, name, namespace, uid=uid_of(value), propagation="Background")
        except NotFound:
            return


def controlled_keys(kind: str) -> Callable[[Object], Iterable[Key]]:
    """For `Controller.watch`: the key of an object's controller, if that is of this kind."""

    def keys(value: Object) -> Iterable[Key]:
        owner = controller_of(value)
        if owner is not None and owner["kind"] == kind:
            yield key_of(value)[0], owner["name"]

    return keys


async def forever(*controllers: Controller) -> None:
    """Run controllers side by side until cancelled."""
    async with asyncio.TaskGroup() as group:
        for controller in controllers:
            group.create_task(controller.run())
