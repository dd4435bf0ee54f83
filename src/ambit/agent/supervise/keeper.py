"""The first process of an agent's container: keeps the agent running, so that Envoy lives on when the agent dies.

A container ends with its first process, and everything in it is killed. So that process is this small one: it starts
the agent again when it ended, reaps what the agent left behind (Envoy becomes its child), and ends when it is told to.
When the agent of the node's next pod has taken over, this container has nothing to do but to let Envoy finish: it ends
with Envoy, at the earliest when it is told to. Should there be no agent on the node meanwhile, it starts its own again.
An agent that hangs is killed and started again; a liveness probe would end Envoy with it.
It runs as a plain script without site packages (`python -I -S keeper.py PROGRAM...`), because it lives as long as the
container and should cost next to nothing: only the standard library may be imported here.
"""

import fcntl
import os
import signal
import sys
import time

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_STEADY_SECONDS = 30.0
"""An agent that ran this long starts the back-off anew."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
HEARTBEAT = "AMBIT_HEARTBEAT_FD"
"""Names the descriptor of the pipe to which the agent writes now and then while its event loop runs."""
BEAT = 5.0
"""Seconds between two of its writes."""
_LISTEN, _SILENT = 10.0, 12
"""An agent that wrote before, and nothing in so many waits of so many seconds, is killed and started again."""
_USAGE = 2
"""Exit status for a wrong command line, which another start does not mend."""
HANDED_OVER = 75
"""Exit status of an agent whose place that of the node's next pod has taken."""
LOCK = "agent.lock"
"""In the run directory; locked by the agent in charge."""
_LOOK = 0.5
_ORPHANED_SECONDS = 20.0
"""A node without an agent for so long gets ours back: longer than a successor's longest pause between two attempts."""


def pause(failures: int) -> float:
    """Seconds before the next start after so many ends in a row: none at first, then doubling up to 10 s."""
    return 0.0 if failures <= 1 else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 2, 10))


def keep(program: list[str]) -> int:
    """Runs `program` again and again until SIGTERM or SIGINT, which it passes on; the exit status for the container."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    failures = 0
    while True:
        began = time.monotonic()
        status, told = _run(program)
        if status == HANDED_OVER:
            if _outlive(told, _lock(program)):
                return 0
            failures = 0
            continue
        if told:
            return 0 if status in (0, -signal.SIGTERM, -signal.SIGINT) else 1
        if status == _USAGE:
            return _USAGE
        failures = 1 if time.monotonic() - began > _STEADY_SECONDS else failures + 1
        delay = pause(failures)
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        sys.stderr.write(f"the agent ended {how}; it is started again in {delay:.1f} s\n")
        if _told_within(delay):
            return 0


def _run(program: list[str]) -> tuple[int, bool]:
    """As `_wait`. A machine that has no room for a process at the moment must not end Envoy."""
    pipe, theirs = os.pipe()
    try:
        os.set_inheritable(theirs, True)
        environment = {**os.environ, HEARTBEAT: str(theirs)}
        agent = os.posix_spawn(program[0], program, environment, setsigmask=[])
    except OSError as problem:
        sys.stderr.write(f"{program[0]} cannot be started: {problem.strerror}\n")
        os.close(pipe)
        return 1, False
    finally:
        os.close(theirs)
    try:
        os.set_blocking(pipe, False)
        return _wait(agent, pipe)
    finally:
        os.close(pipe)


def _wait(agent: int, pipe: int) -> tuple[int, bool]:
    """The agent's exit status (negative: a signal), and whether this process was told to end."""
    told = False
    silent: int | None = None
    while True:
        received = signal.sigtimedwait(_SIGNALS, _LISTEN)
        if _heard(pipe):
            silent = 0
        elif received is None and silent is not None:
            # Waits are counted, not seconds: this process may have been stopped as well.
            silent += 1
        if silent == _SILENT:
            sys.stderr.write(f"the agent has done nothing for {_LISTEN * _SILENT:.0f} s and is killed\n")
            os.kill(agent, signal.SIGKILL)
            silent = None
        if received is not None and received.si_signo != signal.SIGCHLD:
            told = True
            os.kill(agent, signal.SIGTERM)
        status = _reap(agent)
        if status is not None:
            return status, told


async def beat() -> None:
    """The agent's end of the pipe: writes to it until cancelled. Returns at once where no keeper runs."""
    import asyncio  # the keeper itself does without

    named = os.environ.pop(HEARTBEAT, "")
    if not named:
        return
    pipe = int(named)
    os.set_inheritable(pipe, False)
    os.set_blocking(pipe, False)
    while True:
        try:
            os.write(pipe, b".")
        except BlockingIOError:
            pass  # a keeper that reads nothing costs nothing
        except BrokenPipeError:
            return
        await asyncio.sleep(BEAT)


def _heard(pipe: int) -> bool:
    """Whether the agent wrote since the last look."""
    try:
        return bool(os.read(pipe, 65536))
    except BlockingIOError:
        return False


def _outlive(told: bool, lock: str) -> bool:
    """After a successor took over: true when it is time to end, false when the node needs our agent again."""
    orphaned_since = None
    while True:
        received = signal.sigtimedwait(_SIGNALS, _LOOK)
        told = told or (received is not None and received.si_signo != signal.SIGCHLD)
        _reap(0)
        if told and not _has_children():
            return True
        if told or _is_held(lock):
            orphaned_since = None
        elif orphaned_since is None:
            orphaned_since = time.monotonic()
        elif time.monotonic() - orphaned_since > _ORPHANED_SECONDS:
            sys.stderr.write("the agent that took over is gone\n")
            return False


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _lock(program: list[str]) -> str:
    """The lock of the agent that `program` starts; empty when it does not say where."""
    option = "--run-dir"
    return os.path.join(program[program.index(option) + 1], LOCK) if option in program[:-1] else ""


def _is_held(lock: str) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _told_within(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        received = signal.sigtimedwait(_SIGNALS, left)
        if received is not None and received.si_signo != signal.SIGCHLD:
            return True
        _reap(0)
    return False


def _reap(agent: int) -> int | None:
    """Takes every ended child; the agent's status when it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == agent:
            found = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
