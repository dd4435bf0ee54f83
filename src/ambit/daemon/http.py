"""A tiny HTTP/1.1 server: GET and POST, one request per connection, bodies whole or streamed.

For a handful of local callers (kubelet, Prometheus, the command line); a web framework would cost the node agent
a third of its memory.
"""

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ambit.core.errors import EnvironmentProblem

_log = logging.getLogger("ambit.http")
_HEAD = 16 * 1024
_PATIENCE = 10.0
"""Seconds a client has to send its request, and again to take each part of the answer."""
_CONNECTIONS, _PER_CALLER = 256, 16
"""Open at once on one server, and those from one address. Pods reach some servers: they must neither use up the
process's descriptors nor keep others out."""
_GONE = (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError)
"""The client left, or sent nothing that could be answered."""


PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
"""Content type of Prometheus' text format."""


class Request(msgspec.Struct, frozen=True):
    method: str
    path: str
    query: Mapping[str, str]


class Response(msgspec.Struct, frozen=True):
    """`stream` gives parts until the client leaves; then `body` is not used."""

    body: bytes = b""
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    stream: AsyncGenerator[bytes, None] | None = None


Handler: TypeAlias = Callable[[Request], Response | Awaitable[Response]]


def json_response(value: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n", status, "application/json"
    )


async def serve(address: str | list[str], port: int, routes: Mapping[str, Handler]) -> asyncio.Server:
    """Starts to serve; paths without a route are 404. Raises EnvironmentProblem when the port is taken."""

    callers: Counter[str] = Counter()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = str((writer.get_extra_info("peername") or ("",))[0])
        if callers.total() >= _CONNECTIONS or callers[caller] >= _PER_CALLER:
            writer.transport.abort()
            return
        callers[caller] += 1
        try:
            with contextlib.closing(writer), contextlib.suppress(*_GONE):
                await _exchange(reader, writer, routes)
        finally:
            callers[caller] -= 1
            if not callers[caller]:
                del callers[caller]

    try:
        return await asyncio.start_server(connected, address, port, limit=_HEAD)
    except OSError as problem:
        raise EnvironmentProblem(
            f"port {port} cannot be bound: {problem.strerror}", "another process of this kind may run here"
        ) from problem


def port_of(server: asyncio.Server) -> int:
    """The IPv4 port it listens on."""
    return next(int(each.getsockname()[1]) for each in server.sockets if each.family == socket.AF_INET)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, routes: Mapping[str, Handler]
) -> None:
    async with asyncio.timeout(_PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
    response = await _answer(head, routes)
    writer.write(_head(response))
    if response.stream is None:
        writer.write(response.body)
        await _drained(writer)
        return
    await _drained(writer)
    gone = asyncio.ensure_future(reader.read())
    try:
        await _pump(response.stream, writer, gone)
    finally:
        gone.cancel()
        await response.stream.aclose()


async def _pump(
    stream: AsyncGenerator[bytes, None], writer: asyncio.StreamWriter, gone: "asyncio.Future[bytes]"
) -> None:
    """Sends parts until there are no more or the client has closed."""
    while True:
        part = asyncio.ensure_future(anext(stream, b""))
        await asyncio.wait({part, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            part.cancel()
            await asyncio.wait({part})
            return
        data = part.result()
        if not data:
            return
        writer.write(data)
        await _drained(writer)


async def _drained(writer: asyncio.StreamWriter) -> None:
    """Raises TimeoutError, after which what the client does not take is dropped."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await writer.drain()
    except TimeoutError:
        writer.transport.abort()
        raise


async def _answer(head: bytes, routes: Mapping[str, Handler]) -> Response:
    try:
        method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ", 2)
        url = urlsplit(target)
        request = Request(method, url.path, dict(parse_qsl(url.query, keep_blank_values=True)))
    except ValueError:
        return Response(b"the request is not understood\n", 400)
    if request.method not in ("GET", "POST"):
        return Response(b"only GET and POST are served\n", 405)
    handler = routes.get(request.path)
    if handler is None:
        return Response(("paths: " + " ".join(sorted(routes)) + "\n").encode(), 404)
    try:
        answer = handler(request)
        return answer if isinstance(answer, Response) else await answer
    except Exception:  # noqa: BLE001 - one question must not end the process
        _log.exception("%s failed", request.path)
        return Response(b"no answer; the log says why\n", 500)


def _head(response: Response) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}",
        f"Content-Type: {response.content_type}",
        "Connection: close",
        *([] if response.stream is not None else [f"Content-Length: {len(response.body)}"]),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
