"""Reads container logs as `kubectl logs` wants them. The files are written by the shim (`shim/logfile.py`)."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

from ambit.local.pods.shim.logfile import ROTATED
from ambit.local.streams import LogOptions

_CHUNK = 64 * 1024
_POLL = 0.2
"""Seconds between looks at a followed file."""


def attempts(directory: Path) -> list[Path]:
    """A container's logs, oldest attempt first."""
    found = [path for path in directory.glob("*.log") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem))


async def read(path: Path, options: LogOptions, is_running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Lines of one attempt. With `follow` it ends after the container ended and everything was read."""
    budget = options.limit_bytes
    lines = await asyncio.to_thread(_existing, path)
    if options.since is not None:
        lines = [line for line in lines if _time(line) >= options.since]
    if options.tail_lines is not None:
        lines = _tail(lines, options.tail_lines)
    for line in lines:
        out = _shown(line, options.timestamps)
        if budget is not None:
            out, budget = out[:budget], budget - len(out)
        if out:
            yield out
        if budget is not None and budget <= 0:
            return
    if not options.follow:
        return
    async for line in _follow(path, is_running):
        out = _shown(line, options.timestamps)
        if budget is not None:
            out, budget = out[:budget], budget - len(out)
        yield out
        if budget is not None and budget <= 0:
            return


def _existing(path: Path) -> list[bytes]:
    data = b""
    for part in (path.with_name(path.name + ROTATED), path):
        try:
            data += part.read_bytes()
        except FileNotFoundError:
            continue
    lines = [line + b"\n" for line in data.split(b"\n")]  # splitlines would also split at a carriage return
    return lines[:-1]


async def _follow(path: Path, is_running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """New lines after the present end, over a rotation."""
    with path.open("rb") as first:
        file = first
        file.seek(0, os.SEEK_END)
        rest = b""
        while True:
            running = is_running()
            data = file.read(_CHUNK)
            if data:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    yield line + b"\n"
                continue
            if _was_rotated(path, file.fileno()):
                os.dup2(os.open(path, os.O_RDONLY | os.O_CLOEXEC), file.fileno())
                file.seek(0)
                continue
            if not running:
                return
            await asyncio.sleep(_POLL)


def _was_rotated(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def _tail(lines: list[bytes], count: int) -> list[bytes]:
    """The last `count` whole lines; a long line's parts count as one."""
    if count <= 0:
        return []
    start, seen = len(lines), 0
    while start > 0:
        if lines[start - 1].split(b" ", 3)[2:3] == [b"F"]:
            seen += 1
            if seen > count:
                break
        start -= 1
    return lines[start:]


def _time(line: bytes) -> float:
    text = line.partition(b" ")[0].decode()
    try:
        return datetime.fromisoformat(text[:26] + "+00:00").timestamp()
    except ValueError:
        return 0.0


def _shown(line: bytes, timestamps: bool) -> bytes:
    stamp, _, rest = line.partition(b" ")
    _, _, rest = rest.partition(b" ")
    kind, _, text = rest.partition(b" ")
    if kind == b"P":
        text = text.removesuffix(b"\n")
    return stamp + b" " + text if timestamps else text
