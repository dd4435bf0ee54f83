"""What the API server needs of whoever runs pods: logs, exec and connections into a pod."""

from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec


class LogOptions(msgspec.Struct, frozen=True):
    """Kubernetes PodLogOptions. `since` is a Unix time in seconds; None means no limit."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: float | None = None
    limit_bytes: int | None = None


class ExecSession(Protocol):
    """A running command. Reading ends with b"" when that stream ends."""

    async def read_stdout(self) -> bytes: ...
    async def read_stderr(self) -> bytes: ...
    async def write_stdin(self, data: bytes) -> None: ...
    async def close_stdin(self) -> None: ...
    async def resize(self, columns: int, rows: int) -> None: ...
    async def wait(self) -> int: ...
    async def kill(self) -> None: ...


class PodStreams(Protocol):
    """Raises `LookupError` with one sentence when the pod or container does not run (or never ran)."""

    def read_log(
        self, namespace: str, pod: str, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]: ...

    async def exec(
        self, namespace: str, pod: str, container: str, command: list[str], *, stdin: bool, tty: bool
    ) -> ExecSession: ...

    async def dial(self, namespace: str, pod: str, port: int) -> tuple[StreamReader, StreamWriter]:
        """A TCP connection to 127.0.0.1:port inside the pod's network namespace (as kubelet does)."""
        ...
