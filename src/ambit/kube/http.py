"""A small HTTP/1.1 client for one server: pooled connections, streamed bodies, protocol upgrades.

The node agent and the command line must stay small and start fast, so this replaces a general client library
(about 15 MB and 100 ms) by what the Kubernetes API needs. RFC 9112 framing: Content-Length, chunked, or until
close.

A GET that fails on a reused connection before one byte of answer came is sent again once on a fresh
connection; other methods may have been executed and are reported as `Unreachable`.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

import msgspec

from ambit.core.errors import Unreachable

MAX_HEAD = 64 * 1024
MOST_INTERIM = 16
"""Answers of class 1xx before the real one."""
MOST_TRAILERS = 128
CONNECT_TIMEOUT = 10.0
IDLE_LIFETIME = 30.0
"""Seconds an unused connection is kept; below the keep-alive limits of servers (75 s and more)."""
IDLE_CONNECTIONS = 8
_READ = 256 * 1024


class Address(msgspec.Struct, frozen=True):
    """Where the server listens: a Unix socket path, or a host and port."""

    host: str = ""
    port: int = 0
    unix_path: str = ""

    def __str__(self) -> str:
        return self.unix_path or f"{self.host}:{self.port}"


class Writer(Protocol):
    """What we need of an asyncio StreamWriter."""

    def write(self, data: bytes, /) -> None: ...
    async def drain(self) -> None: ...
    def is_closing(self) -> bool: ...
    def close(self) -> None: ...


class Connection:
    """One open connection, used by one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.reader = reader
        self.writer = writer
        self.idle_since = 0.0

    def is_usable(self, now: float) -> bool:
        return (
            not self.reader.at_eof()
            and not self.writer.is_closing()
            and self.reader.exception() is None
            and now - self.idle_since < IDLE_LIFETIME
        )

    def close(self) -> None:
        with suppress(OSError, RuntimeError):
            self.writer.close()


class Response:
    """An answer whose body is still on the wire. Use it as a context manager, or `read()` it to the end."""

    def __init__(
        self, status: int, headers: dict[str, str], connection: Connection, pool: "Transport", method: str
    ) -> None:
        self.status = status
        self.headers = headers
        self.connection = connection
        self._pool = pool
        self._done = False
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        self._length = int(length) if length is not None and length.isdigit() else None
        if method == "HEAD" or status in (204, 304) or (self._length == 0 and not self._chunked):
            self._finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the rest of the body."""
        if not self._done:
            self._done = True
            self.connection.close()

    async def read(self) -> bytes:
        """The whole body. Raises `Unreachable` when the connection breaks before its end."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Pieces of the body as they come. Raises `Unreachable` when the connection breaks before its end."""
        if self._done:
            return
        source = self._chunks_chunked() if self._chunked else self._chunks_plain()
        try:
            async for chunk in source:
                yield chunk
                del chunk  # it may be long, and the next one may take hours
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            self.close()
            raise Unreachable(f"the connection to {self._pool.name} broke off: {error}") from error
        self._finish()

    async def lines(self) -> AsyncIterator[bytes]:
        """The body cut at newlines, without them; a last unfinished line is dropped."""
        rest = bytearray()
        async for chunk in self.chunks():
            rest += chunk
            if b"\n" in chunk:
                *lines, tail = bytes(rest).split(b"\n")
                rest = bytearray(tail)
                lines.reverse()
                while lines:
                    if line := lines.pop():
                        yield line
            chunk = line = b""  # nothing is kept while the next one is waited for

    async def _chunks_plain(self) -> AsyncIterator[bytes]:
        reader = self.connection.reader
        if self._length is None:
            while data := await reader.read(_READ):
                yield data
            return
        left = self._length
        while left:
            data = await reader.read(min(left, _READ))
            if not data:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(data)
            yield data

    async def _chunks_chunked(self) -> AsyncIterator[bytes]:
        reader = self.connection.reader
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";", 1)[0].strip(), 16)
            if size == 0:
                break
            while size:
                # Whatever the server calls one chunk is not kept as a whole.
                piece = await reader.readexactly(min(size, _READ))
                size -= len(piece)
                yield piece
                del piece
            await reader.readexactly(2)
        for _ in range(MOST_TRAILERS):
            if await reader.readuntil(b"\r\n") == b"\r\n":
                return
        raise ValueError(f"more than {MOST_TRAILERS} trailers")

    def _finish(self) -> None:
        self._done = True
        if self.headers.get("connection", "").lower() == "close" or (
            not self._chunked and self._length is None and self.status not in (204, 304)
        ):
            self.connection.close()
        else:
            self._pool.put_back(self.connection)


class Transport:
    """All connections to one server. `tls=None` means plain HTTP."""

    def __init__(
        self,
        address: Address,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        host_header: str = "localhost",
        name: str = "",
    ) -> None:
        self.address = address
        self.name = name or f"the API server at {address}"
        """What error messages call it."""
        self._hint = "" if name else "is the cluster running?"
        self._tls = tls
        self._server_name = server_name
        self._host = host_header
        self._idle: list[Connection] = []
        self._closed = False

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", timeout: float = 60.0
    ) -> Response:
        """Send one request and wait for the head of the answer, at most `timeout` seconds.

        Raises `Unreachable` when the server cannot be reached or breaks off.
        """
        head = [f"{method} {target} HTTP/1.1", f"Host: {self._host}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        if body or method in ("POST", "PUT", "PATCH"):
            head.append(f"Content-Length: {len(body)}")
        data = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body
        reused = self._take()
        if reused is not None:
            try:
                async with asyncio.timeout(timeout):
                    return await self._exchange(reused, method, data)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                reused.close()
                if method != "GET" or isinstance(error, TimeoutError):
                    raise self._unreachable(error) from error
            except BaseException:
                reused.close()
                raise
        connection = await self.connect()
        try:
            async with asyncio.timeout(timeout):
                return await self._exchange(connection, method, data)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            connection.close()
            raise self._unreachable(error) from error
        except BaseException:
            connection.close()
            raise

    async def connect(self) -> Connection:
        """A fresh connection. Raises `Unreachable`."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if self.address.unix_path:
                    reader, writer = await asyncio.open_unix_connection(
                        self.address.unix_path, limit=MAX_HEAD
                    )
                else:
                    reader, writer = await asyncio.open_connection(
                        self.address.host,
                        self.address.port,
                        limit=MAX_HEAD,
                        ssl=self._tls,
                        server_hostname=(self._server_name or self.address.host) if self._tls else None,
                    )
        except (OSError, ssl.SSLError) as error:
            raise self._unreachable(error) from error
        _keep_alive(writer.get_extra_info("socket"))
        return Connection(reader, writer)

    def put_back(self, connection: Connection) -> None:
        """Keep a connection whose last answer was read to its end."""
        if self._closed or len(self._idle) >= IDLE_CONNECTIONS:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)

    def close(self) -> None:
        """Close all idle connections and keep none from now on."""
        self._closed = True
        self.drop_idle()

    def drop_idle(self) -> None:
        """Close the connections that are not in use; the next request opens a fresh one."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _take(self) -> Connection | None:
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(now):
                return connection
            connection.close()
        return None

    async def _exchange(self, connection: Connection, method: str, data: bytes) -> Response:
        connection.writer.write(data)
        await connection.writer.drain()
        for _ in range(MOST_INTERIM + 1):
            head = await connection.reader.readuntil(b"\r\n\r\n")
            status, headers = parse_head(head)
            if status >= 200 or status == 101:
                return Response(status, headers, connection, self, method)
        raise ValueError(f"more than {MOST_INTERIM} interim answers")

    def _unreachable(self, error: BaseException) -> Unreachable:
        what = "it did not answer in time" if isinstance(error, TimeoutError) else str(error) or repr(error)
        return Unreachable(f"cannot reach {self.name}: {what}", self._hint)


def _keep_alive(connection: socket.socket | None) -> None:
    """Let the kernel notice a dead peer within a minute: a watch may be silent for long, and laptops sleep."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for option, value in ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status code and headers (names in lower case, repeated ones joined by a comma) of an answer's head.

    Raises ValueError when it is not HTTP/1.
    """
    first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    version, _, tail = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not an HTTP/1 answer: {first[:60]!r}")
    headers: dict[str, str] = {}
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"malformed header line: {line[:60]!r}")
        key = name.strip().lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    return int(tail[:3]), headers
