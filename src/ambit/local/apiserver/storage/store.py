"""All objects in memory as JSON bytes, the single revision counter, and watch history.

One event loop thread does everything, so a read-modify-write without `await` is atomic. A write goes to
disk first; when that fails memory is unchanged.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from ambit.local.apiserver.failures import ApiFailure, expired
from ambit.local.apiserver.storage.database import Database, unusable

HISTORY = 1024
"""Events kept per storage; a watch that starts before them gets 410 and lists again."""
BACKLOG = 10_000
"""Undelivered events after which a watcher that does not read is closed (it will list again)."""

Json = dict[str, Any]
Key = tuple[str, str]
FieldReader = Callable[[Json], dict[str, str]]


class Entry(msgspec.Struct, frozen=True):
    """One stored object: its bytes, and what selectors need without decoding them."""

    namespace: str
    name: str
    revision: int
    uid: str
    labels: dict[str, str]
    fields: dict[str, str]
    data: bytes

    def decode(self) -> Json:
        """A fresh copy that the caller may change."""
        value: Json = orjson.loads(self.data)
        return value


class Event(msgspec.Struct, frozen=True):
    """One change. `new` of a DELETED event is the last state with the revision of the deletion."""

    kind: Literal["ADDED", "MODIFIED", "DELETED"]
    new: Entry
    old: Entry | None


class Watcher:
    """A subscription. Iterate batches with `next`; ends with None when the store or the watcher is closed."""

    def __init__(self, backlog: Iterable[Event]) -> None:
        self._events: deque[Event] = deque(backlog)
        self._ready = asyncio.Event()
        self.closed = False
        if self._events:
            self._ready.set()

    def push(self, event: Event) -> None:
        if len(self._events) >= BACKLOG:
            self.close()
        if not self.closed:
            self._events.append(event)
            self._ready.set()

    def close(self) -> None:
        self.closed = True
        self._ready.set()

    async def next(self, timeout: float) -> list[Event] | None:
        """All events that wait; an empty list after `timeout` seconds; None at the end."""
        if not self._events and not self.closed:
            try:
                async with asyncio.timeout(timeout):
                    await self._ready.wait()
            except TimeoutError:
                return []
        self._ready.clear()
        events = list(self._events)
        self._events.clear()
        if not events and self.closed:
            return None
        if self.closed:
            self._ready.set()
        return events


class _Shelf:
    """Objects of one storage, its history and its watchers."""

    def __init__(self, compacted: int) -> None:
        self.entries: dict[Key, Entry] = {}
        self.history: deque[Event] = deque()
        self.compacted = compacted
        self.watchers: set[Watcher] = set()

    def publish(self, event: Event) -> None:
        self.history.append(event)
        if len(self.history) > HISTORY:
            self.compacted = self.history.popleft().new.revision
        for watcher in tuple(self.watchers):
            watcher.push(event)


class Store:
    """Storages are named like group resources: `pods`, `deployments.apps`."""

    def __init__(self, path: Path | None, field_readers: dict[str, FieldReader]) -> None:
        self._database = Database(path)
        self._readers = dict(field_readers)
        self.revision = self._started = self._database.revision()
        self._shelves: dict[str, _Shelf] = {}
        self.on_change: list[Callable[[str, Event], None]] = []
        try:
            for storage, namespace, name, revision, data in self._database.rows():
                entry = self._entry(storage, namespace, name, revision, data, orjson.loads(data))
                self._shelf(storage).entries[namespace, name] = entry
        except (sqlite3.Error, orjson.JSONDecodeError, KeyError) as error:
            raise unusable(path, error) from error

    def _shelf(self, storage: str) -> _Shelf:
        shelf = self._shelves.get(storage)
        if shelf is None:
            shelf = self._shelves[storage] = _Shelf(self._started)
        return shelf

    def _entry(
        self, storage: str, namespace: str, name: str, revision: int, data: bytes, body: Json
    ) -> Entry:
        reader = self._readers.get(storage)
        metadata = body["metadata"]
        return Entry(
            namespace,
            name,
            revision,
            metadata.get("uid", ""),
            metadata.get("labels") or {},
            reader(body) if reader else {},
            data,
        )

    def select_by(self, storage: str, reader: FieldReader) -> None:
        """Sets how fields of a storage are read for selectors; what is stored is read again."""
        self._readers[storage] = reader
        entries = self._shelf(storage).entries
        for key, entry in entries.items():
            entries[key] = msgspec.structs.replace(entry, fields=reader(entry.decode()))

    def get(self, storage: str, namespace: str, name: str) -> Entry | None:
        return self._shelf(storage).entries.get((namespace, name))

    def select(self, storage: str, namespace: str = "") -> list[Entry]:
        """Sorted by namespace and name; an empty namespace means all."""
        entries = self._shelf(storage).entries
        keys = sorted(entries if not namespace else (key for key in entries if key[0] == namespace))
        return [entries[key] for key in keys]

    def put(self, storage: str, body: Json) -> Entry:
        """Creates or replaces; sets `metadata.resourceVersion` in `body`. Raises ApiFailure 500 on disk
        errors."""
        metadata = body["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        revision = self.revision + 1
        metadata["resourceVersion"] = str(revision)
        data = orjson.dumps(body)
        self._write(lambda: self._database.put(storage, namespace, name, revision, data))
        self.revision = revision
        entry = self._entry(storage, namespace, name, revision, data, body)
        shelf = self._shelf(storage)
        old = shelf.entries.get((namespace, name))
        shelf.entries[namespace, name] = entry
        self._publish(storage, shelf, Event("MODIFIED" if old else "ADDED", entry, old))
        return entry

    def put_new(self, storage: str, bodies: Iterable[Json]) -> None:
        """Creates many objects in one transaction; for what the server ships, before anybody watches."""
        rows, entries, revision = [], {}, self.revision
        for body in bodies:
            revision += 1
            body["metadata"]["resourceVersion"] = str(revision)
            namespace, name = body["metadata"].get("namespace", ""), body["metadata"]["name"]
            row = (storage, namespace, name, revision, orjson.dumps(body))
            entries[namespace, name] = self._entry(*row, body)
            rows.append(row)
        if rows:
            self._write(lambda: self._database.put_many(rows))
            shelf = self._shelf(storage)
            shelf.entries.update(entries)
            self.revision = shelf.compacted = revision

    def delete(self, storage: str, namespace: str, name: str) -> Entry:
        """Removes the object and returns its last state, which carries the revision of the deletion."""
        shelf = self._shelf(storage)
        old = shelf.entries[namespace, name]
        revision = self.revision + 1
        self._write(lambda: self._database.delete(storage, namespace, name, revision))
        self.revision = revision
        del shelf.entries[namespace, name]
        body = old.decode()
        body["metadata"]["resourceVersion"] = str(revision)
        data = orjson.dumps(body)
        entry = Entry(namespace, name, revision, old.uid, old.labels, old.fields, data)
        self._publish(storage, shelf, Event("DELETED", entry, old))
        return entry

    def rewrite(self, storage: str, change: Callable[[Json], bool]) -> None:
        """Changes objects in place without a new version; `change` says whether it changed anything."""
        entries = self._shelf(storage).entries
        for key, entry in tuple(entries.items()):
            body = entry.decode()
            if change(body):
                changed = msgspec.structs.replace(entry, data=orjson.dumps(body))
                self._write(partial(self._database.rewrite, storage, key[0], key[1], changed.data))
                entries[key] = changed

    def check_since(self, storage: str, revision: int) -> None:
        """Raises ApiFailure 410 when changes after `revision` are no longer known."""
        if revision < self._shelf(storage).compacted:
            raise expired(f"too old resource version: {revision} ({self._shelf(storage).compacted})")

    def watch(self, storage: str, since: int) -> Watcher:
        """Everything after `since`. Raises ApiFailure 410. End it with `unwatch`."""
        self.check_since(storage, since)
        shelf = self._shelf(storage)
        watcher = Watcher(event for event in shelf.history if event.new.revision > since)
        shelf.watchers.add(watcher)
        return watcher

    def unwatch(self, storage: str, watcher: Watcher) -> None:
        self._shelf(storage).watchers.discard(watcher)

    def drop(self, storage: str) -> None:
        """Ends the watches of a storage whose definition is gone; clients find out by a 404."""
        for watcher in self._shelf(storage).watchers:
            watcher.close()

    def end_watches(self) -> None:
        for storage in self._shelves:
            self.drop(storage)

    def close(self) -> None:
        self.end_watches()
        self._database.close()

    def _publish(self, storage: str, shelf: _Shelf, event: Event) -> None:
        shelf.publish(event)
        for listener in self.on_change:
            listener(storage, event)

    def _write(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            message = f"Internal error occurred: the cluster database cannot be written: {error}"
            raise ApiFailure(500, "InternalError", message) from error
