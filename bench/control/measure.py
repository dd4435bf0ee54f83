"""The control plane with 100 nodes connected: how long until all of them know, and what that costs.

API server, writer, control plane and nodes are processes on this machine. `$AMBIT_BENCH_ISTIOD` names a
`pilot-discovery` that is put under the same load, as it is and with its two waits taken away.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from ambit.kube.client import Client
from bench.control.load import Load, Result
from bench.control.objects import Size
from bench.control.server import ControlPlane, ambit, istiod
from bench.harness import Number, Options, percentile
from bench.instance import repository
from bench.ports import free_port

USUAL, CHANGES = Size(1_000, 10_000, 100), 100
SHORT, FEW_CHANGES = Size(20, 200, 10), 20
LARGE = Size(5_000, 100_000, 100)
BUFFER = 64 * 1024 * 1024
"""Bytes of one line of the writer's answers."""
OURS, THEIRS = "localhost", "istiod.istio-system.svc"
MIB = 1024 * 1024


async def measure(options: Options) -> list[Number]:
    """Targets are for 10,000 pods on a quiet machine of two cores, and for 100,000."""
    size, changes = (SHORT, FEW_CHANGES) if options.quick else (USUAL, CHANGES)
    program = os.environ.get("AMBIT_BENCH_ISTIOD")
    numbers = rows("ambit", size, await _put_under_load(size, changes, OURS, ambit), targets=True)
    if program:
        for who, tuned in (("istiod", False), ("istiod without its waits", True)):
            start = partial(istiod, Path(program), tuned=tuned)
            numbers += rows(who, size, await _put_under_load(size, changes, THEIRS, start), targets=False)
    if not options.quick:
        numbers += await _large()
    return numbers


async def _put_under_load(
    size: Size, changes: int, name: str, start: Callable[[Path, int, Path], ControlPlane]
) -> Result:
    """One control plane, with a cluster of its own; `name` is in its certificate."""
    async with loaded(size) as (load, directory):
        port = free_port()
        plane = start(directory / "kubeconfig", port, directory / "control.log")
        return await load.run(plane, port, name, changes)


async def _large() -> list[Number]:
    found = await _put_under_load(LARGE, FEW_CHANGES, OURS, ambit)
    return [
        Number("100,000 pods: launch to ready", found.ready, "s"),
        Number("100,000 pods: all streams in sync", found.all.seconds, "s", 30.0),
        Number("100,000 pods: sent to each node", found.all.sent / MIB, "MiB"),
        Number("100,000 pods: one pod changed, p99", 1000 * percentile(found.change.each, 0.99), "ms"),
        Number("100,000 pods: in sync after a restart", found.restart.seconds, "s"),
        Number("100,000 pods: resident at most", found.restart.after.peak, "MiB", 2048.0),
    ]


def rows(who: str, size: Size, found: Result, *, targets: bool) -> list[Number]:
    """What one control plane did, in the order in which it did it."""

    def number(name: str, value: float, unit: str, target: float | None = None) -> Number:
        return Number(f"{who}: {name}", value, unit, target if targets else None)

    change, burst = found.change, found.burst
    resident = max(found.all.after.resident, found.restart.after.resident)
    return [
        number("launch to ready", found.ready, "s"),
        number("one stream in sync", 1000 * found.one.seconds, "ms"),
        number(f"all {size.nodes} streams in sync", found.all.seconds, "s", 4.0),
        number("… processor time", found.all.cpu, "s"),
        number("… sent to each node", found.all.sent / MIB, "MiB"),
        number("… streams ended by the server", found.all.refused, ""),
        number("one pod changed, last stream, median", 1000 * percentile(change.each, 0.5), "ms", 10.0),
        number("one pod changed, last stream, p99", 1000 * percentile(change.each, 0.99), "ms", 25.0),
        number("… processor time", 1000 * change.cpu / len(change.each), "ms"),
        number("… sent to each node", change.sent / len(change.each), "bytes"),
        number(f"{len(burst.each)} changed at once, after the last write", burst.rest, "s", 0.5),
        number("… the writes", burst.writes, "s"),
        number("… processor time", burst.cpu, "s"),
        number("… responses to each node", burst.messages, ""),
        number("restart: ready", found.ready_again, "s"),
        number("restart: all streams in sync", found.restart.seconds, "s", 4.0),
        number("… processor time since launch", found.restart.cpu, "s"),
        number("… sent to each node", found.restart.sent, "bytes"),
        number("resident, loaded", found.loaded.resident, "MiB"),
        number("resident, all streams", resident, "MiB", 350.0),
        number("resident, at most", max(found.all.after.peak, found.restart.after.peak), "MiB"),
    ]


@asynccontextmanager
async def loaded(size: Size) -> AsyncIterator[tuple[Load, Path]]:
    """An API server with a cluster of this size, and the load for it."""
    with tempfile.TemporaryDirectory(prefix="ambit-bench-") as temporary:
        directory = Path(temporary)
        numbers = (str(size.services), str(size.pods), str(size.nodes))
        api = await _python("bench.control.cluster", str(directory), *numbers)
        try:
            assert api.stdout is not None
            if await api.stdout.readline() != b"ready\n":
                raise RuntimeError("the API server did not start")
            writer = await _python("bench.control.writer", str(directory / "api.sock"))
            try:
                async with Client.over_unix(directory / "api.sock") as client:
                    yield Load(directory, size, client, writer), directory
            finally:
                await _ended(writer)
        finally:
            await _ended(api)


async def _python(module: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words),
        env=os.environ | {"PYTHONPATH": f"{repository() / 'src'}:{repository()}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=BUFFER,
    )


async def _ended(process: asyncio.subprocess.Process) -> None:
    """They end with their standard input."""
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()
