"""A few at a time, but nobody for ever."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Overloaded(Exception):
    """A key has as many holders and waiters as it may have."""


class FairSemaphore:
    """At most `total` holders, at most `per_key` of one key, and at most `waiting` more of that key that wait.

    A key that wants much waits for itself: it has at most `per_key` entries in the queue that all keys share.
    """

    def __init__(self, total: int, per_key: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(total)
        self._per_key = per_key
        self._most = per_key + waiting
        self._keys: dict[str, asyncio.Semaphore] = {}
        self._present: Counter[str] = Counter()

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Waits for a place, and keeps it while inside. Raises Overloaded at once when too many of the key wait."""
        if self._present[key] >= self._most:
            raise Overloaded(key)
        own = self._keys.setdefault(key, asyncio.Semaphore(self._per_key))
        self._present[key] += 1
        try:
            async with own, self._free:
                yield
        finally:
            self._present[key] -= 1
            if not self._present[key]:
                del self._present[key], self._keys[key]


class Turns:
    """At most `number` have a turn at once. A turn ends after `seconds` even when its holder is not done: the holder
    goes on, and the next one begins."""

    def __init__(self, number: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(number)
        self._seconds = seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a turn, and has it while inside."""
        await self._free.acquire()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._free.release()

        end = asyncio.get_running_loop().call_later(self._seconds, give_back)
        try:
            yield
        finally:
            end.cancel()
            give_back()
