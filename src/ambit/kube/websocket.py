"""The client's side of a WebSocket connection (RFC 6455), without I/O.

Binary messages only; a fragmented message is delivered piece by piece, because our users read a byte stream.
"""

import base64
import hashlib
import os
import struct
from collections.abc import Iterator

MAX_FRAME = 16 * 1024 * 1024
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class WebSocketError(ValueError):
    """The peer broke the WebSocket framing, or did not accept the upgrade properly."""


def upgrade_headers(key: str, protocol: str) -> dict[str, str]:
    """Request headers that ask for a WebSocket with one subprotocol."""
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": protocol,
    }


def new_key() -> str:
    """A fresh random Sec-WebSocket-Key."""
    return base64.b64encode(os.urandom(16)).decode()


def check_answer(key: str, protocol: str, headers: dict[str, str]) -> None:
    """Check the headers of a 101 answer. Raises `WebSocketError`."""
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    if headers.get("sec-websocket-accept") != base64.b64encode(digest).decode():
        raise WebSocketError("the server's answer to the WebSocket key is wrong")
    if headers.get("sec-websocket-protocol") != protocol:
        raise WebSocketError(f"the server does not speak {protocol}")


class WebSocket:
    """Frames in and out. `output()` gives the bytes to send, answers to pings included."""

    def __init__(self) -> None:
        self._input = bytearray()
        self._output = bytearray()
        self.is_closed = False
        """The peer sent its close frame."""

    def output(self) -> bytes:
        """The bytes to send now; empties the buffer."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def send(self, data: bytes) -> None:
        """Send one binary message."""
        self._frame(_BINARY, data)

    def close(self, code: int = 1000) -> None:
        """Send the close frame."""
        self._frame(_CLOSE, struct.pack(">H", code))

    def receive(self, data: bytes) -> Iterator[bytes]:
        """Take bytes from the peer; payloads of data frames come out. Raises `WebSocketError`."""
        self._input += data
        while (head := self._head()) is not None:
            opcode, start, length = head
            if len(self._input) < start + length:
                return
            payload = bytes(memoryview(self._input)[start : start + length])
            del self._input[: start + length]
            match opcode:
                case 0x0 | 0x1 | 0x2:
                    if payload:
                        yield payload
                case 0x8:
                    if not self.is_closed:
                        self.is_closed = True
                        self._frame(_CLOSE, payload[:2])
                case 0x9:
                    self._frame(_PONG, payload)
                case 0xA:
                    continue
                case _:
                    raise WebSocketError(f"unknown opcode {opcode:#x}")

    def _head(self) -> tuple[int, int, int] | None:
        """Opcode, start of the payload and its length, if the frame's head is complete."""
        if len(self._input) < 2:
            return None
        first, second = self._input[0], self._input[1]
        if first & 0x70 or second & 0x80:
            raise WebSocketError("a frame from a server has reserved bits or a mask")
        length, start = second & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(self._input) < start:
                return None
            length = int.from_bytes(self._input[2:start])
        if length > MAX_FRAME:
            raise WebSocketError(f"a frame of {length} bytes is more than we accept")
        return first & 0x0F, start, length

    def _frame(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        if length < 126:
            head = struct.pack(">BB", 0x80 | opcode, 0x80 | length)
        elif length < 65536:
            head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, length)
        mask = os.urandom(4)
        self._output += head + mask + _masked(payload, mask)


def _masked(payload: bytes, mask: bytes) -> bytes:
    length = len(payload)
    pad = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(length)
