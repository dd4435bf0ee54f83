"""Pods as processes of this machine, for tests of the API server's pod subresources."""

import asyncio
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator

from ambit.local.streams import ExecSession, LogOptions


class HostSession:
    def __init__(self, process: Process) -> None:
        self._process = process

    async def read_stdout(self) -> bytes:
        assert self._process.stdout
        return await self._process.stdout.read(65536)

    async def read_stderr(self) -> bytes:
        assert self._process.stderr
        return await self._process.stderr.read(65536)

    async def write_stdin(self, data: bytes) -> None:
        assert self._process.stdin
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def close_stdin(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        pass

    async def wait(self) -> int:
        return await self._process.wait()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class HostStreams:
    """Every pod runs commands here; its log is `lines`; its ports are this machine's."""

    def __init__(self) -> None:
        self.lines = [b"one\n", b"two\n"]
        self.options: list[LogOptions] = []

    async def read_log(
        self, namespace: str, pod: str, container: str, options: LogOptions
    ) -> AsyncIterator[bytes]:
        if pod == "silent":
            raise LookupError(f"container {container} of pod {pod} did not start")
        self.options.append(options)
        for line in self.lines[-options.tail_lines :] if options.tail_lines else self.lines:
            yield line

    async def exec(
        self, namespace: str, pod: str, container: str, command: list[str], *, stdin: bool, tty: bool
    ) -> ExecSession:
        return HostSession(
            await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        )

    async def dial(self, namespace: str, pod: str, port: int) -> tuple[StreamReader, StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)
