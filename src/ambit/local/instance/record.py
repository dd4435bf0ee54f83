"""What an instance writes down about itself, so that later commands find it and know whether it lives."""

import os
from pathlib import Path

import msgspec

from ambit.local.layout import StateDirectory


class ProcessId(msgspec.Struct, frozen=True):
    """A process, safe against reuse of its number: `started` is field 22 of /proc/<pid>/stat, in clock ticks."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Raises ProcessLookupError when it is gone, or dead and only not yet reaped by its parent."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError(pid) from None
        fields = stat.rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            raise ProcessLookupError(pid)
        return cls(pid, int(fields[19]))

    def is_alive(self) -> bool:
        try:
            return ProcessId.of(self.pid) == self
        except ProcessLookupError:
            return False


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
