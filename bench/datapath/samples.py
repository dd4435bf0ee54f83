"""What interleaved rounds of load give: samples of variants, summarised. For laptop clusters and Kubernetes alike.

Ratios are made within a round and then summarised, so that a busy machine moves both sides.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from bench.datapath.tools import LOADS, Load, Result
from bench.harness import Number, summary
from bench.servers import HTTP_PORT


class Variant(msgspec.Struct, frozen=True):
    """Where load starts and what it aims at; `baseline` is the variant on the same wires without a mesh."""

    name: str
    namespace: str
    server: str
    http_port: int = HTTP_PORT
    baseline: str = ""
    has_bulk: bool = True


class Sample(msgspec.Struct, frozen=True):
    """One load on one variant. Processor times in microseconds per request, or per megabyte."""

    result: Result
    proxies_us: float
    agents_us: float


Samples = dict[tuple[str, str], list[Sample]]
"""By variant and load."""


def processor_seconds(pids: Iterable[int]) -> float:
    """Seconds of processor time so far, of every thread (field 1 of schedstat, nanoseconds); none of what has ended."""
    total = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                total += int(path.read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
    return total / 1e9


def absolute(samples: Samples) -> list[Number]:
    """Rates, latencies and processor times of each variant and load."""
    numbers = []
    for (variant, load), found in samples.items():
        kind = next(each for each in LOADS if each.name == load)
        name = f"{variant}: {load}"
        numbers.append(summary(name, [each.result.rate for each in found], "Gbit/s" if kind.bulk else "/s"))
        if not kind.bulk:
            numbers.append(summary(f"{name}, p50", [each.result.p50 for each in found], "us"))
            numbers.append(summary(f"{name}, p99", [each.result.p99 for each in found], "us"))
        unit = "us/MB" if kind.bulk else "us/request"
        if any(each.proxies_us for each in found):
            numbers.append(summary(f"{name}, proxies", [each.proxies_us for each in found], unit))
        if any(each.agents_us for each in found):
            numbers.append(summary(f"{name}, agents", [each.agents_us for each in found], unit))
    return numbers


def ratio(samples: Samples, load: Load, one: str, other: str, target: float | None) -> Number:
    """The rate of one variant over the other's, round by round."""
    pairs = zip(samples[one, load.name], samples[other, load.name], strict=True)
    ratios = [mine.result.rate / theirs.result.rate for mine, theirs in pairs]
    return summary(f"{load.name}: {one} / {other}", ratios, "×", target, at_most=False)


def slowest_ratio(samples: Samples, load: Load, one: str, other: str, target: float) -> Number:
    """The same of 99th percentiles, which are to be small."""
    pairs = zip(samples[one, load.name], samples[other, load.name], strict=True)
    ratios = [mine.result.p99 / theirs.result.p99 for mine, theirs in pairs]
    return summary(f"{load.name}, p99: {one} / {other}", ratios, "×", target)


def matrix(subject: str, numbers: Sequence[Number], variants: Sequence[str]) -> str:
    """A line for each load and variant."""
    by_name = {number.name: number for number in numbers}
    lines = []
    width = max(map(len, variants), default=0) + 2
    for load in LOADS:
        lines.append(f"{subject}: {load.name}")
        for variant in variants:
            name = f"{variant}: {load.name}"
            if name not in by_name:
                continue
            rate = by_name[name]
            parts = [f"  {variant:<{width}}{_figure(rate.value):>9} {rate.unit:<7}"]
            parts.append(f"[{_figure(rate.low)} - {_figure(rate.high)}]".ljust(18))
            if f"{name}, p50" in by_name:
                parts.append(
                    f"p50 {by_name[f'{name}, p50'].value:.0f} p99 {by_name[f'{name}, p99'].value:.0f} us"
                )
            for part in ("proxies", "agents"):
                if f"{name}, {part}" in by_name:
                    used = by_name[f"{name}, {part}"]
                    parts.append(f"{part} {used.value:.0f} {used.unit}")
            lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"
