"""When what made a Gateway's pods run goes, after its class needs none any more. No I/O; the time is given."""

from ambit.control.handover import HOLD, LINGER, MARGIN

LEFT_AFTER = 2 * (HOLD + MARGIN) + LINGER
"""Seconds until the pods of a Gateway go whose class needs none any more: by then no caller goes there, of any
replica's nodes, and what is open through them has had LINGER to end."""


class Leaving:
    """Gateways by their keys."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def seconds(self, key: str, now: float) -> float:
        """Until it may go; 0 when it may. The first question begins the time."""
        return max(0.0, self._due.setdefault(key, now + LEFT_AFTER) - now)

    def stays(self, key: str) -> None:
        """It has pods again, or nothing is left of them."""
        self._due.pop(key, None)

    def clear(self) -> None:
        """Who begins to lead knows of nobody since when."""
        self._due.clear()
