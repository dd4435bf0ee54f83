"""Servers that say what they were asked: HTTP/1.1, one per pod, by name."""

import contextlib
import http.client
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from ambit.node.netns.enter import in_namespace
from tests.plan.dataplane.network import TIMEOUT, Host, listener

STATUS, DELAY, NAMED = "x-want-status", "x-want-delay", "x-want-header"
"""Headers of a request: how it is to be answered, after how many seconds, and with which header."""


class Answer(msgspec.Struct):
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """All values of a header, joined."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None

    @property
    def echo(self) -> dict[str, Any]:
        """What the server said it got: `server`, `method`, `path`, `headers` (lower case; lists)."""
        said: dict[str, Any] = json.loads(self.body)
        return said

    @property
    def server(self) -> str:
        """Who answered; the status when it was a proxy."""
        return str(self.echo["server"]) if self.body.startswith(b"{") else str(self.status)


class Echo(http.server.ThreadingHTTPServer):
    """Serves on one port of a host until it is closed. `seen` are the paths of all requests."""

    daemon_threads = True

    def __init__(self, host: Host, name: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[str] = []
        self.name = name
        super().__init__(("::", port), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = in_namespace(host.netns, lambda: listener(port))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    """Else who delays acknowledgements waits 40 ms for what follows the headers."""
    server: Echo

    def _answer(self) -> None:
        self.server.seen.append(self.path)
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if self.headers.get("upgrade") == "websocket":
            self._upgrade()
            return
        time.sleep(float(self.headers.get(DELAY) or 0))
        headers: dict[str, list[str]] = {}
        for key, value in self.headers.items():
            headers.setdefault(key.lower(), []).append(value)
        said = {
            "server": self.server.name,
            "method": self.command,
            "path": self.path,
            "headers": headers,
            "body": body.decode(),
            "client": self.client_address[0].removeprefix("::ffff:"),
        }
        data = json.dumps(said).encode()
        self.send_response(int(self.headers.get(STATUS) or 200))
        self.send_header("content-length", str(len(data)))
        self.send_header("x-served-by", self.server.name)
        if NAMED in self.headers:
            self.send_header(self.headers[NAMED], "said")
        self.end_headers()
        self.wfile.write(data if self.command != "HEAD" else b"")

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = do_DELETE = _answer

    def _upgrade(self) -> None:
        """From here on every byte comes back."""
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            while data := self.connection.recv(4096):
                self.connection.sendall(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def connection(sock: socket.socket, host: str) -> Iterator[http.client.HTTPConnection]:
    """An HTTP client on this connection."""
    client = http.client.HTTPConnection(host, timeout=TIMEOUT)
    client.sock = sock
    try:
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def statuses(sock: socket.socket, host: str) -> Iterator[Callable[[str], int]]:
    """What this connection, which is kept, gets for a path."""
    with connection(sock, host) as client:

        def status(path: str) -> int:
            client.request("GET", path)
            response = client.getresponse()
            response.read()
            return response.status

        yield status


def ask(
    sock: socket.socket,
    path: str = "/",
    *,
    host: str = "web",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """One request on this connection, which is closed afterwards."""
    with connection(sock, host) as client:
        client.request(method, path, body, headers=dict(headers or {}))
        response = client.getresponse()
        return Answer(response.status, response.getheaders(), response.read())
