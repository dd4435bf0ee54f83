"""Which processes belong to a container or a pod, and killing them all."""

import contextlib
import os
import signal


def mount_namespace(pid: int) -> int:
    """The inode of a process's mount namespace; 0 when the process is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return 0


def kill_in_mount_namespace(namespace: int) -> None:
    """SIGKILL for every process there, and for what those forked meanwhile."""
    while namespace:
        found = [pid for pid in _processes() if mount_namespace(pid) == namespace and not _is_dead(pid)]
        if not found:
            return
        _kill(found)


def kill_everything() -> None:
    """Called by PID 1: every other process of the PID namespace dies and is reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    _reap_all()


def kill_descendants(ancestor: int) -> None:
    """Called by a subreaper: everything below dies; orphans come to the subreaper, so repeating finds all."""
    while True:
        found = _descendants(ancestor)
        if not found:
            return
        _kill(found)
        _reap_all()


def _reap_all() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _status(pid: int) -> tuple[str, int]:
    """State letter and parent, from /proc/<pid>/stat (the name field may hold spaces and parentheses)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return "X", 0
    return fields[0].decode(), int(fields[1])


def _is_dead(pid: int) -> bool:
    return _status(pid)[0] in {"Z", "X"}


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid in _processes():
        children.setdefault(_status(pid)[1], []).append(pid)
    found: list[int] = []
    pending = [ancestor]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found
