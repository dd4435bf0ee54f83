"""What is to be done after a test run that could not clean up, because it was killed.

A process of its own waits at the other end of a pipe. When the run has ended without a word it does what it was told
to, the newest first. Clusters, Envoys and namespaces outlive who started them, by design, so nothing else would end
them.

This file is also that program: `aftermath.py` waits, `aftermath.py end DIRECTORY` kills.
"""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_WELL = "well\n"
_PATIENCE = 120.0
"""Seconds for one command."""
_LOOK = 0.05


def after_death(*command: str) -> None:
    """Has `command` run once this process has ended other than by its own will (killed, `os._exit`)."""
    told = _watcher(os.getpid()).stdin
    assert told is not None
    told.write(json.dumps(command) + "\n")
    told.flush()


def end_after_death(directory: Path) -> None:
    """Has every process killed that names something below `directory` in its command line, if this process could
    not."""
    after_death(*_program(), "end", os.fspath(directory))


@functools.cache
def _watcher(pid: int) -> subprocess.Popen[str]:
    """Of this process: a fork has one of its own. No signal meant for us reaches it."""
    watcher = subprocess.Popen(
        _program(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    atexit.register(_all_is_well, watcher, pid)
    return watcher


def _program() -> list[str]:
    return [sys.executable, "-I", "-S", __file__]


def _all_is_well(watcher: subprocess.Popen[str], pid: int) -> None:
    if os.getpid() == pid:
        watcher.communicate(_WELL)


def _wait() -> None:
    commands: list[list[str]] = []
    for line in sys.stdin:
        if line == _WELL:
            return
        commands.append(json.loads(line))
    for command in reversed(commands):
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, check=False, timeout=_PATIENCE)
        except (OSError, subprocess.SubprocessError):
            continue  # the others are to be tried as well


def _end(directory: str) -> None:
    """Until none is there: one may be starting another."""
    marker, deadline = os.fsencode(directory.rstrip("/") + "/"), time.monotonic() + _PATIENCE
    while (found := _named(marker)) and time.monotonic() < deadline:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue  # gone, or another user's
        time.sleep(_LOOK)


def _named(marker: bytes) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if marker in command and int(name) != os.getpid():
            found.append(int(name))
    return found


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["end", directory]:
            _end(directory)
        case _:
            _wait()
