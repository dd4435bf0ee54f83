"""A very small HTTP/1.1 server and client for the samples: threads, keep-alive, plain bodies.

`http.server` would do, at twice the memory for each pod (it imports the whole mail package).
"""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_LONGEST_HEAD = 64 * 1024
_LONGEST_BODY = 16 * 1024 * 1024
_IDLE = 300.0
_REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    418: "I'm a teapot",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Request:
    """Header names are in lower case; `shown` keeps them as they came."""

    def __init__(
        self, method: str, target: str, shown: list[tuple[str, str]], body: bytes, peer: str
    ) -> None:
        parts = urlsplit(target)
        self.method = method
        self.path = unquote(parts.path) or "/"
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.target = target
        self.shown = shown
        self.headers = {name.lower(): value for name, value in shown}
        self.body = body
        self.peer = peer


class Response:
    def __init__(
        self, status: int, body: bytes = b"", kind: str = "text/plain", headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.headers = {"Content-Type": kind, **(headers or {})}


Handler = Callable[[Request], Response]


def in_json(value: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(value).encode() + b"\n", "application/json")


def serve(port: int, handler: Handler) -> None:
    """Listen on all addresses of both families, for ever; SIGTERM ends the process at once."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listener = listen(port)
    say(f"listening on port {port}")
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=_converse, args=(connection, str(peer[0]), handler), daemon=True).start()


def listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", port))
    listener.listen(1024)
    return listener


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fetch(
    host: str, port: int, path: str, headers: dict[str, str], timeout: float, method: str = "GET"
) -> tuple[int, bytes]:
    """(status, body) of a GET. Raises OSError or ValueError."""
    with socket.create_connection((host, port), timeout) as connection:
        sent = {"Host": f"{host}:{port}", "Connection": "close", **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))
        stream = connection.makefile("rb")
        status = int(stream.readline(_LONGEST_HEAD).split()[1])
        answered = {name.lower(): value for name, value in _read_headers(stream)}
        if "chunked" in answered.get("transfer-encoding", ""):
            return status, _read_chunks(stream)
        length = answered.get("content-length")
        return status, stream.read(int(length)) if length is not None else stream.read()


def _converse(connection: socket.socket, peer: str, handler: Handler) -> None:
    try:
        connection.settimeout(_IDLE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = connection.makefile("rb")
        while _one_request(connection, stream, peer.removeprefix("::ffff:"), handler):
            pass
    except (OSError, ValueError, IndexError):
        return
    finally:
        connection.close()


def _one_request(connection: socket.socket, stream: Any, peer: str, handler: Handler) -> bool:
    line = stream.readline(_LONGEST_HEAD)
    if not line.strip():
        return False
    method, target, version = line.decode("latin-1").split()
    shown = _read_headers(stream)
    headers = {name.lower(): value for name, value in shown}
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", ""):
        body = _read_chunks(stream)
    else:
        body = stream.read(min(int(headers.get("content-length", "0")), _LONGEST_BODY))
    request = Request(method, target, shown, body, peer)
    try:
        response = handler(request)
    except Exception as problem:  # noqa: BLE001 - one bad request must not end the sample
        say(f"error: {problem!r}")
        response = Response(500, b"internal error\n")
    keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    _send(connection, response, method, keep)
    say(f"{peer} {method} {target} {response.status}")
    return keep


def _send(connection: socket.socket, response: Response, method: str, keep: bool) -> None:
    headers = {**response.headers, "Content-Length": str(len(response.body))}
    headers["Connection"] = "keep-alive" if keep else "close"
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    reason = _REASONS.get(response.status, "Status")
    body = b"" if method == "HEAD" or response.status in {204, 304} else response.body
    connection.sendall(f"HTTP/1.1 {response.status} {reason}\r\n{head}\r\n".encode("latin-1") + body)


def _read_headers(stream: Any) -> list[tuple[str, str]]:
    headers: list[tuple[str, str]] = []
    while True:
        line = stream.readline(_LONGEST_HEAD).decode("latin-1").rstrip("\r\n")
        if not line:
            return headers
        name, _, value = line.partition(":")
        headers.append((name.strip(), value.strip()))


def _read_chunks(stream: Any) -> bytes:
    parts: list[bytes] = []
    while True:
        size = int(stream.readline(_LONGEST_HEAD).split(b";")[0], 16)
        if size == 0:
            _read_headers(stream)
            return b"".join(parts)
        parts.append(stream.read(size))
        stream.readline(_LONGEST_HEAD)
