"""The HTTP server of our processes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from ambit.daemon import http
from ambit.daemon.http import Request, Response, json_response, serve

CLOSED: list[str] = []


async def endless(part: bytes = b"part\n") -> AsyncGenerator[bytes, None]:
    try:
        while True:
            yield part
            await asyncio.sleep(0)
    finally:
        CLOSED.append("endless")


def broken(_: Request) -> Response:
    raise RuntimeError("no")


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = await serve(
        "127.0.0.1",
        0,
        {
            "/hello": lambda request: Response(f"hello {request.query.get('who', '')}".encode()),
            "/json": lambda _: json_response({"a": 1}),
            "/endless": lambda _: Response(stream=endless()),
            "/broken": broken,
            "/flood": lambda _: Response(stream=endless(b"x" * 1_000_000)),
            "/large": lambda _: Response(b"x" * 50_000_000),
        },
    )
    yield server.sockets[0].getsockname()[1]
    server.close()


async def ask(port: int, request: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(60):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.split(b"\r\n")[0], body


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /hello?who=you HTTP/1.1", b"HTTP/1.1 200 OK"),
        (b"GET /nothing HTTP/1.1", b"HTTP/1.1 404 Not Found"),
        (b"PUT /hello HTTP/1.1", b"HTTP/1.1 405 Method Not Allowed"),
        (b"GET /broken HTTP/1.1", b"HTTP/1.1 500 Internal Server Error"),
        (b"nonsense", b"HTTP/1.1 400 Bad Request"),
        (b"\xff\xfe x y", b"HTTP/1.1 400 Bad Request"),
    ],
)
async def test_every_request_gets_an_answer(port: int, request_line: bytes, status: bytes) -> None:
    assert (await ask(port, request_line + b"\r\nHost: x\r\n\r\n"))[0] == status


async def test_bodies(port: int) -> None:
    assert (await ask(port, b"GET /hello?who=you HTTP/1.1\r\n\r\n"))[1] == b"hello you"
    assert (await ask(port, b"GET /json HTTP/1.1\r\n\r\n"))[1] == b'{\n  "a": 1\n}\n'


async def test_a_stream_ends_when_the_client_leaves(port: int) -> None:
    CLOSED.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /endless HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(60):
        await reader.readuntil(b"part\n")
        writer.close()
        while not CLOSED:  # noqa: ASYNC110 - the server's task changes it
            await asyncio.sleep(0.01)


async def test_a_huge_head_is_cut_off(port: int) -> None:
    status = b""
    with contextlib.suppress(ConnectionResetError):  # it may not have read all of it
        status, _ = await ask(port, b"GET /hello HTTP/1.1\r\nX: " + b"x" * 100_000)
    assert status == b""


@pytest.mark.parametrize("path", [b"/large", b"/flood"])
async def test_a_client_that_takes_nothing_is_dropped(
    port: int, path: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_PATIENCE", 0.2)
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(b"GET " + path + b" HTTP/1.1\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(60):
        while not writer.transport.is_closing():
            await asyncio.sleep(0.05)
            writer.write(b"x")


@pytest.mark.parametrize("limit", ["_CONNECTIONS", "_PER_CALLER"])
async def test_connections_are_counted(port: int, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, limit, 3)
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    for _, each in idle:
        each.close()
        await each.wait_closed()
    async with asyncio.timeout(60):
        while (await try_ask(port)) != b"HTTP/1.1 200 OK":  # noqa: ASYNC110 - the server counts when it sees them gone
            await asyncio.sleep(0)
    writer.close()


async def try_ask(port: int) -> bytes:
    try:
        return (await ask(port, b"GET /hello HTTP/1.1\r\n\r\n"))[0]
    except ConnectionResetError:
        return b""
