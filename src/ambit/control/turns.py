"""A few at a time, but nobody for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


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
