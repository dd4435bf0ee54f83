"""Keeps a typed copy of one collection up to date for as long as it runs, and tells subscribers what changed.

The rules are the reflector's; this module sends the requests and waits between failures. Subscribers are
called synchronously, in the order of the changes, after `items` shows them.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Generic, Literal, TypeAlias, TypeVar

import msgspec

from ambit.core.errors import Unreachable
from ambit.kube.client import PAGE, Client
from ambit.kube.errors import ApiError, Forbidden, NotFound, Unauthorized
from ambit.kube.reflector import Change, Key, Mode, Reflector, Undecodable, decode_page
from ambit.kube.resource import Resource

log = logging.getLogger(__name__)

T = TypeVar("T")
EventKind: TypeAlias = Literal["added", "modified", "deleted"]

BACKOFF_FIRST = 0.1
BACKOFF_MAX = 10.0
"""Seconds between failed attempts, doubled each time and jittered by half."""
WATCH_SECONDS = (300, 600)
"""The server is asked to end a watch after a random time in between, which spreads reconnects."""
ABSENCES = 2
"""Answers "no such resource" in a row after which a resource that was served counts as gone."""
SHORT_WATCH = 1.0
"""A watch that ends sooner counts as a failure, so that a server which always ends it is not asked in a loop."""
WATCH_SLACK = 30.0
"""A watch that has outlived its time by this many seconds is on a dead connection."""


class Informer(Generic[T]):
    """A copy of the objects of one resource that match the selectors, each decoded by `decode`.

    `decode` takes an object's JSON; when it raises, the object keeps its last good value (see `undecodable`).
    A resource that the server does not know counts as empty and is asked for again every `missing_retry`
    seconds; one that was known before must be missing twice in a row, since a starting server may not know it yet.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        decode: Callable[[bytes], T],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        missing_retry: float = 5.0,
    ) -> None:
        self.resource = resource
        self._client = client
        self._namespace = namespace
        self._labels = label_selector
        self._fields = field_selector
        self._missing_retry = missing_retry
        self.on_seen: Callable[[Key, str], None] = lambda *_: None
        """Called with the key and the resource version of each new version, before subscribers, and also where
        nothing of it changed that `decode` reads."""
        self._reflector: Reflector[T] = Reflector(
            decode, seen=lambda key, version: self.on_seen(key, version)
        )
        self._subscribers: list[Callable[[EventKind, T | None, T | None], None]] = []
        self._synced = asyncio.Event()
        self._failures = 0
        self._absences = 0
        self._refusal = ""

    @property
    def items(self) -> Mapping[Key, T]:
        """The objects by (namespace, name); a live view, empty until the first answer."""
        return self._reflector.items

    @property
    def undecodable(self) -> Mapping[Key, Undecodable]:
        """Objects whose newest version `decode` refused."""
        return self._reflector.undecodable

    @property
    def complete_at(self) -> str:
        """The resource version up to which `items` and subscribers know everything; empty while it is listed anew."""
        return self._reflector.resource_version if self._reflector.mode is Mode.WATCH else ""

    @property
    def refusal(self) -> str:
        """Why the API server last refused to show this collection; empty when it shows it. `items` are then stale."""
        return self._refusal

    @property
    def is_synced(self) -> bool:
        return self._synced.is_set()

    def subscribe(self, callback: Callable[[EventKind, T | None, T | None], None]) -> None:
        """Call `callback(kind, old, new)` on every change; what is already there comes as added."""
        for item in tuple(self.items.values()):
            callback("added", None, item)
        self._subscribers.append(callback)

    async def wait_synced(self) -> None:
        """Until the copy is complete for the first time."""
        await self._synced.wait()

    async def run(self) -> None:
        """Follow the collection until cancelled. Failures are retried for ever, with back-off."""
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                await self._follow()
                self._reflector.ended()
                if clock() - began >= SHORT_WATCH:
                    continue
            except NotFound as error:
                self._reflector.refused(error)
                self._missing()
                await asyncio.sleep(self._missing_retry)
                continue
            except (Forbidden, Unauthorized) as error:
                self._reflector.refused(error)
                self._refusal = error.message
                log.warning("cannot watch %s: %s", self.resource.qualified, error.message)
            except ApiError as error:
                self._reflector.refused(error)
                log.debug("watch of %s refused: %s", self.resource.qualified, error.message)
            except (Unreachable, TimeoutError, msgspec.DecodeError) as error:
                self._reflector.ended()
                log.debug("watch of %s broke: %s", self.resource.qualified, error)
            await asyncio.sleep(self._next_delay())

    def _next_delay(self) -> float:
        delay = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    async def _follow(self) -> None:
        reflector = self._reflector
        if reflector.mode is Mode.LIST:
            await self._list()
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - jitter, not a secret
        initial = reflector.mode is Mode.STREAM
        if initial:
            reflector.begin()
        async with (
            asyncio.timeout(seconds + WATCH_SLACK),
            self._client.watch(
                self.resource,
                self._namespace,
                resource_version=None if initial else reflector.resource_version,
                label_selector=self._labels,
                field_selector=self._fields,
                timeout_seconds=seconds,
                initial_events=initial,
            ) as events,
        ):
            async for event in events:
                for change in reflector.event(event):
                    self._tell(change)
                self._progress()
                if reflector.mode is Mode.LIST:
                    break

    async def _list(self) -> None:
        reflector = self._reflector
        reflector.begin()
        while reflector.mode is Mode.LIST:
            query = {
                "labelSelector": self._labels,
                "fieldSelector": self._fields,
                "limit": PAGE,
                "continue": reflector.page_token or None,
            }
            body = await self._client.raw("GET", self.resource.path(self._namespace), query)
            for change in reflector.list_page(decode_page(body)):
                self._tell(change)
        self._progress()

    def _missing(self) -> None:
        """A kind that is not served has no objects: say so rather than keep everybody waiting."""
        self._absences += 1
        if self.is_synced and self._absences < ABSENCES:
            return
        for change in self._reflector.vanish():
            self._tell(change)
        self._synced.set()

    def _progress(self) -> None:
        self._failures = 0
        self._absences = 0
        self._refusal = ""
        if self._reflector.synced and not self._synced.is_set():
            self._synced.set()

    def _tell(self, change: Change[T]) -> None:
        for subscriber in self._subscribers:
            subscriber(change.kind, change.old, change.new)
