"""Commands run in a container for `kubectl exec`: pipes, or a terminal; `ambit.local.streams.ExecSession`."""

import asyncio
import fcntl
import os
import pty
import struct
import termios
from contextlib import AsyncExitStack, suppress

import msgspec

from ambit.local.pods.sandbox import ShimClient
from ambit.local.pods.shim.protocol import Process

_CHUNK = 32 * 1024
_EXIT_LOST = 137


class Session:
    """One running command. Made by `run`; ends when the program ends or at `kill`."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._replies: asyncio.StreamReader | None = None
        self._stdin = -1
        self._terminal = -1
        self._stdout: asyncio.StreamReader | None = None
        self._stderr: asyncio.StreamReader | None = None
        self._exit: asyncio.Future[int] | None = None

    async def start(self, shim: ShimClient, name: str, process: Process, *, stdin: bool, tty: bool) -> None:
        """Raises AmbitError when the program cannot be started."""
        ours: list[int] = []
        theirs: list[int] = []
        try:
            if tty:
                master, slave = pty.openpty()
                ours, theirs = [master], [slave]
                streams = (slave, slave, slave)
            else:
                stdin_end = self._stdin_pipe(stdin, ours, theirs)
                out_read, out_write = os.pipe()
                error_read, error_write = os.pipe()
                ours += [out_read, error_read]
                theirs += [out_write, error_write]
                streams = (stdin_end, out_write, error_write)
            self._replies = await self._stack.enter_async_context(shim.execute(name, process, streams, tty))
        except BaseException:
            for descriptor in ours:
                os.close(descriptor)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        if tty:
            self._terminal = self._stdin = os.dup(ours[0])
            self._stdout = await self._reader(ours[0])
        else:
            self._stdin = ours[0] if stdin else -1
            self._stdout = await self._reader(ours[-2])
            self._stderr = await self._reader(ours[-1])
        if self._stdin >= 0:
            os.set_blocking(self._stdin, False)

    async def read_stdout(self) -> bytes:
        return await self._read(self._stdout)

    async def read_stderr(self) -> bytes:
        return await self._read(self._stderr)

    async def write_stdin(self, data: bytes) -> None:
        """A program that closed its input just does not get it."""
        rest = memoryview(data)
        while rest and self._stdin >= 0:
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await self._writable()
            except OSError:
                return

    async def close_stdin(self) -> None:
        if self._stdin < 0:
            return
        if self._terminal >= 0:
            with suppress(OSError):
                os.write(self._stdin, b"\x04")  # end of file, as typed
            return
        os.close(self._stdin)
        self._stdin = -1

    async def resize(self, columns: int, rows: int) -> None:
        if self._terminal >= 0:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        """The exit code; 137 when the pod went away meanwhile."""
        if self._exit is None:
            self._exit = asyncio.get_running_loop().create_future()
            assert self._replies is not None
            try:
                line = await self._replies.readline()
                self._exit.set_result(
                    int(msgspec.json.decode(line).get("exit_code", _EXIT_LOST)) if line else 137
                )
            except (OSError, msgspec.DecodeError):
                self._exit.set_result(_EXIT_LOST)
            await self.kill()
        return await self._exit

    async def kill(self) -> None:
        """Idempotent; closing the connection to the shim kills the program."""
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = self._terminal = -1
        await self._stack.aclose()

    @staticmethod
    def _stdin_pipe(wanted: bool, ours: list[int], theirs: list[int]) -> int:
        if not wanted:
            theirs.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            return theirs[-1]
        read_end, write_end = os.pipe()
        ours.append(write_end)
        theirs.append(read_end)
        return read_end

    async def _reader(self, descriptor: int) -> asyncio.StreamReader:
        reader = asyncio.StreamReader(limit=_CHUNK)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        self._stack.callback(transport.close)
        return reader

    @staticmethod
    async def _read(reader: asyncio.StreamReader | None) -> bytes:
        if reader is None:
            return b""
        try:
            return await reader.read(_CHUNK)
        except OSError:
            return b""  # a terminal whose program ended answers EIO

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(self._stdin, ready.set_result, None)
        try:
            await ready
        finally:
            loop.remove_writer(self._stdin)
