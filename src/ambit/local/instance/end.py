"""Ending processes of an instance, and finding supervisors that nothing on disk tells of any more."""

import json
import os
import select
import signal

from ambit.core.errors import EnvironmentProblem
from ambit.local.instance.record import ProcessId
from ambit.local.layout import StateDirectory

PATIENCE = 5.0
"""Seconds between asking and killing, and again until the kernel has cleared the processes away."""
PROGRAM = "ambit.local.instance.supervisor"


def supervisors(state: StateDirectory) -> list[ProcessId]:
    """Own processes that supervise the instance of this state directory, whatever is written in it."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if os.stat(f"/proc/{name}").st_uid != os.geteuid():
                continue
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
            if PROGRAM in words and _logs(words) == os.path.realpath(state.logs):
                found.append(ProcessId.of(int(name)))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def _logs(words: list[str]) -> str | None:
    try:
        return os.path.realpath(str(json.loads(words[words.index(PROGRAM) + 1])["logs"]))
    except (ValueError, LookupError, TypeError):
        return None


def end_supervisors(state: StateDirectory) -> None:
    """End every supervisor of this state directory, and with it all processes of its instance."""
    for process in supervisors(state):
        end_process(process)


def end_process(process: ProcessId) -> None:
    """SIGTERM, then SIGKILL. Raises EnvironmentProblem when it outlives both."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not process.is_alive():
                return
            signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], PATIENCE)[0]:
                return
    except ProcessLookupError:
        return
    except PermissionError as problem:
        raise EnvironmentProblem(
            f"process {process.pid} belongs to another user", "stop it as the user who started it"
        ) from problem
    finally:
        os.close(descriptor)
    raise EnvironmentProblem(f"process {process.pid} does not end", "it waits in the kernel; see `dmesg`")
