"""One gRPC call over one connection, as little HTTP/2 as that needs: a hundred of them must cost next to nothing.

Spec: RFC 9113, RFC 7541 (literals without indexing only), gRPC over HTTP/2. Windows are as large as can be, so that
the server is never held back by its client.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM = END_OF_ACK = 1
END_HEADERS = 4
ENABLE_PUSH, INITIAL_WINDOW = 2, 4
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
LARGEST_FRAME = 16_384
STREAM = 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header_block(headers: Sequence[tuple[str, str]]) -> bytes:
    """Names and values spelled out, in a form that needs no table."""
    block = bytearray()
    for pair in headers:
        block.append(0)
        for text in pair:
            data = text.encode()
            rest = len(data) - 127
            if rest < 0:
                block.append(len(data))
            else:
                block.append(127)
                while rest > 127:
                    block.append(rest & 127 | 128)
                    rest >>= 7
                block.append(rest)
            block += data
    return bytes(block)


class Call(asyncio.Protocol):
    """A call on a connection of its own. `on_message(bytes)` and `on_end(refused)` are told what happens; `refused`
    says whether the server ended the call, rather than the connection."""

    def __init__(
        self,
        headers: Sequence[tuple[str, str]],
        on_message: Callable[[bytes], None],
        on_end: Callable[[bool], None],
    ) -> None:
        self._headers = headers
        self._on_message = on_message
        self._on_end = on_end
        self._received = bytearray()
        self._body = bytearray()
        self._unsent: deque[bytes] = deque()
        self._windows = {0: FIRST_WINDOW, STREAM: FIRST_WINDOW}
        self._initial = FIRST_WINDOW
        self._taken = 0
        self._refused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = struct.pack(">HIHI", ENABLE_PUSH, 0, INITIAL_WINDOW, LARGEST_WINDOW)
        more = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
        transport.write(
            PREFACE
            + frame(SETTINGS, 0, 0, settings)
            + frame(WINDOW_UPDATE, 0, 0, more)
            + frame(HEADERS, END_HEADERS, STREAM, header_block(self._headers))
        )

    def send(self, message: bytes) -> None:
        data = struct.pack(">BI", 0, len(message)) + message
        self._unsent += (data[at : at + LARGEST_FRAME] for at in range(0, len(data), LARGEST_FRAME))
        self._flush()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        at, end = 0, len(received)
        while end - at >= 9:
            size = received[at] << 16 | received[at + 1] << 8 | received[at + 2]
            after = at + 9 + size
            if after > end:
                break
            kind, flags = received[at + 3], received[at + 4]
            if kind == DATA:
                self._body += memoryview(received)[at + 9 : after]
                self._took(size)
            else:
                stream = int.from_bytes(received[at + 5 : at + 9], "big")
                self._control(kind, flags, stream, bytes(received[at + 9 : after]))
            at = after
        del received[:at]
        self._messages()

    def connection_lost(self, error: Exception | None) -> None:
        self._on_end(self._refused)

    def _messages(self) -> None:
        body, at = self._body, 0
        while len(body) - at >= 5:
            after = at + 5 + int.from_bytes(body[at + 1 : at + 5], "big")
            if len(body) < after:
                break
            self._on_message(bytes(memoryview(body)[at + 5 : after]))
            at = after
        if at:
            del body[:at]

    def _took(self, size: int) -> None:
        self._taken += size
        if self._taken > LARGEST_WINDOW // 2:
            more = struct.pack(">I", self._taken)
            self._write(frame(WINDOW_UPDATE, 0, 0, more) + frame(WINDOW_UPDATE, 0, STREAM, more))
            self._taken = 0

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & END_OF_ACK:
            for number, value in struct.iter_unpack(">HI", payload):
                if number == INITIAL_WINDOW:
                    self._windows[STREAM] += value - self._initial
                    self._initial = value
            self._write(frame(SETTINGS, END_OF_ACK, 0))
        elif kind == WINDOW_UPDATE:
            self._windows[stream] += int.from_bytes(payload, "big")
        elif kind == PING and not flags & END_OF_ACK:
            self._write(frame(PING, END_OF_ACK, 0, payload))
        elif (kind == HEADERS and flags & END_STREAM) or kind in (RESET, GOAWAY):
            self._refused = True
            self.close()
        self._flush()

    def _flush(self) -> None:
        windows = self._windows
        while self._unsent and self._transport is not None:
            room = min(windows[0], windows[STREAM])
            if room < len(self._unsent[0]):
                return
            data = self._unsent.popleft()
            windows[0] -= len(data)
            windows[STREAM] -= len(data)
            self._write(frame(DATA, 0, STREAM, data))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
