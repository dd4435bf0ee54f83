"""What a benchmark returns, and how it is shown and kept.

Rules:
1. A number has one direction: `at_most` says whether its target is an upper or a lower bound.
2. Repeated measurements are given as their median, with smallest and largest beside it.
3. A number without a target is context for others, never a claim.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

HISTORY = Path(".cache/bench/history.jsonl")


class Options(msgspec.Struct, frozen=True):
    """`rounds` of each interleaved measurement, of `seconds` each; `quick` makes everything as short as it can be."""

    rounds: int = 3
    seconds: float = 2.0
    quick: bool = False


class Number(msgspec.Struct, frozen=True):
    """One result. `low` and `high` are the extremes of the repetitions, None when measured once."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = True
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def distance(self) -> float | None:
        """Value over target; below 1 is good for an upper bound, above 1 for a lower one."""
        return None if not self.target else self.value / self.target


class Subject(msgspec.Struct, frozen=True):
    """A benchmark: what it is called, what it measures, and the function that does."""

    name: str
    about: str
    measure: Callable[[Options], Coroutine[Any, Any, list[Number]]]
    show: Callable[[str, list[Number]], str] | None = None
    """Prints what is clearer as a matrix; the table below it then has only ratios and memory."""
    usual: bool = True
    """Whether it is measured when no subject is named."""


def summary(
    name: str,
    values: Sequence[float],
    unit: str,
    target: float | None = None,
    *,
    at_most: bool = True,
    note: str = "",
) -> Number:
    """The median of repetitions as a number."""
    return Number(name, statistics.median(values), unit, target, at_most, min(values), max(values), note)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def table(subject: str, numbers: Sequence[Number]) -> str:
    """The lines for one subject."""
    width = max(44, *(len(number.name) + 4 for number in numbers))
    lines = [f"{subject:<{width}}{'VALUE':>12}  {'[MIN - MAX]':<18}{'TARGET':>8}  DISTANCE"]
    for number in numbers:
        extremes = "" if number.low is None else f"[{_plain(number.low)} - {_plain(number.high)}]"
        value = f"{_plain(number.value)} {number.unit}"
        name = f"  {number.name}"
        lines.append(
            f"{name:<{width}}{value:>12}  {extremes:<18}{_bound(number):>8}  {_verdict(number)}".rstrip()
        )
    lines += [f"    {number.name}: {number.note}" for number in numbers if number.note]
    return "\n".join(lines)


def markdown(subject: str, numbers: Sequence[Number]) -> str:
    """Rows for docs/performance.md."""
    lines = [f"| {subject} | value | target | |", "| --- | --- | --- | --- |"]
    for number in numbers:
        extremes = "" if number.low is None else f" [{_plain(number.low)} - {_plain(number.high)}]"
        value = f"{_plain(number.value)} {number.unit}{extremes}"
        lines.append(f"| {number.name} | {value} | {_bound(number)} | {_verdict(number)} |")
    return "\n".join(lines)


def remember(results: dict[str, list[Number]], options: Options) -> None:
    """Append a run to the history, which stays on this machine. Says so when it cannot."""
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": machine(),
        "options": msgspec.to_builtins(options),
        "results": msgspec.to_builtins(results),
    }
    try:
        HISTORY.parent.mkdir(parents=True, exist_ok=True)
        with HISTORY.open("a") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as problem:
        print(f"history not written: {problem}", file=sys.stderr)


def machine() -> dict[str, object]:
    """What numbers depend on: cores, kernel, Python, and how busy others keep the machine."""
    return {
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "load_1m": round(os.getloadavg()[0], 2),
    }


def _plain(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def _bound(number: Number) -> str:
    if number.target is None:
        return ""
    direction = "=" if number.target == 0 else "<" if number.at_most else "≥"
    return f"{direction} {_plain(number.target)}"


def _verdict(number: Number) -> str:
    if number.holds is None:
        return ""
    if number.distance is None:
        return "√" if number.holds else "×"
    return f"{'√' if number.holds else '×'} {number.distance:.2f}× of the target"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
