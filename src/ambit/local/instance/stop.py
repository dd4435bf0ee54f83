"""Ending an instance: its PID 1 ends and the kernel takes everything else with it."""

import os
import select
import signal

from ambit.core.errors import EnvironmentProblem
from ambit.local.instance.record import ProcessId, read_record
from ambit.local.instance.start import discard_state, instance_lock
from ambit.local.layout import StateDirectory

PATIENCE = 5.0
"""Seconds between asking and killing, and again until the kernel has cleared the processes away."""


def stop_instance(state: StateDirectory) -> bool:
    """End the instance and remove its state. False when there was nothing to do."""
    if not state.root.exists():
        return False
    with instance_lock(state):
        record = read_record(state)
        if record is not None and record.is_running():
            end_process(record.supervisor)
        discard_state(state)
    return True


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
