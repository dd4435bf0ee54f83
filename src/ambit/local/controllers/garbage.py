"""Garbage collection: objects whose owners are all gone are deleted; foreground and orphan deletion are
carried out.

Rules are Kubernetes' ("Owners and dependents", "Garbage collection"):
1. An object with owner references, of which none points to a living object (same uid), is deleted.
2. An owner with the finalizer `foregroundDeletion` waits until no dependent that blocks it is left; its
dependents are deleted meanwhile.
3. An owner with the finalizer `orphan` loses it after all references to it have been removed from its
   dependents.
4. A reference to an owner in another namespace counts as gone; one to a kind that is not served (any more) keeps the
   object, because nobody can tell.

Kinds that usually own or are owned are watched. All others, custom resources for instance, are listed now and then,
and watched from the moment one of them takes part in ownership.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import ClassVar

from ambit.core.errors import AmbitError
from ambit.kube import resource as kinds
from ambit.kube.client import Propagation
from ambit.kube.discovery import discover
from ambit.kube.errors import ApiError, Conflict, NotFound
from ambit.kube.informer import EventKind
from ambit.kube.reflector import Key
from ambit.kube.resource import Resource
from ambit.kube.workqueue import WorkQueue
from ambit.local.controllers.caches import Cache, Caches, decode_metadata
from ambit.local.controllers.objects import Object, is_deleting, key_of, uid_of

log = logging.getLogger(__name__)

SWEEP = 20.0
"""Seconds between two lists of the kinds that are not watched."""
RECHECK = 0.3
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"

WATCHED = (
    kinds.PODS,
    kinds.REPLICA_SETS,
    kinds.DEPLOYMENTS,
    kinds.STATEFUL_SETS,
    kinds.DAEMON_SETS,
    kinds.JOBS,
    kinds.CRON_JOBS,
    kinds.CONTROLLER_REVISIONS,
    kinds.SERVICES,
    kinds.ENDPOINT_SLICES,
    kinds.SERVICE_ACCOUNTS,
    kinds.CONFIG_MAPS,
    kinds.SECRETS,
)
NEVER = frozenset({"events", "leases", "componentstatuses", "nodes"})
"""Plurals that are not worth a look: they are many, and expire or stay by themselves."""

Item = tuple[Resource, Key]


def owners_of(value: Object) -> list[Object]:
    return list(value["metadata"].get("ownerReferences") or ())


def finalizers_of(value: Object) -> list[str]:
    return list(value["metadata"].get("finalizers") or ())


class GarbageCollector:
    """Looks at one object at a time: as dependent, and as owner that is being deleted."""

    name: ClassVar[str] = "garbage-collector"

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._client = caches.client
        self._queue: WorkQueue[Item] = WorkQueue(self.name)
        self._watched: dict[Resource, Cache] = {}
        self._dependents: dict[str, dict[Item, Object]] = {}
        self._served: dict[tuple[str, str], Resource] = {}
        for resource in WATCHED:
            self._follow(resource)

    async def run(self) -> None:
        """Collect until cancelled."""
        for cache in tuple(self._watched.values()):
            await cache.informer.wait_synced()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(self._look))
            group.create_task(self._sweep())

    def _follow(self, resource: Resource) -> None:
        cache = self._caches.of(resource, decode_metadata)
        self._watched[resource] = cache

        def changed(kind: EventKind, old: Object | None, new: Object | None) -> None:
            self._changed(resource, old, new)

        cache.informer.subscribe(changed)

    def _changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        value = new or old
        if value is None:
            return
        item = (resource, key_of(value))
        for owner in owners_of(old) if old is not None else ():
            table = self._dependents.get(owner["uid"], {})
            table.pop(item, None)
            if not table:
                self._dependents.pop(owner["uid"], None)
        if new is None:
            self._add_dependents(uid_of(value))
            # A blocked owner may go on now that this dependent is gone.
            for owner in owners_of(value):
                self._add_owner(item[1][0], owner)
            return
        for owner in owners_of(new):
            self._dependents.setdefault(owner["uid"], {})[item] = new
        if owners_of(new) or (is_deleting(new) and {FOREGROUND, ORPHAN} & set(finalizers_of(new))):
            self._queue.add(item)

    def _add_dependents(self, uid: str) -> None:
        for item in self._dependents.get(uid, ()):
            self._queue.add(item)

    def _add_owner(self, namespace: str, owner: Object) -> None:
        resource = self._resource_of(owner)
        if resource is not None:
            self._queue.add((resource, (namespace if resource.namespaced else "", owner["name"])))

    def _resource_of(self, owner: Object) -> Resource | None:
        group = owner["apiVersion"].rpartition("/")[0]
        known = next((r for r in self._watched if (r.group, r.kind) == (group, owner["kind"])), None)
        return known or self._served.get((group, owner["kind"]))

    async def _look(self, item: Item) -> None:
        resource, key = item
        cache = self._watched.get(resource)
        value = cache.get(key) if cache is not None else None
        if value is None:
            return
        if is_deleting(value):
            if ORPHAN in finalizers_of(value):
                await self._orphan(resource, value)
            elif FOREGROUND in finalizers_of(value):
                await self._foreground(resource, value)
            return
        owners = owners_of(value)
        if not owners:
            return
        states = [await self._state(key[0], owner) for owner in owners]
        if "unknown" in states:
            self._queue.add_after(item, RECHECK)
            return
        if "unserved" in states:
            self._queue.add_after(item, SWEEP)
            return
        if "alive" in states:
            return
        propagation: Propagation = "Foreground" if "waiting" in states else "Background"
        with suppress(NotFound, Conflict):
            await self._client.delete(resource, key[1], key[0], uid=uid_of(value), propagation=propagation)

    async def _state(self, namespace: str, owner: Object) -> str:
        """An owner is alive, gone, waiting (for its dependents), unserved, or unknown until its kind is learned."""
        resource = self._resource_of(owner)
        if resource is None:
            await self._learn()
            resource = self._resource_of(owner)
            if resource is None:
                return "unserved"
        key = (namespace if resource.namespaced else "", owner["name"])
        if resource not in self._watched:
            self._follow(resource)
            return "unknown"
        cache = self._watched[resource]
        if not cache.informer.is_synced:
            return "unknown"
        found = cache.get(key)
        if found is None or uid_of(found) != owner["uid"]:
            found = await self._ask(resource, key)
        if found is None or uid_of(found) != owner["uid"]:
            return "gone"
        if is_deleting(found) and FOREGROUND in finalizers_of(found):
            return "waiting"
        return "alive"

    async def _ask(self, resource: Resource, key: Key) -> Object | None:
        """The live object: a cache may lag behind an owner that was created a moment ago."""
        try:
            return await self._client.get(resource, key[1], key[0])
        except NotFound:
            return None

    async def _foreground(self, resource: Resource, value: Object) -> None:
        blocking = False
        for (kind, key), dependent in tuple(self._dependents.get(uid_of(value), {}).items()):
            mine = [owner for owner in owners_of(dependent) if owner["uid"] == uid_of(value)]
            blocking |= any(owner.get("blockOwnerDeletion") for owner in mine)
            if not is_deleting(dependent):
                self._queue.add((kind, key))
        if not blocking:
            await self._drop_finalizer(resource, value, FOREGROUND)

    async def _orphan(self, resource: Resource, value: Object) -> None:
        uid = uid_of(value)
        for (kind, key), dependent in tuple(self._dependents.get(uid, {}).items()):
            kept = [owner for owner in owners_of(dependent) if owner["uid"] != uid]
            metadata = {"ownerReferences": kept, "uid": uid_of(dependent)}
            with suppress(NotFound, Conflict):
                await self._client.patch(kind, key[1], {"metadata": metadata}, key[0])
        await self._drop_finalizer(resource, value, ORPHAN)

    async def _drop_finalizer(self, resource: Resource, value: Object, finalizer: str) -> None:
        namespace, name = key_of(value)
        with suppress(NotFound):
            fresh = await self._client.get(resource, name, namespace)
            if uid_of(fresh) != uid_of(value) or finalizer not in finalizers_of(fresh):
                return
            kept = [item for item in finalizers_of(fresh) if item != finalizer]
            metadata = {"finalizers": kept, "resourceVersion": fresh["metadata"]["resourceVersion"]}
            await self._client.patch(resource, name, {"metadata": metadata}, namespace)

    async def _learn(self) -> Mapping[Resource, frozenset[str]]:
        found = await discover(self._client)
        self._served = {(item.resource.group, item.resource.kind): item.resource for item in found}
        return {item.resource: item.verbs for item in found}

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            try:
                served = await self._learn()
                for resource, verbs in served.items():
                    if self._is_swept(resource, verbs) and await self._takes_part(resource):
                        self._follow(resource)
            except AmbitError as error:
                log.debug("sweep: %s", error.message)

    def _is_swept(self, resource: Resource, verbs: Iterable[str]) -> bool:
        known = any((r.group, r.kind) == (resource.group, resource.kind) for r in self._watched)
        return not known and resource.plural not in NEVER and {"list", "watch", "delete"} <= set(verbs)

    async def _takes_part(self, resource: Resource) -> bool:
        try:
            values = await self._client.list(resource)
        except ApiError:
            return False
        return any(
            owners_of(value) or (is_deleting(value) and {FOREGROUND, ORPHAN} & set(finalizers_of(value)))
            for value in values
        )
