"""The debug server on loopback: metrics, readiness, and where each node stands. HTTP/1.1, GET only."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec

from ambit.core.errors import EnvironmentProblem

MAX_HEAD = 16 * 1024
READ_SECONDS = 5.0


class Answer(msgspec.Struct, frozen=True):
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


def json_answer(value: object) -> Answer:
    return Answer(msgspec.json.encode(value), "application/json")


class DebugServer:
    """Answers each path with what its function returns."""

    def __init__(self, routes: Mapping[str, Callable[[], Answer]]) -> None:
        self._routes = routes

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[int]:
        """Listen on loopback inside this context; gives the port. Raises EnvironmentProblem."""
        try:
            server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=MAX_HEAD)
        except OSError as error:
            raise EnvironmentProblem(
                f"port {port} cannot be bound on loopback: {error.strerror}",
                "another control plane may be running here",
            ) from None
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            answer = self._answer(head)
            writer.write(_format(answer))
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError):
            pass
        finally:
            writer.close()

    def _answer(self, head: bytes) -> Answer:
        parts = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(parts) != 3:
            return Answer(b"not an HTTP request\n", status=HTTPStatus.BAD_REQUEST)
        method, target, _ = parts
        if method != "GET":
            return Answer(b"only GET\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
        route = self._routes.get(urlsplit(target).path)
        if route is None:
            known = "".join(f"{path}\n" for path in self._routes)
            return Answer(f"no such page; there are:\n{known}".encode(), status=HTTPStatus.NOT_FOUND)
        return route()


def _format(answer: Answer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + answer.body
