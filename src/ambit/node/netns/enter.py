"""Do something inside another network namespace without moving the process there.

A fresh thread enters the namespace and ends afterwards, because a thread's namespace is not restored by
anybody and a pooled thread would carry it to the next caller. Sockets and child processes made by that
thread stay in the namespace they were made in. `os.setns` exists from Python 3.12 on, so this uses the C
library.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000

_T = TypeVar("_T")
_libc = ctypes.CDLL(None, use_errno=True)


def set_namespace(path: Path) -> None:
    """Move the *calling thread* into the network namespace pinned at `path`. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, CLONE_NEWNET), path)
    finally:
        os.close(descriptor)


def new_namespace() -> None:
    """Move the *calling thread* into a new, empty network namespace. Raises OSError."""
    _check(_libc.unshare(CLONE_NEWNET), Path("network namespace"))


def in_namespace(path: Path, function: Callable[[], _T]) -> _T:
    """The result of `function`, called by a thread inside the namespace pinned at `path`.

    Blocks. Raises what `function` raises, and OSError when the namespace cannot be entered.
    """

    def enter() -> _T:
        set_namespace(path)
        return function()

    return in_own_thread(enter)


def in_own_thread(function: Callable[[], _T]) -> _T:
    """The result of `function`, called by a thread that ends with it. Raises what `function` raises."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            errors.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _check(result: int, subject: Path) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(subject))
