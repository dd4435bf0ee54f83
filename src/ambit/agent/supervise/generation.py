"""One Envoy process: how it is started so that it outlives us, recognised again, and watched.

A process id alone names nothing after a crash, so a generation is (pid, start time). It is started by a
short-lived helper that ends at once: the process belongs to init (or the nearest subreaper), in a session
of its own, and no signal meant for the agent reaches it. On Kubernetes the Envoy that a former pod of the node left
behind is in another process namespace: it is seen in the host's /proc, and nothing can be sent to it.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ambit.core.errors import EnvironmentProblem
from ambit.daemon.process_id import start_time

LOG_LIMIT = 8 << 20
"""Bytes."""
_LAUNCH = """
import os, sys, time
program, launcher = sys.argv[1:], os.getpid()
if not os.access(program[0], os.X_OK):
    sys.exit(program[0] + ": not a program that can be run")
if pid := os.fork():
    os.write(1, b"%d" % pid)
    os._exit(0)
os.setsid()
os.dup2(2, 1)
while os.getppid() == launcher:
    time.sleep(0.001)
os.execv(program[0], program)
"""
"""Envoy asks the kernel for SIGTERM when its parent ends (`PR_SET_PDEATHSIG`, at its start). So it begins only when
its launcher is gone: else a launcher that takes long to end, on a busy machine, would take it along."""
_LOOK_SECONDS = 0.2
"""Between two looks whether a process of another namespace is gone."""


def own_space() -> str:
    """A name of this process namespace."""
    return os.readlink("/proc/self/ns/pid")


def number_in(proc: str, pid: int) -> int:
    """The number of our process `pid` in the process namespace of the /proc at `proc`. Raises OSError, ValueError."""
    descriptor = os.pidfd_open(pid)
    try:
        told = Path(f"{proc}/self/fdinfo/{descriptor}").read_text()
    finally:
        os.close(descriptor)
    return int(next(line for line in told.splitlines() if line.startswith("Pid:")).partition(":")[2])


class Generation(msgspec.Struct, frozen=True):
    """`start_time` is in clock ticks since boot (proc(5), field 22); `build` tells program and bootstrap. `space` is
    the process namespace in which `pid` counts, `seen` the /proc of a wider one in which it is `seen_pid`."""

    pid: int
    start_time: int
    epoch: int
    base_id: int
    concurrency: int = 1
    build: str = ""
    space: str = ""
    seen: str = ""
    seen_pid: int = 0

    @property
    def foreign(self) -> bool:
        """Whether it is in another process namespace: a former pod of this node started it."""
        return self.space not in ("", own_space())

    @property
    def alive(self) -> bool:
        if self.foreign:
            return self.seen_pid > 0 and start_time(self.seen_pid, self.seen) == self.start_time
        return start_time(self.pid) == self.start_time

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to exactly this process; silently nothing when it is gone or foreign."""
        if self.foreign:
            return
        with contextlib.suppress(ProcessLookupError, OSError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)

    async def ended(self) -> None:
        """Returns when the process is gone."""
        if self.foreign:
            while self.alive:  # noqa: ASYNC110 - nothing tells of the end of a process of another namespace
                await asyncio.sleep(_LOOK_SECONDS)
            return
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        loop.add_reader(descriptor, done.set)
        try:
            if self.alive:
                await done.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def rotate(log: Path) -> None:
    """Keeps a log that grew beyond LOG_LIMIT as `<name>.1`; a process that writes to it goes on there."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_name(log.name + ".1"))


async def spawn(argv: Sequence[str], log: Path | None, keep: Sequence[int] = ()) -> tuple[int, int]:
    """Starts a detached process and returns its pid and start time. Its output goes to the end of `log`, or without
    that to this process's standard error; it gets the open files `keep`.

    Raises EnvironmentProblem when it cannot be started.
    """
    if log is not None:
        rotate(log)
    with log.open("ab") if log is not None else contextlib.nullcontext() as output:
        helper = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            _LAUNCH,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            pass_fds=keep,
        )
        reply, _ = await helper.communicate()
    text = reply.decode().strip()
    hint = f"see {log if log is not None else 'the lines before this one'}"
    if helper.returncode or not text.isdigit():
        raise EnvironmentProblem(f"cannot start {argv[0]}", hint)
    pid = int(text)
    began = start_time(pid)
    if began is None:
        raise EnvironmentProblem(f"{argv[0]} ended at once", hint)
    return pid, began
