"""The socket that Envoy posts its access log to: HTTP/1.1, one message per request, the answer always 200.

Not gRPC, as everything else between Envoy and agent: a call of grpc.aio costs as much as reading two hundred lines, and
the only peer is our own Envoy, in a directory that is closed to everybody else.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from ambit.core.errors import EnvironmentProblem
from ambit.envoy.names import LINES_PATH, LOGS_PATH

_log = logging.getLogger("ambit.logs")
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_END = b"\r\n\r\n"
_LONGEST_LINE = 200
_LARGEST = 16 << 20
"""Bytes of one request; Envoy's buffer is a small part of that."""


class LogServer:
    """Serves until `stop`. `taken` gets each message as it came; `printed` those of lines that are to be printed."""

    def __init__(
        self, path: Path, taken: Callable[[bytes], None], printed: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self._path = path
        self._taken = {LINES_PATH: printed, LOGS_PATH: taken}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Transport] = set()

    async def start(self) -> None:
        """Listens. Raises EnvironmentProblem when the socket cannot be made."""
        self._path.unlink(missing_ok=True)
        try:
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Requests(self._taken, self._open), self._path
            )
        except OSError as problem:
            raise EnvironmentProblem(f"cannot listen on {self._path}: {problem.strerror}") from problem

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for transport in self._open:
            transport.close()


class _Requests(asyncio.Protocol):
    """One connection. What is not HTTP as Envoy speaks it ends the connection."""

    def __init__(self, taken: Mapping[str, Callable[[bytes], None]], known: set[asyncio.Transport]) -> None:
        self._taken = taken
        self._known = known
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._known.add(transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._transport is not None:
            self._known.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        assert self._transport is not None
        try:
            while (found := parse(self._data)) is not None:
                message, length = found
                take = self._taken.get(_target(self._data))
                del self._data[:length]
                self._transport.write(_ANSWER)
                if take is not None:
                    take(message)
        except ValueError as problem:
            _log.error("the access log cannot be read: %s", problem)
            self._transport.close()


def parse(data: bytes | bytearray) -> tuple[bytes, int] | None:
    """The body of the first request in `data`, and the length of that request; None while it is incomplete.

    Raises ValueError for what is not a request with a body of chunks or of a given length.
    """
    head, separator, _ = data.partition(_END)
    if len(data) > 2 * _LARGEST:
        raise ValueError("a request without end")
    if not separator:
        return None
    begin = len(head) + len(_END)
    fields = dict(_field(line) for line in bytes(head).split(b"\r\n")[1:])
    if fields.get(b"transfer-encoding") == b"chunked":
        return _chunks(data, begin)
    end = begin + _number(fields.get(b"content-length", b""), 10)
    return (bytes(data[begin:end]), end) if len(data) >= end else None


def _chunks(data: bytes | bytearray, position: int) -> tuple[bytes, int] | None:
    """Without trailers, which Envoy sends for gRPC only."""
    body = bytearray()
    while (line_end := data.find(b"\r\n", position)) >= 0:
        begin = line_end + 2
        size = _number(bytes(data[position:line_end]), 16)
        position = begin + size + 2
        if len(data) < position:
            return None
        if data[position - 2 : position] != b"\r\n":
            raise ValueError("a chunk of another length than it says")
        if not size:
            return bytes(body), position
        body += data[begin : begin + size]
    return None


def _target(data: bytearray) -> str:
    """The path that the first request is for."""
    line, _, _ = bytes(data[:_LONGEST_LINE]).partition(b"\r\n")
    words = line.split(b" ")
    return words[1].decode("ascii", "replace") if len(words) == 3 else ""


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.strip().lower(), value.strip()


def _number(text: bytes, base: int) -> int:
    """Digits only: `int` would take signs and underscores. Raises ValueError."""
    value = int(text, base) if text.isalnum() else -1
    if not 0 <= value <= _LARGEST:
        raise ValueError(f"a length of {text!r}")
    return value
