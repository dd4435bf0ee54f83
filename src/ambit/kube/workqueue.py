"""The queue between events and a level-based reconciler: keys, not events.

1. A key waits in the queue at most once, however often it is added.
2. A key is never handled twice at the same time; added while being handled, it is handled again afterwards.
3. A failed key comes back after a delay that doubles with each failure; success resets the delay.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from ambit.core.errors import AmbitError
from ambit.kube.errors import Conflict

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

RETRY_FIRST = 0.02
RETRY_MAX = 30.0


class WorkQueue(Generic[K]):
    """Keys to reconcile, in the order of their first addition. Bounded by the number of distinct keys."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: dict[K, None] = {}
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, tuple[float, asyncio.TimerHandle]] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs; keys that wait for their time do not count."""
        return not self._waiting and not self._running

    def add(self, key: K) -> None:
        """Handle the key as soon as possible."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = None
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Handle the key after that many seconds, or earlier if an earlier timer is set for it."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        known = self._timers.get(key)
        if known is not None:
            if known[0] <= due:
                return
            known[1].cancel()
        self._timers[key] = (due, loop.call_later(seconds, self._due, key))

    async def run(self, handle: Callable[[K], Awaitable[None]], workers: int = 4) -> None:
        """Give keys to `handle`, at most `workers` at a time, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(handle))
        finally:
            for _, timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _work(self, handle: Callable[[K], Awaitable[None]]) -> None:
        while True:
            while not self._waiting:
                self._wake.clear()
                await self._wake.wait()
            key = next(iter(self._waiting))
            del self._waiting[key]
            self._running.add(key)
            try:
                await handle(key)
                self._failures.pop(key, None)
            except Exception as error:  # noqa: BLE001 - one bad key must not stop the others
                self._retry(key, error)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _retry(self, key: K, error: Exception) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        if isinstance(error, Conflict):
            log.debug("%s: %s changed meanwhile", self.name, key)
        elif isinstance(error, AmbitError):
            log.warning("%s: %s: %s", self.name, key, error.message)
        else:
            log.error("%s: %s failed", self.name, key, exc_info=error)
        self.add_after(key, min(RETRY_MAX, RETRY_FIRST * 2 ** min(failures, 16)))
