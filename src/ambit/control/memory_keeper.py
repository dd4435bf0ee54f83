"""Keeps the control plane's memory within its limit: gives free memory back, and says when little is left."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable

from ambit.daemon.logs import event
from ambit.daemon.memory import give_back, measure_resident

log = logging.getLogger("ambit.control.memory")

TICK = 1.0
"""Seconds between two looks."""
GROWTH = 32 << 20
"""Bytes by which the process grows before it gives back what is free."""
SHARE = 0.8
"""Of the limit: from here on the process is short of memory."""
COLLECTOR_SHARE = 0.05
"""Of the time in which the process is near its limit: the garbage collector looks at every object, some seconds for a
large mesh, and everything else waits for it."""


class MemoryKeeper:
    """`limit` is in bytes, 0 for none; `resident` returns the bytes that the process has, `clock` monotonic seconds."""

    def __init__(
        self,
        limit: int,
        resident: Callable[[], int] = measure_resident,
        give_back: Callable[[], None] = give_back,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.is_short = False
        """Whether more than SHARE of the limit is in use, after all that is free was given back."""
        self._resident = resident
        self._give_back = give_back
        self._clock = clock
        self._collects_at = 0.0
        self._lowest = resident()

    async def run(self) -> None:
        """Look after the memory until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            self.look()

    def look(self) -> None:
        """Give back what is free, if the process has grown, and compare the rest with the limit."""
        now = self._resident()
        near = bool(self.limit) and now > self.limit * SHARE
        if near or now > self._lowest + GROWTH:
            if near and self._clock() >= self._collects_at:
                self._collect()
            self._give_back()
            now = self._lowest = self._resident()
        self._lowest = min(self._lowest, now)
        was_short, self.is_short = self.is_short, bool(self.limit) and now > self.limit * SHARE
        if self.is_short and not was_short:
            event(
                log,
                logging.WARNING,
                "short of memory: calls of pods that are no node agents are refused until memory is free",
                resident=now,
                limit=self.limit,
            )

    def _collect(self) -> None:
        began = self._clock()
        gc.collect()
        ended = self._clock()
        self._collects_at = ended + (ended - began) * (1 / COLLECTOR_SHARE - 1)
