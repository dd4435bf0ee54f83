"""`pods/portforward`: SPDY/3.1 inside a WebSocket (`SPDY/3.1+portforward.k8s.io`, KEP-4006).

Each connection is two streams with the same `requestid`: one for errors, one for data.
"""

import asyncio
import contextlib

from aiohttp import WSMsgType, web

from ambit.kube import spdy
from ambit.local.apiserver.pods.channels import open_socket
from ambit.local.apiserver.requests import number
from ambit.local.apiserver.storage.store import Json
from ambit.local.streams import PodStreams

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
_CHUNK = 64 * 1024
_QUEUE = 64
"""Messages that wait for a slow port before the whole tunnel waits (SPDY here has no flow control)."""


class _Tunnel:
    def __init__(self, socket: web.WebSocketResponse, streams: PodStreams, namespace: str, pod: str) -> None:
        self._socket = socket
        self._streams = streams
        self._namespace = namespace
        self._pod = pod
        self._session = spdy.Session(client=False)
        self._errors: dict[str, int] = {}
        self._inputs: dict[int, asyncio.Queue[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Until the client closes the socket. Frames that are not SPDY end the tunnel."""
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.BINARY:
                    continue
                for event in self._session.receive(message.data):
                    await self._take(event)
                await self._flush()
        except (spdy.SpdyError, ConnectionResetError):
            return
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _flush(self) -> None:
        async with self._sending:
            if (data := self._session.output()) and not self._socket.closed:
                await self._socket.send_bytes(data)

    async def _take(self, event: spdy.Event) -> None:
        match event:
            case spdy.StreamOpened(stream, headers, _):
                self._open(stream, {key.lower(): value for key, value in headers.items()})
            case spdy.Data(stream, data, finished):
                queue = self._inputs.get(stream)
                if queue is not None:
                    if data:
                        await queue.put(data)
                    if finished:
                        await queue.put(b"")
            case spdy.Reset(stream, _):
                if (queue := self._inputs.pop(stream, None)) is not None:
                    await queue.put(b"")
            case spdy.StreamReplied() | spdy.GoAway():
                pass

    def _open(self, stream: int, headers: dict[str, str]) -> None:
        request, port = headers.get("requestid", str(stream)), headers.get("port", "")
        if headers.get("streamtype") == "error":
            self._errors[request] = stream
            self._session.reply(stream)
            return
        if headers.get("streamtype") != "data" or number(port) is None or request not in self._errors:
            self._session.reset(stream, spdy.REFUSED)
            return
        self._session.reply(stream)
        self._inputs[stream] = asyncio.Queue(_QUEUE)
        task = asyncio.create_task(self._connect(stream, self._errors.pop(request), int(port)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, stream: int, error_stream: int, port: int) -> None:
        try:
            reader, writer = await self._streams.dial(self._namespace, self._pod, port)
        except (OSError, LookupError) as error:
            text = (
                f"an error occurred forwarding {port} -> {port}: error forwarding port {port} to pod: {error}"
            )
            self._session.send(error_stream, text.encode(), finished=True)
            self._session.send(stream, b"", finished=True)
            await self._flush()
            return
        finally_closed = asyncio.create_task(self._copy_in(stream, writer))
        try:
            while data := await reader.read(_CHUNK):
                self._session.send(stream, data)
                await self._flush()
        except OSError as error:
            self._session.send(error_stream, f"error forwarding port {port}: {error}".encode())
        finally:
            self._session.send(stream, b"", finished=True)
            self._session.send(error_stream, b"", finished=True)
            with contextlib.suppress(ConnectionResetError):
                await self._flush()
            finally_closed.cancel()
            await asyncio.gather(finally_closed, return_exceptions=True)
            self._inputs.pop(stream, None)
            writer.close()

    async def _copy_in(self, stream: int, writer: asyncio.StreamWriter) -> None:
        """Client to pod; the client's end of data becomes a half-closed connection."""
        queue = self._inputs[stream]
        with contextlib.suppress(OSError):
            while data := await queue.get():
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        while True:
            await queue.get()


async def serve_forward(request: web.Request, pod: Json, streams: PodStreams) -> web.StreamResponse:
    """Raises ApiFailure 400."""
    socket = await open_socket(request, (PROTOCOL,))
    metadata = pod["metadata"]
    await _Tunnel(socket, streams, metadata["namespace"], metadata["name"]).run()
    await socket.close()
    return socket
