"""Starts programs with a log each, and ends exactly those again, also when the starter is long gone.

A process is written down as its id, its start time and its name, so an id that was given to another process since
is never signalled.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ambit.core.errors import AmbitError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POLL = 0.1
GRACE = 30.0
"""Seconds that a command has to end by itself."""


def start(state: Path, name: str, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    """Starts `command` in a session of its own, with its output in `<state>/<name>.log`."""
    with (state / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PATH": PATH},
        )


def run(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Runs `command` to its end and returns its exit code. When this process is told to end, so is `command`, and it
    gets `GRACE` seconds to clean up."""
    process = subprocess.Popen(command, env=env)
    try:
        return process.wait()
    except BaseException as told:
        if not isinstance(told, KeyboardInterrupt):  # a terminal's Ctrl-C reached the command, too
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        process.kill()
        process.wait()
        raise


def record(state: Path, name: str, pid: int) -> None:
    """Writes a process down for `end_recorded`."""
    with (state / "processes").open("a") as out:
        out.write(f"{pid} {_started(pid)} {name}\n")


def recorded(state: Path, name: str) -> int:
    """The id of the running process that was written down under this name. Raises AmbitError when there is none."""
    for pid, started, other in _recorded(state):
        if other == name and _started(pid) == started:
            return pid
    raise AmbitError(f"no {name} runs", hint=f"read {state}/{name}.log")


def end_recorded(state: Path, timeout: float = 20) -> None:
    """Kills every recorded process that still is the one recorded, with its group, and waits for their end."""
    alive = [(pid, started) for pid, started, _ in _recorded(state) if _started(pid) == started]
    for pid, _ in alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    wait_for(
        "the end of the cluster's processes",
        lambda: not any(_started(pid) == started for pid, started in alive),
        timeout,
    )


def wait_for(what: str, condition: Callable[[], bool], timeout: float, hint: str = "") -> None:
    """Returns when `condition` holds; AmbitError with `hint` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AmbitError(f"{what}: not within {timeout:.0f} s", hint=hint)
        time.sleep(POLL)


def _recorded(state: Path) -> list[tuple[int, str, str]]:
    """Id, start time and name of every process ever written down, the newest first."""
    try:
        lines = (state / "processes").read_text().splitlines()
    except FileNotFoundError:
        return []
    words = (line.split() for line in reversed(lines))
    return [(int(pid), started, " ".join(name)) for pid, started, *name in words]


def _started(pid: int) -> str:
    """The process's start time in clock ticks, empty when it is gone or only waits to be reaped."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
