"""What attackers write: requests of two meanings, spellings of a path, floods of frames; and a server that is strict
about what reaches it."""

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self
from urllib.parse import unquote_to_bytes

import msgspec
from hpack import Decoder, Encoder

from tests.plan.dataplane.network import Host

DENIED = "/denied"
"""No request for it, or for what is below it, is to reach a server."""
HOST = "shop.example.com"
HIDDEN = f"GET {DENIED} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
"""What a second reader of the same bytes would take for a request."""


def _request(
    *lines: str, body: bytes = b"", start: str = "POST / HTTP/1.1", host: str | None = HOST
) -> bytes:
    named = [f"host: {host}"] if host is not None else []
    return "\r\n".join([start, *named, *lines, "", ""]).encode("latin-1") + body


_CHUNKED = "transfer-encoding: chunked"
_AS_CHUNK = f"{len(HIDDEN):x}\r\n".encode() + HIDDEN + b"\r\n0\r\n\r\n"
_AFTER_CHUNKS = b"0\r\n\r\n" + HIDDEN
_LENGTH = f"content-length: {len(HIDDEN)}"
_BODY_OR_SECOND = {
    "CL.TE": _request(f"content-length: {len(_AFTER_CHUNKS)}", _CHUNKED, body=_AFTER_CHUNKS),
    "TE.CL": _request(_CHUNKED, "content-length: 4", body=_AS_CHUNK),
    "two lengths": _request("content-length: 0", _LENGTH, body=HIDDEN),
    "two lengths, the other way round": _request(_LENGTH, "content-length: 0", body=HIDDEN),
    "two lengths in one": _request(f"content-length: 0, {len(HIDDEN)}", body=HIDDEN),
    "a length with a sign": _request(f"content-length: +{len(HIDDEN)}", body=HIDDEN),
    "a length with zero and x": _request(f"content-length: 0x{len(HIDDEN):x}", body=HIDDEN),
    "a length with an underscore": _request("content-length: 4_7", body=HIDDEN),
    "a space before the colon": _request(f"content-length : {len(HIDDEN)}", body=HIDDEN),
    "chunked with a space before the colon": _request(
        "transfer-encoding : chunked", _LENGTH, body=HIDDEN
    ),
    "identity, chunked": _request("transfer-encoding: identity, chunked", body=_AS_CHUNK),
    "chunked, identity": _request("transfer-encoding: chunked, identity", body=_AS_CHUNK),
    "chunked twice": _request(_CHUNKED, _CHUNKED, body=_AS_CHUNK),
    "xchunked": _request("transfer-encoding: xchunked", _LENGTH, body=HIDDEN),
    "chunked behind a tab": _request("transfer-encoding:\x0bchunked", _LENGTH, body=HIDDEN),
    "chunked in quotes": _request('transfer-encoding: "chunked"', _LENGTH, body=HIDDEN),
    "an underscore for the hyphen": _request("transfer_encoding: chunked", _LENGTH, body=HIDDEN),
    "a folded line": _request("x: y\r\n transfer-encoding: chunked", _LENGTH, body=HIDDEN),
    "a fold inside of chunked": _request("transfer-encoding:\r\n chunked", _LENGTH, body=HIDDEN),
    "a return alone": _request("x: y\rtransfer-encoding: chunked", _LENGTH, body=HIDDEN),
    "a line feed alone": _request("x: y\ntransfer-encoding: chunked", _LENGTH, body=HIDDEN),
    "a zero byte": _request("x: y\0z", _LENGTH, body=HIDDEN),
    "chunked in HTTP/1.0": _request(_CHUNKED, _LENGTH, start="POST / HTTP/1.0", body=_AS_CHUNK),
    "a chunk's size too large": _request(_CHUNKED, body=b"1" + b"0" * 16 + b"\r\n" + HIDDEN),
    "a chunk's size below zero": _request(_CHUNKED, body=b"-1\r\n" + HIDDEN),
    "a chunk with more than its size": _request(_CHUNKED, body=b"1\r\naX\r\n0\r\n\r\n" + HIDDEN),
    "a chunk's extension over two lines": _request(_CHUNKED, body=b"0;a\n" + HIDDEN + b"\r\n\r\n"),
    "trailers with a length": _request(
        _CHUNKED, body=b"0\r\ncontent-length: 999\r\nhost: other\r\n\r\n"
    ),
    "GET with a body": _request(_LENGTH, start="GET / HTTP/1.1", body=HIDDEN),
    "a promise to wait": _request("expect: 100-continue", _LENGTH, body=HIDDEN),
    "HTTP/2 in the clear": _request(
        "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA", _LENGTH,
        body=HIDDEN,
    ),
    "a length that a header takes away": _request("connection: content-length", _LENGTH, body=HIDDEN),
    "chunked that a header takes away": _request(
        "connection: transfer-encoding", _CHUNKED, body=_AS_CHUNK
    ),
    "an answer for a websocket": _request(
        "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", start="GET / HTTP/1.1", body=HIDDEN,
    ),
    "a websocket with a length": _request(
        "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "content-length: 0",
        "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", start="GET / HTTP/1.1", body=HIDDEN,
    ),
    "a tunnel": _request(start=f"CONNECT {HOST}:80 HTTP/1.1", body=HIDDEN),
    "a tunnel to a path": _request(start=f"CONNECT {DENIED} HTTP/1.1", body=HIDDEN),
}  # fmt: skip
_ONE_REQUEST = {
    "no version": f"GET {DENIED}\r\n\r\n".encode(),
    "HTTP/2.0": _request(start=f"GET {DENIED} HTTP/2.0"),
    "HTTP/1.2": _request(start=f"GET {DENIED} HTTP/1.2"),
    "HTTP/11": _request(start=f"GET {DENIED} HTTP/11"),
    "two spaces": _request(start=f"GET  {DENIED} HTTP/1.1"),
    "a tab": _request(start=f"GET\t{DENIED}\tHTTP/1.1"),
    "a space in the path": _request(start=f"GET {DENIED} / HTTP/1.1"),
    "a method of one's own": _request(start=f"get {DENIED} HTTP/1.1"),
    "lines before": b"\r\n\r\n" + _request(start=f"GET {DENIED} HTTP/1.1"),
    "two hosts": _request("host: other", start=f"GET {DENIED} HTTP/1.1"),
    "no host": _request(start=f"GET {DENIED} HTTP/1.1", host=None),
    "a host with a path": _request(start="GET / HTTP/1.1", host=f"{HOST}{DENIED}"),
    "a host with a user": _request(start=f"GET {DENIED} HTTP/1.1", host=f"a@{HOST}"),
    "the absolute form": _request(start=f"GET http://{HOST}{DENIED} HTTP/1.1"),
    "the absolute form of another host": _request(start=f"GET http://other{DENIED} HTTP/1.1"),
    "the absolute form of another scheme": _request(start=f"GET ftp://{HOST}{DENIED} HTTP/1.1"),
    "the absolute form without a host": _request(start=f"GET http://{DENIED} HTTP/1.1"),
    "who is in front (1)": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 80\r\n" + _request(start=f"GET {DENIED} HTTP/1.1"),
    "who is in front (2)": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12) + HIDDEN,
    "headers that rewrite": _request(
        f"x-original-url: {DENIED}", f"x-rewrite-url: {DENIED}", f"x-envoy-original-path: {DENIED}",
        start="GET / HTTP/1.1",
    ),
    "another method in a header": _request("x-http-method-override: DELETE", start=f"GET {DENIED} HTTP/1.1"),
}  # fmt: skip
ATTACKS = {**_BODY_OR_SECOND, **_ONE_REQUEST}


def spellings(word: str = DENIED) -> list[str]:
    """Targets that some server may read as `word`, or as what is below it."""
    name = word.lstrip("/")
    first = f"%{ord(name[0]):02x}"
    names = (
        name,
        first + name[1:],
        f"%25{first[1:]}{name[1:]}",
        f"{name};a=b",
        f"{name}%00",
        f"{name}%2f..%2f{name}",
    )
    before = (
        *(
            "/",
            "//",
            "/./",
            "/x/../",
            "/%2e/",
            "/x/%2e%2e/",
            "/x/..%2f",
            "/x%2f..%2f",
            "/x/..;/",
            "/;a/",
            "/x\\..\\",
        ),
        *(
            "\\",
            "/\\",
            "/%5c",
            "/%2f",
            "/%252f",
            "/x/%252e%252e/",
            "/x/.%2e/",
            "/%2e%2e/",
            "/x/..%5c",
            "/x/..%255c",
        ),
    )
    after = ("", "/", "/..%2f" + name, "?/..", "/./a", "%2fa", ";/a", "%3fa/b", "%23")
    return ["".join(each) for each in itertools.product(before, names, after)]


def harmful(target: str, word: str = DENIED) -> bool:
    """Whether some server reads a target as `word` or below it."""
    return word.strip("/") in readings(target)


def readings(target: str) -> set[str]:
    """First segments of a target as the most willing servers read it: with escapes undone so and so often, backslashes
    for slashes, parameters dropped, several slashes for one, dots followed, nothing after a zero."""
    path = target.partition("?")[0].encode("latin-1")
    found: set[bytes] = set()
    while path not in found:
        found.add(path)
        path = unquote_to_bytes(path)
    return {_resolved(each.replace(b"\\", b"/")).decode("latin-1") for each in found}


def _resolved(path: bytes) -> bytes:
    """The first segment."""
    segments: list[bytes] = []
    for part in path.partition(b"\0")[0].partition(b"?")[0].partition(b"#")[0].split(b"/"):
        name = part.partition(b";")[0]
        if name == b"..":
            segments = segments[:-1]
        elif name not in (b"", b"."):
            segments.append(name)
    return segments[0] if segments else b""


class Heard(msgspec.Struct):
    """One request."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]


_HEAD = re.compile(rb"[A-Z]+ [\x21-\x7e]+ HTTP/1\.1\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[^\r\n\0]*\r\n)*\r\n")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")


class Strict:
    """Reads HTTP/1.1 by the letter of RFC 9112 on a port of a host, and answers 200. What is not by the letter is in
    `wrong`: a proxy must not send it, whatever it was sent."""

    def __init__(self, host: Host, port: int) -> None:
        self.heard: list[Heard] = []
        self.wrong: list[bytes] = []
        self._lock = threading.Lock()
        self._server = host.listen(port, lambda connection, _: self._serve(connection))

    def take(self) -> list[Heard]:
        with self._lock:
            found, self.heard = self.heard, []
        assert not self.wrong, self.wrong
        return found

    def close(self) -> None:
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = stream.readline(1 << 20)
                if not line:
                    break
                head += line
                if not line.endswith(b"\r\n"):
                    break
            if not head:
                return
            if not _HEAD.fullmatch(head):
                self._note_wrong(head)
                return
            lines = head.decode("latin-1").split("\r\n")[:-2]
            pairs = [
                (name.lower(), value.strip())
                for name, _, value in (each.partition(":") for each in lines[1:])
            ]
            framing = [pair for pair in pairs if pair[0] in ("content-length", "transfer-encoding")]
            if len(framing) > 1 or (
                framing and framing[0][0] == "transfer-encoding" and framing[0][1] != "chunked"
            ):
                self._note_wrong(head)
                return
            with self._lock:
                self.heard.append(heard := Heard(lines[0], pairs, b""))
            for name, value in framing:
                heard.body = (
                    stream.read(int(value)) if name == "content-length" else b"".join(self._chunks(stream))
                )
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def _chunks(self, stream: Iterable[bytes]) -> Iterator[bytes]:
        while True:
            line = stream.readline(100)  # type: ignore[attr-defined]
            size = _CHUNK.fullmatch(line)
            if size is None:
                if line:
                    self._note_wrong(line)
                return
            length = int(size[1], 16)
            yield stream.read(length)  # type: ignore[attr-defined]
            if stream.read(2) != b"\r\n" or not length:  # type: ignore[attr-defined]
                return

    def _note_wrong(self, what: bytes) -> None:
        with self._lock:
            self.wrong.append(what)


_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")


def provoke(connection: socket.socket, attack: bytes, fence: Callable[[], object]) -> list[int]:
    """The statuses of all answers to these bytes. `fence` is served after them: what has not come by then does not."""
    with connection:
        connection.sendall(attack)
        fence()
        connection.setblocking(False)
        found = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                found += part
    return [int(each) for each in _STATUS.findall(found)]


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION, DATA = 1, 2, 3, 4, 6, 7, 8, 9, 0
END_STREAM, END_HEADERS = 1, 4
_FRAME_HEAD = 9


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def block(*fields: tuple[str, str]) -> bytes:
    """Fields of headers; nothing refers to earlier ones."""
    made = Encoder()
    made.header_table_size = 0
    encoded: bytes = made.encode(fields)
    return encoded


def get(path: str = "/", *more: tuple[str, str], host: str = HOST) -> bytes:
    """The headers of a request."""
    return block((":method", "GET"), (":scheme", "http"), (":path", path), (":authority", host), *more)


_INJECTED = f"a\r\n\r\nGET {DENIED} HTTP/1.1\r\nhost: {HOST}\r\n\r\n"
BLOCKS = {
    "a path with a request": get(_INJECTED),
    "a path with a version": get(f"/ HTTP/1.1\r\nx: y\r\n\r\nGET {DENIED}"),
    "a path with a space": get(f"/ {DENIED}"),
    "a path without a slash": get(DENIED.lstrip("/")),
    "a path that is another host's": get(f"http://other{DENIED}"),
    "a path with a zero": get(f"{DENIED}\0"),
    "a path with a fragment": get(f"{DENIED}#/x"),
    "no path": block((":method", "GET"), (":scheme", "http"), (":authority", HOST)),
    "two paths": block(
        (":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/"), (":path", DENIED)
    ),
    "a path after other headers": block(
        (":method", "GET"), (":scheme", "http"), (":authority", HOST), ("x", "y"), (":path", DENIED)
    ),
    "a method with a request": block(
        (":method", f"GET {DENIED} HTTP/1.1\r\nhost: a\r\n\r\nGET"),
        *((":scheme", "http"), (":authority", HOST), (":path", "/")),
    ),
    "a host with a request": get(host=_INJECTED),
    "a host with a path": get(host=f"{HOST}{DENIED}"),
    "a header with a request": get("/", ("x", _INJECTED)),
    "a name with a request": get("/", (_INJECTED, "x")),
    "a name with a colon": get("/", ("x:y", "z")),
    "a name in capitals": get("/", ("Transfer-Encoding", "chunked")),
    "chunked": get("/", ("transfer-encoding", "chunked")),
    "of this connection": get("/", ("connection", "content-length")),
    "a length with a sign": get("/", ("content-length", "+50")),
    "two lengths": get("/", ("content-length", "0"), ("content-length", "50")),
    "another host beside": get(DENIED, ("host", "other")),
    "a protocol": get(DENIED, (":protocol", "websocket")),
    "an unknown field of its own": get("/", (":x", "y")),
}
"""Headers of a request that its reader, or who writes them as lines, may take for something else."""


def flooded(connection: socket.socket, frames: Iterable[bytes], *, seconds: float) -> bool:
    """Whether the other end has ended the connection on account of these frames. Nothing it says is read."""
    end = time.monotonic() + seconds
    with connection:
        connection.settimeout(seconds)
        try:
            connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
            for each in frames:
                connection.sendall(each)
            while time.monotonic() < end:
                if not connection.recv(65536):
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
    return False


def provoke_http2(
    connection: socket.socket, frames: Iterable[bytes], fence: Callable[[], object]
) -> list[int]:
    """As `provoke`, for frames behind the preface."""
    with connection:
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + b"".join(frames))
        fence()
        connection.setblocking(False)
        found = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(65536):
                found += part
    decoder, statuses = Decoder(), []
    while len(found) >= _FRAME_HEAD:
        length, kind = int.from_bytes(found[:3], "big"), found[3]
        if kind == HEADERS:
            fields: dict[Any, Any] = dict(decoder.decode(found[_FRAME_HEAD : _FRAME_HEAD + length]))
            statuses += [int(fields[":status"])] if ":status" in fields else []
        found = found[_FRAME_HEAD + length :]
    return statuses
