"""Entering a namespace: only the helper thread moves, and what it made stays there."""

import os
import socket
from pathlib import Path

import pytest

from ambit.node.netns.enter import in_namespace, in_own_thread, new_namespace

pytestmark = pytest.mark.netns


def current() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_the_caller_stays_where_it_is() -> None:
    before = current()

    def inside() -> tuple[int, int]:
        new_namespace()
        return current(), os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    inode, descriptor = in_own_thread(inside)
    try:
        assert inode != before
        assert current() == before
        path = Path(f"/proc/self/fd/{descriptor}")
        assert in_namespace(path, current) == inode
        with in_namespace(path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
            with pytest.raises(OSError, match="unreachable"):  # its loopback is down: it is not the caller's
                sock.sendto(b"x", ("127.0.0.1", 9))
            assert current() == before
    finally:
        os.close(descriptor)


def test_errors_reach_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        in_namespace(tmp_path / "none", current)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Invalid argument"):
        in_namespace(tmp_path / "file", current)

    def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        in_own_thread(fail)
