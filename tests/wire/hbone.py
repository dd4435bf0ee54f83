"""The other end of a tunnel, written from the protocol alone: HTTP/2 by the library h2, TLS by Python.

Both sides behave as a ztunnel does (`src/proxy/h2`): its settings, its kind of request, half-close as END_STREAM, a
refusal as headers that end the stream. What the peer said is kept as it came.
"""

import contextlib
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
from cryptography import x509
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings

from tests.plan.dataplane.conftest import Authority
from tests.plan.dataplane.network import Host

PORT = 15008
STREAM_WINDOW, CONNECTION_WINDOW = 4 << 20, 16 << 20
_SETTINGS: Mapping[Any, int] = {
    SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
    SettingCodes.MAX_FRAME_SIZE: 1 << 20,
}
_CLIENT = {SettingCodes.ENABLE_PUSH: 0, SettingCodes.MAX_HEADER_LIST_SIZE: 16 << 10}
_SERVER = {SettingCodes.MAX_CONCURRENT_STREAMS: 200, SettingCodes.MAX_HEADER_LIST_SIZE: 64 << 10}
_GOODBYE = b"\0\0\x08\x07\0" + bytes(4) + b"\x7f\xff\xff\xff" + bytes(4)
"""GOAWAY that ends no stream (RFC 9113 section 6.8): the first half of a graceful end."""
Headers = list[tuple[str, str]]


def context(authority: Authority, uri: str, *, server: bool) -> ssl.SSLContext:
    """Mutual TLS 1.3 with a certificate for `uri`, as ztunnel wants it. A client believes whom the authority signed:
    names are for the test to look at."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=authority.root)
    made.set_alpn_protocols(["h2"])
    chain, key = authority.certificate(uri)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "both.pem"
        path.write_text(key + chain)
        made.load_cert_chain(path)
    return made


def identity(connection: ssl.SSLSocket) -> str:
    """The SPIFFE name that the other end proved."""
    der = connection.getpeercert(binary_form=True)
    assert der is not None
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return uri


class Answer(msgspec.Struct):
    """What came back on a stream."""

    headers: dict[str, str] = {}
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> str:
        return self.headers.get(":status", "")


class Client:
    """One connection; each tunnel is a stream of its own."""

    def __init__(self, connection: socket.socket, made: ssl.SSLContext) -> None:
        self.socket = made.wrap_socket(connection)
        self.http = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        _begin(self.http, _CLIENT)
        self.answers: dict[int, Answer] = {}
        self.acknowledged = 0
        self.terminated: int | None = None
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.http.data_to_send())

    def request(
        self, authority: str, headers: Headers | None = None, *, method: str = "CONNECT", end: bool = False
    ) -> int:
        """Asks for a tunnel; the number of its stream."""
        stream = self.http.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.http.send_headers(
            stream, [(":method", method), (":authority", authority), *(headers or [])], end_stream=end
        )
        self.flush()
        return stream

    def send(self, stream: int, data: bytes = b"", *, end: bool = False) -> None:
        """Data smaller than the windows."""
        self.http.send_data(stream, data, end_stream=end)
        self.flush()

    def answered(self, stream: int) -> Answer:
        """When the headers of the answer are there, or the stream or connection is over."""
        return self._until(stream, lambda answer: bool(answer.headers))

    def finished(self, stream: int) -> Answer:
        """When the other side has said everything."""
        return self._until(stream, lambda answer: answer.ended)

    def _until(self, stream: int, condition: Callable[[Answer], bool]) -> Answer:
        answer = self.answers[stream]
        while not condition(answer) and answer.reset is None and self.terminated is None:
            self.hear()
        return answer

    def hear(self) -> None:
        """Takes what comes next."""
        data = self.socket.recv(65536)
        if not data:
            self.terminated = -1
            return
        for event in self.http.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: object) -> None:
        match event:
            case ResponseReceived():
                self.answers[event.stream_id].headers = dict(_pairs(event.headers))
            case DataReceived():
                self.answers[event.stream_id].body += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self.answers[event.stream_id].ended = True
            case StreamReset():
                self.answers[event.stream_id].reset = event.error_code
            case PingAckReceived():
                self.acknowledged += 1
            case ConnectionTerminated():
                self.terminated = int(event.error_code or 0)

    def close(self) -> None:
        self.socket.close()


class Request(msgspec.Struct):
    """A tunnel that somebody asked for, and what came through it."""

    peer: str
    """Address and port of the TCP connection."""
    identity: str
    headers: Headers
    server_name: str | None
    protocol: str | None
    cipher: str
    heard: bytes = b""

    def header(self, name: str) -> str:
        """Of a header that is there once."""
        (value,) = (value for key, value in self.headers if key == name)
        return value


class Server:
    """Serves tunnels on 15008 of a host until the block ends. Each says `greeting` first, hears the client out, then
    says how much that was. With another `status` than 200 nothing is carried. With `dial` bytes go to and fro between
    a tunnel and the connection that it gives."""

    def __init__(
        self,
        host: Host,
        made: ssl.SSLContext,
        *,
        greeting: bytes = b"",
        status: str = "200",
        dial: Callable[["Request"], socket.socket] | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.status = status
        self.greeting = greeting
        self.dial = dial
        self._host = host
        self._context = made
        self._names: dict[int, str | None] = {}
        made.sni_callback = self._named
        self._open: list[_Served] = []
        self._lock = threading.Lock()

    def _named(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        self._names[id(connection)] = name

    def __enter__(self) -> Self:
        self._listening = self._host.listen(PORT, self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        for each in self._open:
            each.close()

    def leave(self) -> None:
        """Tells everybody who is connected to make no new tunnels here."""
        with self._lock:
            for each in self._open:
                each.leave()

    def _serve(self, connection: socket.socket, _: str) -> None:
        host, port = connection.getpeername()[:2]
        try:
            secured = self._context.wrap_socket(connection, server_side=True)
        except (ssl.SSLError, OSError):
            return
        served = _Served(
            self, secured, f"{host.removeprefix('::ffff:')}:{port}", self._names.get(id(secured))
        )
        with self._lock:
            self.connections += 1
            self._open.append(served)
        with contextlib.suppress(OSError):
            served.run()


class _Served:
    """One connection of a client."""

    def __init__(self, server: Server, connection: ssl.SSLSocket, peer: str, name: str | None) -> None:
        self._server = server
        self._socket = connection
        self._peer = peer
        self._name = name
        self._identity = identity(connection)
        self._requests: dict[int, Request] = {}
        self._beyond: dict[int, socket.socket] = {}
        self._lock = threading.Lock()
        self._http = H2Connection(H2Configuration(client_side=False, validate_inbound_headers=False))
        _begin(self._http, _SERVER)
        self._flush()

    def run(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            for connection in (self._socket, *self._beyond.values()):
                connection.close()

    def _turn(self) -> bool:
        """Moves what is there; false when the client is gone."""
        ready, _, _ = select.select([self._socket, *self._beyond.values()], [], [])
        if self._socket in ready:
            data = self._socket.recv(65536)
            if not data:
                return False
            with self._lock:
                for event in self._http.receive_data(data):
                    self._take(event)
                self._flush()
        with self._lock:
            for stream, connection in list(self._beyond.items()):
                if connection in ready:
                    self._back(stream, connection)
            self._flush()
        return True

    def _back(self, stream: int, connection: socket.socket) -> None:
        data = connection.recv(16384)
        self._http.send_data(stream, data, end_stream=not data)
        if not data:
            self._beyond.pop(stream).close()

    def leave(self) -> None:
        with self._lock:
            self._socket.sendall(_GOODBYE)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # `run` hears of it, and closes

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())

    def _take(self, event: object) -> None:
        match event:
            case RequestReceived():
                self._asked(event.stream_id, list(_pairs(event.headers)))
            case DataReceived():
                self._requests[event.stream_id].heard += event.data
                if event.stream_id in self._beyond:
                    self._beyond[event.stream_id].sendall(event.data)
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamReset() if event.stream_id in self._beyond:
                self._beyond.pop(event.stream_id).close()
            case StreamEnded() if event.stream_id in self._beyond:
                self._beyond[event.stream_id].shutdown(socket.SHUT_WR)
            case StreamEnded() if self._server.dial is None:
                self._ended(event.stream_id)

    def _asked(self, stream: int, headers: Headers) -> None:
        cipher = self._socket.cipher()
        request = Request(
            peer=self._peer,
            identity=self._identity,
            headers=headers,
            server_name=self._name,
            protocol=self._socket.selected_alpn_protocol(),
            cipher=cipher[0] if cipher else "",
        )
        self._requests[stream] = request
        if self._server.dial is not None:
            self._beyond[stream] = self._server.dial(request)
        accepted = self._server.status == "200"
        self._http.send_headers(stream, [(":status", self._server.status)], end_stream=not accepted)
        if accepted and self._server.greeting:
            self._http.send_data(stream, self._server.greeting)
        self._server.requests.append(request)

    def _ended(self, stream: int) -> None:
        if self._server.status == "200":
            said = f" {len(self._requests[stream].heard)}".encode()
            self._http.send_data(stream, said, end_stream=True)


def carried(client: Client, stream: int) -> socket.socket:
    """A connection whose other end is the tunnel `stream` of `client`, which does nothing else from now on."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_carry, args=(client, stream, ours), daemon=True).start()
    return theirs


def _carry(client: Client, stream: int, connection: socket.socket) -> None:
    answer = client.answers[stream]
    with connection, contextlib.suppress(OSError):
        while client.terminated is None and answer.reset is None and not answer.ended:
            ready, _, _ = select.select([client.socket, connection], [], [])
            if connection in ready:
                data = connection.recv(16384)
                client.send(stream, data, end=not data)
                if not data:
                    client.finished(stream)
            elif client.socket in ready:
                client.hear()
            connection.sendall(answer.body)
            answer.body = b""
    client.close()


def _begin(http: H2Connection, settings: Mapping[Any, int]) -> None:
    http.local_settings = Settings(client=http.config.client_side, initial_values={**_SETTINGS, **settings})
    http.initiate_connection()
    http.increment_flow_control_window(CONNECTION_WINDOW - 65535)


def _pairs(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    for key, value in headers:
        yield key.decode(), value.decode()
