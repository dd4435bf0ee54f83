"""`--since`: how long ago, or a time."""

import re
import time
from datetime import UTC, datetime

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


class Since(click.ParamType[float]):
    """`90s`, `5m`, `1h30m`, `2d`, or `2026-11-20T10:00:00Z`; seconds since 1970. Without a zone, a time is local."""

    name = "since"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return value
        if _DURATION.fullmatch(value):
            ago = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
            return time.time() - ago
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither a duration like 5m or 1h30m nor a time like 2026-11-20T10:00:00Z"
            )
        return found.astimezone(UTC).timestamp()
