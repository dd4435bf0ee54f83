"""The first process of the node's container: keeps the agent running, so that Envoy lives on when the agent dies.

A container ends with its first process, and everything in it is killed. So that process is this small one: it starts
the agent again when it ended, reaps what the agent left behind (Envoy becomes its child), and ends when it is told to.
It runs as a plain script without site packages (`python -I -S keeper.py PROGRAM...`), because it lives as long as the
container and should cost next to nothing: only the standard library may be imported here.
"""

import os
import signal
import sys
import time

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
_STEADY_SECONDS = 30.0
"""An agent that ran this long starts the back-off anew."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
_USAGE = 2
"""Exit status for a wrong command line, which another start does not mend."""


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
    try:
        agent = os.posix_spawn(program[0], program, os.environ, setsigmask=[])
    except OSError as problem:
        sys.stderr.write(f"{program[0]} cannot be started: {problem.strerror}\n")
        return 1, False
    return _wait(agent)


def _wait(agent: int) -> tuple[int, bool]:
    """The agent's exit status (negative: a signal), and whether this process was told to end."""
    told = False
    while True:
        received = signal.sigwait(_SIGNALS)
        if received != signal.SIGCHLD:
            told = True
            os.kill(agent, signal.SIGTERM)
        status = _reap(agent)
        if status is not None:
            return status, told


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
