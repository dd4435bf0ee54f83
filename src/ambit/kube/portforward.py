"""Connections to ports on a pod's loopback, through the API server (`SPDY/3.1+portforward.k8s.io`).

One WebSocket carries one SPDY session; each connection is a pair of streams in it, one for data and one on which the
server tells what went wrong (Kubernetes KEP-4006).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from ambit.core.errors import Unreachable
from ambit.kube import spdy
from ambit.kube.client import Client
from ambit.kube.http import Address, Connection, Transport
from ambit.kube.resource import PODS
from ambit.kube.websocket import WebSocket, WebSocketError, check_answer, new_key, upgrade_headers

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
_READ = 64 * 1024
BUFFER = 2 * 1024 * 1024
"""Bytes that may wait for a slow reader, twice over, before the whole tunnel waits (there is no flow control)."""


class PortForward:
    """A tunnel to one pod. Make it with `forward_to`; `dial` opens connections through it."""

    def __init__(self, connection: Connection, pod: str) -> None:
        self._connection = connection
        self._pod = pod
        self._websocket = WebSocket()
        self._session = spdy.Session(client=True)
        self._streams: dict[int, ForwardedWriter] = {}
        self._errors: dict[int, ForwardedWriter] = {}
        self._requests = 0
        self._closed = False
        self._full: set[_Brake] = set()
        self._may_read = asyncio.Event()
        self._may_read.set()

    async def dial(self, port: int) -> Connection:
        """A connection to 127.0.0.1:port in the pod; refusals show as `Unreachable` when it is read."""
        if self._closed:
            raise Unreachable(f"the tunnel to pod {self._pod} is closed")
        headers = {"streamtype": "error", "port": str(port), "requestid": str(self._requests)}
        self._requests += 1
        error_stream = self._session.open_stream(headers, finished=True)
        stream = self._session.open_stream({**headers, "streamtype": "data"})
        reader = asyncio.StreamReader(limit=BUFFER)
        brake = _Brake(self)
        reader.set_transport(brake)
        writer = ForwardedWriter(self, stream, error_stream, reader, brake)
        self._streams[stream] = self._errors[error_stream] = writer
        await self.flush()
        return Connection(reader, writer)

    def write(self, stream: int, data: bytes, *, finished: bool = False) -> None:
        """Queue bytes on a stream; `flush` sends them."""
        self._session.send(stream, data, finished=finished)

    async def flush(self) -> None:
        """Send what is queued. Raises `OSError` when the tunnel is broken."""
        self.flush_nowait()
        await self._connection.writer.drain()

    def flush_nowait(self) -> None:
        frames = self._session.output()
        if frames:
            self._websocket.send(frames)
        output = self._websocket.output()
        if output and not self._connection.writer.is_closing():
            self._connection.writer.write(output)

    def pause(self, brake: "_Brake") -> None:
        """A connection's reader is full: read nothing until it has room."""
        self._full.add(brake)
        self._may_read.clear()

    def resume(self, brake: "_Brake") -> None:
        """It has room again, or is given up."""
        self._full.discard(brake)
        if not self._full:
            self._may_read.set()

    def forget(self, writer: "ForwardedWriter") -> None:
        """A connection ended: its streams are no longer expected."""
        self._streams.pop(writer.stream, None)
        self._errors.pop(writer.error_stream, None)

    async def pump(self) -> None:
        """Deliver what the server sends until the tunnel ends."""
        problem = f"the tunnel to pod {self._pod} ended"
        try:
            while data := await self._connection.reader.read(_READ):
                for payload in self._websocket.receive(data):
                    for event in self._session.receive(payload):
                        self._take(event)
                self.flush_nowait()
                if self._websocket.is_closed:
                    break
                await self._may_read.wait()
        except (OSError, WebSocketError, spdy.SpdyError) as error:
            problem = f"the tunnel to pod {self._pod} broke: {error}"
        finally:
            self._closed = True
            for writer in tuple(self._streams.values()):
                writer.fail(problem)

    def _take(self, event: spdy.Event) -> None:
        match event:
            case spdy.Data(stream, data, finished):
                if (writer := self._streams.get(stream)) is not None:
                    writer.deliver(data, finished=finished)
                elif (writer := self._errors.get(stream)) is not None and data:
                    writer.fail(data.decode("utf-8", "replace"))
            case spdy.Reset(stream, status):
                found = self._streams.get(stream) or self._errors.get(stream)
                if found is not None:
                    found.fail(f"the server reset the stream (status {status})")
            case spdy.GoAway():
                self._closed = True
            case spdy.StreamOpened(stream):
                self._session.reset(stream, spdy.REFUSED)
            case spdy.StreamReplied():
                pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._websocket.close()
        self.flush_nowait()
        self._connection.close()


class _Brake(asyncio.ReadTransport):
    """What a StreamReader tells that its buffer is full, and that it has room again."""

    def __init__(self, tunnel: PortForward) -> None:
        super().__init__()
        self._tunnel = tunnel

    def pause_reading(self) -> None:
        self._tunnel.pause(self)

    def resume_reading(self) -> None:
        self._tunnel.resume(self)


class ForwardedWriter:
    """The writing half of a forwarded connection, in the shape of asyncio's StreamWriter."""

    def __init__(
        self, tunnel: PortForward, stream: int, error_stream: int, reader: asyncio.StreamReader, brake: _Brake
    ) -> None:
        self.stream = stream
        self.error_stream = error_stream
        self._tunnel = tunnel
        self._reader = reader
        self._brake = brake
        self._closing = False
        self._ended = False

    def write(self, data: bytes) -> None:
        if not self._closing:
            self._tunnel.write(self.stream, data)

    async def drain(self) -> None:
        await self._tunnel.flush()

    def is_closing(self) -> bool:
        return self._closing or self._ended

    def close(self) -> None:
        """End both directions."""
        if self._closing:
            return
        self._closing = True
        self._tunnel.resume(self._brake)
        self._tunnel.write(self.stream, b"", finished=True)
        self._tunnel.flush_nowait()
        self._tunnel.forget(self)

    def deliver(self, data: bytes, *, finished: bool) -> None:
        if data and not self._ended:
            self._reader.feed_data(data)
        if finished and not self._ended:
            self._ended = True
            self._reader.feed_eof()

    def fail(self, problem: str) -> None:
        """The connection is broken: readers get the reason."""
        if not self._ended:
            self._ended = True
            self._reader.set_exception(ConnectionResetError(problem))


class _ForwardedTransport(Transport):
    """HTTP over forwarded connections."""

    def __init__(self, tunnel: PortForward, pod: str, port: int) -> None:
        super().__init__(
            Address(pod, port), host_header=f"localhost:{port}", name=f"port {port} of pod {pod}"
        )
        self._tunnel = tunnel
        self._port = port

    async def connect(self) -> Connection:
        return await self._tunnel.dial(self._port)


@asynccontextmanager
async def forward_to(client: Client, namespace: str, pod: str) -> AsyncIterator[PortForward]:
    """A tunnel to a pod. Raises `NotFound`, `Unreachable`, or what else the server answers."""
    key = new_key()
    path = PODS.path(namespace, pod, "portforward")
    response, connection = await client.upgrade(path, upgrade_headers(key, PROTOCOL))
    try:
        check_answer(key, PROTOCOL, response.headers)
    except WebSocketError as error:
        connection.close()
        raise Unreachable(f"cannot forward to pod {namespace}/{pod}: {error}") from error
    async with PortForward(connection, f"{namespace}/{pod}") as tunnel:
        # Not a task group: it would wrap the caller's own exceptions in a group.
        pump = asyncio.create_task(tunnel.pump())
        try:
            yield tunnel
        finally:
            pump.cancel()
            await asyncio.wait((pump,))


@asynccontextmanager
async def pod_http(client: Client, namespace: str, pod: str, port: int) -> AsyncIterator[Transport]:
    """An HTTP client for a port on the pod's loopback."""
    async with forward_to(client, namespace, pod) as tunnel:
        transport = _ForwardedTransport(tunnel, f"{namespace}/{pod}", port)
        try:
            yield transport
        finally:
            transport.close()
