"""One shared copy of each collection for all controllers, indexed by the controlling owner's uid."""

import asyncio
import time
from collections.abc import Callable, Mapping

import msgspec

from ambit.kube.client import Client
from ambit.kube.informer import EventKind, Informer
from ambit.kube.reflector import Key
from ambit.kube.resource import Resource
from ambit.local.controllers.objects import Object, controller_of, key_of, uid_of

_decode = msgspec.json.Decoder(dict).decode


def decode_object(body: bytes) -> Object:
    """The whole object except the bookkeeping of server-side apply, which is large and never used here."""
    value: Object = _decode(body)
    value["metadata"].pop("managedFields", None)
    return value


def decode_metadata(body: bytes) -> Object:
    """Only the metadata."""
    return {"metadata": decode_object(body)["metadata"]}


class Cache:
    """One collection."""

    def __init__(self, informer: Informer[Object]) -> None:
        self.informer = informer
        self._owned: dict[str, dict[Key, Object]] = {}
        self._spaces: dict[str, dict[Key, Object]] = {}
        informer.subscribe(self._index)

    @property
    def items(self) -> Mapping[Key, Object]:
        return self.informer.items

    def get(self, key: Key) -> Object | None:
        return self.informer.items.get(key)

    def owned_by(self, uid: str) -> list[Object]:
        """Objects whose controller has that uid."""
        return list(self._owned.get(uid, {}).values())

    def in_namespace(self, namespace: str) -> list[Object]:
        return list(self._spaces.get(namespace, {}).values())

    def _index(self, kind: EventKind, old: Object | None, new: Object | None) -> None:
        for value, table_of in ((old, self._drop), (new, self._put)):
            if value is not None:
                key = key_of(value)
                table_of(self._spaces, key[0], key, value)
                owner = controller_of(value)
                if owner is not None:
                    table_of(self._owned, owner["uid"], key, value)

    @staticmethod
    def _put(index: dict[str, dict[Key, Object]], at: str, key: Key, value: Object) -> None:
        index.setdefault(at, {})[key] = value

    @staticmethod
    def _drop(index: dict[str, dict[Key, Object]], at: str, key: Key, value: Object) -> None:
        table = index.get(at, {})
        table.pop(key, None)
        if not table:
            index.pop(at, None)


class Caches:
    """All collections that anybody asked for; `run` follows them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._caches: dict[Resource, Cache] = {}
        self._group: asyncio.TaskGroup | None = None

    def of(self, resource: Resource, decode: Callable[[bytes], Object] = decode_object) -> Cache:
        """The cache of a resource; whoever asks first chooses how much of each object is kept."""
        cache = self._caches.get(resource)
        if cache is None:
            cache = self._caches[resource] = Cache(Informer(self.client, resource, decode))
            if self._group is not None:
                self._group.create_task(cache.informer.run())
        return cache

    def resources(self) -> tuple[Resource, ...]:
        return tuple(self._caches)

    async def run(self) -> None:
        """Follow all collections, also those asked for later, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for cache in tuple(self._caches.values()):
                group.create_task(cache.informer.run())
            await asyncio.get_running_loop().create_future()


class Expectations:
    """Own writes that the cache does not show yet; a controller that must count waits for them.

    Without this a controller that created a pod a moment ago would count one too few and create another.
    An object that came and went between two looks is never shown, so waiting ends after `TIMEOUT` seconds.
    """

    TIMEOUT = 5.0

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._created: dict[Key, dict[str, Key]] = {}
        self._deleted: dict[Key, dict[str, Key]] = {}
        self._written_at: dict[Key, float] = {}

    def created(self, owner: Key, value: Object) -> None:
        self._written_at[owner] = time.monotonic()
        self._created.setdefault(owner, {})[uid_of(value)] = key_of(value)

    def deleted(self, owner: Key, value: Object) -> None:
        self._written_at[owner] = time.monotonic()
        self._deleted.setdefault(owner, {})[uid_of(value)] = key_of(value)

    def are_met(self, owner: Key) -> bool:
        """Whether the cache shows all writes made for `owner`."""
        self._settle(self._created, owner, self._is_visible)
        self._settle(self._deleted, owner, self._is_gone)
        if owner not in self._created and owner not in self._deleted:
            self._written_at.pop(owner, None)
            return True
        if time.monotonic() - self._written_at[owner] < self.TIMEOUT:
            return False
        self.forget(owner)
        return True

    def forget(self, owner: Key) -> None:
        """Wait for nothing on behalf of this owner."""
        self._written_at.pop(owner, None)
        self._created.pop(owner, None)
        self._deleted.pop(owner, None)

    def _settle(self, table: dict[Key, dict[str, Key]], owner: Key, done: Callable[[str, Key], bool]) -> None:
        open_writes = table.get(owner)
        if open_writes is None:
            return
        for uid, key in tuple(open_writes.items()):
            if done(uid, key):
                del open_writes[uid]
        if not open_writes:
            del table[owner]

    def _is_visible(self, uid: str, key: Key) -> bool:
        return (found := self._cache.get(key)) is not None and uid_of(found) == uid

    def _is_gone(self, uid: str, key: Key) -> bool:
        found = self._cache.get(key)
        return found is None or uid_of(found) != uid or bool(found["metadata"].get("deletionTimestamp"))
