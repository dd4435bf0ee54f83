"""A tiny HTTP/2 client that can only ask CONNECT questions: real streams with hand-made frames (RFC 9113, 7541)."""

import socket
import ssl
import struct

_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK, _END_HEADERS = 1, 4
_CANCEL = 8
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_NO_DYNAMIC_TABLE = struct.pack(">HI", 1, 0)
_STATUS_200 = 0x88
"""`:status: 200` in the static table of header compression."""


class ConnectClient:
    """One connection; each question is a stream of its own."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = context.wrap_socket(connection)
        self._stream = -1
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, _NO_DYNAMIC_TABLE))

    def close(self) -> None:
        self._socket.close()

    def is_allowed(self, authority: str) -> bool:
        """Whether CONNECT to `authority` is answered with 200."""
        self._stream += 2
        headers = b"\x02\x07CONNECT" + b"\x01" + bytes([len(authority)]) + authority.encode()
        self._socket.sendall(_frame(_HEADERS, _END_HEADERS, self._stream, headers))
        while True:
            kind, flags, stream, body = self._read()
            if kind == _SETTINGS and not flags & _ACK:
                self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _PING and not flags & _ACK:
                self._socket.sendall(_frame(_PING, _ACK, 0, body))
            elif kind == _GOAWAY:
                raise AssertionError(f"the server went away: {body!r}")
            elif stream == self._stream and kind == _RST:
                return False
            elif stream == self._stream and kind == _HEADERS:
                self._socket.sendall(_frame(_RST, 0, self._stream, struct.pack(">I", _CANCEL)))
                # The first block begins with updates of the table's size (RFC 7541 section 6.3).
                return next(each for each in body if each >> 5 != 1) == _STATUS_200

    def _read(self) -> tuple[int, int, int, bytes]:
        head = self._exactly(9)
        length = int.from_bytes(head[:3], "big")
        return head[3], head[4], int.from_bytes(head[5:], "big"), self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self._socket.recv(length - len(data))
            if not part:
                raise AssertionError("the server closed the connection")
            data += part
        return data


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
