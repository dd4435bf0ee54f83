"""What an instance writes down about itself, so that later commands find it and know whether it lives."""

import os
from pathlib import Path

import msgspec

from ambit.daemon.process_id import start_time
from ambit.local.layout import StateDirectory


class ProcessId(msgspec.Struct, frozen=True):
    """A process, safe against reuse of its number: `started` as `start_time` says."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Raises ProcessLookupError when it is gone, or dead and only not yet reaped by its parent."""
        started = start_time(pid)
        if started is None:
            raise ProcessLookupError(pid)
        return cls(pid, started)

    def is_alive(self) -> bool:
        return start_time(self.pid) == self.started


class InstanceRecord(msgspec.Struct, frozen=True):
    """`supervisor` as the host numbers it; `boot` is the kernel's boot id: process numbers mean nothing after it."""

    name: str
    version: str
    supervisor: ProcessId
    boot: str
    api_port: int
    nodes: int
    rootless: bool

    def is_running(self) -> bool:
        return self.boot == boot_id() and self.supervisor.is_alive()


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_record(state: StateDirectory) -> InstanceRecord | None:
    """None when there is none, or when what is there cannot be read (a half-written or older file)."""
    try:
        return msgspec.json.decode(state.instance.read_bytes(), type=InstanceRecord)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, msgspec.DecodeError):
        return None


def write_record(state: StateDirectory, record: InstanceRecord) -> None:
    """Atomically, readable by the owner only."""
    temporary = state.instance.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(record))
    temporary.replace(state.instance)
