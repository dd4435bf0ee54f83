"""What follows from the line that many records share, worked out once: a *lane*."""

from collections.abc import Callable
from typing import TypeVar

MOST = 2_000
"""Lanes of one sort of records; with a further one all are worked out again."""
LONGEST_LINE = 8_192
"""Characters: a longer line, which peers can make as they like, is understood each time and not remembered."""

Lane = TypeVar("Lane")


class Lanes(dict[str, Lane | None]):
    """By their lines, as `make` understands them: None of a line that is nobody's."""

    def __init__(self, make: Callable[[str], Lane | None], most: int = MOST) -> None:
        super().__init__()
        self._make = make
        self._most = most

    def __missing__(self, line: str) -> Lane | None:
        lane = self._make(line)
        self.remember(line, lane)
        return lane

    def remember(self, line: str, lane: Lane | None) -> None:
        """Keeps it, unless the line is too long."""
        if len(line) > LONGEST_LINE:
            return
        if len(self) >= self._most and line not in self:
            self.clear()
        self[line] = lane
