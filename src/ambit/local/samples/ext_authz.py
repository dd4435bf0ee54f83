"""Istio's ext-authz: lets in requests with the header `x-ext-authz: allow`, asked by HTTP (port 8000) or gRPC (9000).

Of HTTP/2 it knows what a proxy needs that asks: each stream is one call, and what is asked is in its data.
"""

import struct
import threading
from typing import Any

from ambit.local.samples.web import Request, Response, listen, say, serve

_HEADER, _RESULT = "x-ext-authz", "x-ext-authz-check-result"
_DENIED = f"denied by ext_authz for not found header `{_HEADER}: allow` in the request"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_ENDS, _WHOLE, _ANSWER = 1, 4, 1
_PREFACE = 24


def main() -> None:
    threading.Thread(target=_serve_grpc, args=[9000], daemon=True).start()
    serve(8000, handle)


def handle(request: Request) -> Response:
    """The check by HTTP."""
    if request.headers.get(_HEADER) == "allow":
        return Response(200, headers={_RESULT: "allowed"})
    return Response(403, _DENIED.encode(), headers={_RESULT: "denied"})


def check(asked: bytes) -> bytes:
    """The check by gRPC (`envoy.service.auth.v3`): a CheckResponse to a CheckRequest, whose headers are entries of a
    map of strings."""
    entry = _field(1, _HEADER.encode()) + _field(2, b"allow")
    if entry in asked:
        said = _field(1, _RESULT.encode()) + _field(2, b"allowed")
        return _field(1, b"") + _field(3, _field(2, _field(1, said)))
    said = _field(1, _RESULT.encode()) + _field(2, b"denied")
    denied = (
        _field(1, b"\x08\x93\x03") + _field(2, _field(1, said)) + _field(3, _DENIED.encode())
    )  # status 403
    return _field(1, b"\x08\x07") + _field(2, denied)  # PERMISSION_DENIED


def _field(number: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + content


def _serve_grpc(port: int) -> None:
    listener = listen(port)
    say(f"listening on port {port}, gRPC")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_converse, args=[connection], daemon=True).start()


def _converse(connection: Any) -> None:
    def send(kind: int, flags: int, stream: int, body: bytes = b"") -> None:
        head = struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
        connection.sendall(head + body)

    asked: dict[int, bytes] = {}
    try:
        with connection, connection.makefile("rb") as given:
            given.read(_PREFACE)
            send(_SETTINGS, 0, 0)
            while len(head := given.read(9)) == 9:
                body = given.read(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind in (_SETTINGS, _PING) and not flags & _ANSWER:
                    send(kind, _ANSWER, 0, body if kind == _PING else b"")
                if kind != _DATA:
                    continue
                if body:
                    send(_WINDOW_UPDATE, 0, 0, struct.pack(">I", len(body)))
                asked[stream] = asked.get(stream, b"") + body
                if flags & _ENDS:
                    said = check(asked.pop(stream))
                    say(f"gRPC {'allowed' if b'allowed' in said else 'denied'}")
                    send(_HEADERS, _WHOLE, stream, b"\x88" + _literal(b"content-type", b"application/grpc"))
                    send(_DATA, 0, stream, b"\0" + struct.pack(">I", len(said)) + said)
                    send(_HEADERS, _WHOLE | _ENDS, stream, _literal(b"grpc-status", b"0"))
    except OSError:
        return


def _literal(name: bytes, value: bytes) -> bytes:
    """A header that is not remembered (RFC 7541 section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
