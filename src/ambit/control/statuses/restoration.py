"""Statuses that another writer wiped or overwrote: their objects are looked at again. No I/O but timers.

The API server sends every version of an object. One that is newer than the last one whose status was as wanted may have
another status. It is looked at after a pause, in which the writer's own version arrives as well; each further time the
pause doubles, so that two writers that overwrite each other cost little.
"""

import asyncio
import sys
from collections.abc import Callable

from ambit.core.finding import ObjectRef

FIRST, LONGEST = 0.5, 60.0
"""Seconds of the pause."""


class Restoration:
    """Calls `look_again` with objects whose status may not be as wanted, while `leading`."""

    def __init__(self, look_again: Callable[[ObjectRef], None], leading: Callable[[], bool]) -> None:
        self._look_again = look_again
        self._leading = leading
        self._good: dict[ObjectRef, int] = {}
        """The newest resource version whose status is known to be as wanted."""
        self._pauses: dict[ObjectRef, float] = {}
        """Before the next look, where there was one since the wanted status changed."""
        self._waiting: dict[ObjectRef, int] = {}
        """The newest version seen of objects that are looked at after their pause."""

    def seen(self, origin: ObjectRef, version: str) -> None:
        """The API server sent this version of an object."""
        number = _number(version)
        if origin not in self._good or number <= self._good[origin] or not self._leading():
            return
        if origin not in self._waiting:
            pause = self._pauses.get(origin, FIRST)
            asyncio.get_running_loop().call_later(pause, self._look, origin)
        self._waiting[origin] = max(number, self._waiting.get(origin, 0))

    def good(self, origin: ObjectRef, version: str) -> None:
        """The status of this version is as wanted."""
        self._good[origin] = max(_number(version), self._good.get(origin, 0))

    def changed(self, origin: ObjectRef) -> None:
        """Another status is wanted now."""
        self._pauses.pop(origin, None)

    def forget(self, origin: ObjectRef) -> None:
        """No status is wanted any more."""
        self._good.pop(origin, None)
        self._pauses.pop(origin, None)

    def _look(self, origin: ObjectRef) -> None:
        if self._waiting.pop(origin) > self._good.get(origin, sys.maxsize):
            self._pauses[origin] = min(LONGEST, 2 * self._pauses.get(origin, FIRST))
            self._look_again(origin)


def _number(version: str) -> int:
    """A resource version; one that is no number is newer than all others."""
    return int(version) if version.isdecimal() else sys.maxsize
