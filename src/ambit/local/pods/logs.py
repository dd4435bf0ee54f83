"""Reads container logs as `kubectl logs` wants them. The files are written by the shim (`shim/logfile.py`)."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from io import FileIO
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
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return
    with file:
        lines, rest = await asyncio.to_thread(_wanted, path, file, options)
        async for line in _all(lines, _follow(path, file, rest, is_running) if options.follow else None):
            out = _shown(line, options.timestamps)
            if budget is not None:
                out, budget = out[:budget], budget - len(out)
            if out:
                yield out
            if budget is not None and budget <= 0:
                return


async def _all(lines: list[bytes], later: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    for line in lines:
        yield line
    if later is not None:
        async for line in later:
            yield line


def _wanted(path: Path, file: FileIO, options: LogOptions) -> tuple[list[bytes], bytes]:
    """The lines there are now of those that are asked for, and the unfinished one at the end of `file`."""
    lines, rest = _existing(path, file)
    if options.since is not None:
        lines = [line for line in lines if _time(line) >= options.since]
    if options.tail_lines is not None:
        lines = _tail(lines, options.tail_lines)
    return lines, rest


def _existing(path: Path, file: FileIO) -> tuple[list[bytes], bytes]:
    data = b""
    try:
        with path.with_name(path.name + ROTATED).open("rb") as former:
            if not os.path.samestat(os.fstat(former.fileno()), os.fstat(file.fileno())):
                data = former.read()
    except FileNotFoundError:
        pass
    *lines, rest = (data + file.readall()).split(b"\n")  # splitlines would also split at a carriage return
    return [line + b"\n" for line in lines], rest


async def _follow(
    path: Path, file: FileIO, rest: bytes, is_running: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Lines after what was read of `file`, over a rotation; `rest` is the beginning of the first one."""
    while True:
        running, rotated = is_running(), _was_rotated(path, file.fileno())
        data = file.read(_CHUNK)
        if data:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line + b"\n"
        elif rotated:
            # Nothing was left after the rotation was seen, so nothing more will come in the former file.
            with path.open("rb", buffering=0) as newer:
                os.dup2(newer.fileno(), file.fileno(), inheritable=False)
        elif not running:
            return
        else:
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
