"""Doing something inside another network namespace, in a thread that ends with it.

The thread never comes back to its own namespace: it ends. So no failure can leave the process in a pod.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

from ambit.core.errors import EnvironmentProblem

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


def run_in(netns: str, function: Callable[[], T]) -> T:
    """`function()` in the network namespace at path `netns`; blocks until it is done and raises what it
    raises. Raises EnvironmentProblem when the namespace is gone or may not be entered."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            _enter(netns)
            result.append(function())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def _enter(netns: str) -> None:
    try:
        descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EnvironmentProblem(f"network namespace {netns} cannot be opened: {error.strerror}") from error
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(descriptor, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise EnvironmentProblem(
                f"network namespace {netns} cannot be entered: {reason}",
                "the node agent needs CAP_SYS_ADMIN in the namespace's user namespace",
            )
    finally:
        os.close(descriptor)
