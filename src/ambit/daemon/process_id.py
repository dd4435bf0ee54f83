"""Processes told apart although the kernel uses their numbers again: number and start time together (proc(5)), until
the machine is started anew."""

import functools
from pathlib import Path


@functools.cache
def boot_id() -> str:
    """A name of this run of the machine (random(4)); empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def start_time(pid: int, proc: str = "/proc") -> int | None:
    """When the process began, in clock ticks since boot; None when it is gone or only waits to be reaped. `proc` may
    be that of another process namespace: then `pid` is the process's number there."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:
            # The program's name may hold spaces and parentheses; fields are counted from behind it.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
