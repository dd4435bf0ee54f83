"""Ending an instance: its PID 1 ends and the kernel takes everything else with it."""

import signal

from ambit.local.instance.end import end_process, end_supervisors, supervisors
from ambit.local.instance.record import read_record
from ambit.local.instance.start import discard_state, instance_lock
from ambit.local.layout import StateDirectory


def stop_instance(state: StateDirectory) -> bool:
    """End the instance and remove its state. False when there was nothing to do."""
    if not state.root.exists() and not supervisors(state):
        return False
    with instance_lock(state):
        record = read_record(state)
        if record is not None and record.is_running():
            end_process(record.supervisor)
        end_supervisors(state)
        discard_state(state)
    return True


def undo(state: StateDirectory) -> None:
    """The same for a command that is on its way out: a second Ctrl-C does not leave half of it behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    stop_instance(state)
