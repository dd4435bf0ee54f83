"""Tells when a folder's content changes, by inotify(7) through the C library."""

import asyncio
import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CREATED_WRITTEN_MOVED_DELETED = 0x100 | 0x8 | 0x40 | 0x80 | 0x200
_FOLDER_GONE = 0x400 | 0x800
_NONBLOCKING = os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def changes(folder: Path) -> Iterator[asyncio.Event]:
    """An event that is set by each change in the folder. Raises OSError when there is no such folder."""
    descriptor = _checked(_libc.inotify_init1(_NONBLOCKING), folder)
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        mask = _CREATED_WRITTEN_MOVED_DELETED | _FOLDER_GONE
        _checked(_libc.inotify_add_watch(descriptor, os.fsencode(folder), mask), folder)
        loop.add_reader(descriptor, _took, descriptor, changed)
        yield changed
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _took(descriptor: int, changed: asyncio.Event) -> None:
    os.read(descriptor, 65536)
    changed.set()


def _checked(result: int, folder: Path) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
    return result
