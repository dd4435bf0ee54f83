"""The byte streams of `pods/exec` and `pods/attach`, whichever of the two protocols the client speaks.

- WebSocket, `v5.channel.k8s.io` and `v4.channel.k8s.io`: each message starts with the number of its channel; in v5, 255
  closes the channel named by the next byte (KEP-4006).
- SPDY/3.1, `v4.channel.k8s.io`: a stream for each channel, named by its header `streamtype`. What client-go's
  `NewSPDYExecutor` speaks, and kubectl before 1.31.
"""

import asyncio
from asyncio import StreamReader, StreamReaderProtocol, StreamWriter
from collections.abc import AsyncIterator, Collection
from typing import Protocol

from aiohttp import WSMsgType, web

from ambit.kube import spdy
from ambit.local.apiserver.failures import ApiFailure, bad_request

STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)
_CLOSE = 255
_WEBSOCKET_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_SPDY, _SPDY_PROTOCOL = "SPDY/3.1", "v4.channel.k8s.io"
_STREAM_TYPES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": STATUS, "resize": RESIZE}
_STREAMS_WITHIN = 30.0
"""Seconds in which a client must have opened all its streams, as in kubelet."""
_CHUNK = 64 * 1024


class Channels(Protocol):
    """One client's channels."""

    @property
    def response(self) -> web.StreamResponse:
        """What the HTTP server is told that the request was answered with."""

    async def send(self, channel: int, data: bytes) -> None:
        """Bytes to the client, unless it has no such channel. Raises ConnectionResetError when it has gone."""

    def received(self) -> AsyncIterator[tuple[int, bytes]]:
        """Channel and bytes as they come, b"" where the client closed the channel; ends when the client goes."""

    async def close(self) -> None:
        """Ends all channels and the connection."""


async def open_channels(request: web.Request, expected: Collection[int]) -> Channels:
    """Upgrades the request; `expected`: the channels that it asks for. Raises ApiFailure 400 and 403."""
    if request.headers.get("Upgrade", "").lower() == _SPDY.lower():
        return await _open_spdy(request, expected)
    return _WebSocketChannels(await open_socket(request, _WEBSOCKET_PROTOCOLS))


async def open_socket(request: web.Request, protocols: tuple[str, ...]) -> web.WebSocketResponse:
    """Upgrades the request. Raises ApiFailure 400 when the client speaks none of the protocols."""
    offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request(
            "Upgrade request required: use a client that speaks WebSocket (kubectl 1.31 or later)"
        )
    if not set(offered) & set(protocols):
        raise ApiFailure(403, "Forbidden", f"none of the protocols {offered} is served: {list(protocols)}")
    socket = web.WebSocketResponse(protocols=protocols, max_msg_size=0, compress=False)
    await socket.prepare(request)
    return socket


class _WebSocketChannels:
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    @property
    def response(self) -> web.StreamResponse:
        return self._socket

    async def send(self, channel: int, data: bytes) -> None:
        await self._socket.send_bytes(bytes([channel]) + data)

    async def received(self) -> AsyncIterator[tuple[int, bytes]]:
        async for message in self._socket:
            data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            if len(data) < 2:
                continue
            if data[0] == _CLOSE:
                yield data[1], b""
            else:
                yield data[0], bytes(data[1:])

    async def close(self) -> None:
        await self._socket.close()


async def _open_spdy(request: web.Request, expected: Collection[int]) -> Channels:
    """Takes the connection over from the HTTP server. Raises ApiFailure 403."""
    offered = {
        one.strip()
        for value in request.headers.getall("X-Stream-Protocol-Version", [])
        for one in value.split(",")
    }
    if _SPDY_PROTOCOL not in offered:
        why = f"none of the protocols {sorted(offered)} is served: ['{_SPDY_PROTOCOL}']"
        raise ApiFailure(403, "Forbidden", why)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client has gone")
    reader = StreamReader()
    protocol = StreamReaderProtocol(reader)
    transport.write(
        f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {_SPDY}\r\n"
        f"X-Stream-Protocol-Version: {_SPDY_PROTOCOL}\r\n\r\n".encode()
    )
    before = transport.get_protocol()
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    channels = _SpdyChannels(
        reader, StreamWriter(transport, protocol, reader, asyncio.get_running_loop()), before
    )
    try:
        async with asyncio.timeout(_STREAMS_WITHIN):
            await channels.opened(expected)
    except (TimeoutError, spdy.SpdyError, ConnectionError) as error:
        await channels.close()
        raise ConnectionResetError(f"the client did not open its streams: {error}") from error
    return channels


class _SpdyChannels:
    """`http`: who had the connection before; is told of its end, so that it forgets the request."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, http: asyncio.BaseProtocol) -> None:
        self._reader = reader
        self._writer = writer
        self._http = http
        self._session = spdy.Session(client=False)
        self._streams: dict[int, int] = {}
        self._early: list[tuple[int, bytes]] = []

    @property
    def response(self) -> web.StreamResponse:
        return web.Response()  # nobody reads it: the connection is closed

    async def opened(self, expected: Collection[int]) -> None:
        """Returns when all expected streams are there. Raises ConnectionResetError, SpdyError."""
        while not set(expected) <= set(self._streams):
            taken = await self._take()
            if taken is None:
                raise ConnectionResetError("the client has gone")
            self._early += taken

    async def send(self, channel: int, data: bytes) -> None:
        if (stream := self._streams.get(channel)) is not None:
            self._session.send(stream, data)
            await self._flush()

    async def received(self) -> AsyncIterator[tuple[int, bytes]]:
        taken: list[tuple[int, bytes]] | None = self._early
        while taken is not None:
            for each in taken:
                yield each
            try:
                taken = await self._take()
            except (spdy.SpdyError, ConnectionError):
                return

    async def close(self) -> None:
        for stream in self._streams.values():
            self._session.send(stream, b"", finished=True)
        try:
            await self._flush()
        except ConnectionError:
            pass  # it has gone first
        finally:
            self._writer.transport.set_protocol(self._http)
            self._writer.close()

    async def _flush(self) -> None:
        if data := self._session.output():
            self._writer.write(data)
            await self._writer.drain()

    async def _take(self) -> list[tuple[int, bytes]] | None:
        """What the next bytes bring, None when there are no more."""
        if not (data := await self._reader.read(_CHUNK)):
            return None
        found: list[tuple[int, bytes]] = []
        for event in self._session.receive(data):
            match event:
                case spdy.StreamOpened(stream, headers, _):
                    self._open(stream, headers.get("streamtype", ""))
                case spdy.Data(stream, piece, finished):
                    channel = next((key for key, value in self._streams.items() if value == stream), None)
                    if channel is not None:
                        found += [(channel, piece)] if piece else []
                        found += [(channel, b"")] if finished else []
                case _:
                    pass
        await self._flush()
        return found

    def _open(self, stream: int, kind: str) -> None:
        channel = _STREAM_TYPES.get(kind)
        if channel is None or channel in self._streams:
            self._session.reset(stream, spdy.REFUSED)
            return
        self._streams[channel] = stream
        self._session.reply(stream)
