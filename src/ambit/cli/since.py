"""How long, and `--since`: how long ago, or a time."""

import re
import time
from datetime import UTC, datetime

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def _seconds(text: str) -> float | None:
    """None for what is no duration."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


class Duration(click.ParamType[float]):
    """`90s`, `1m30s`; seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return value
        seconds = _seconds(value)
        if seconds is None:
            self.fail(f"{value!r} is no duration like 90s or 1m30s")
        return seconds


class Since(click.ParamType[float]):
    """`90s`, `5m`, `1h30m`, `2d`, or `2026-11-20T10:00:00Z`; seconds since 1970. Without a zone, a time is local."""

    name = "since"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return value
        ago = _seconds(value)
        if ago is not None:
            return time.time() - ago
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a duration like 5m or 1h30m nor a time like 2026-11-20T10:00:00Z"
            )
        return found.astimezone(UTC).timestamp()
