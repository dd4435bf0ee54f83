"""The HTTP server of our processes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from ambit.daemon.http import Request, Response, json_response, serve

CLOSED: list[str] = []


async def endless() -> AsyncGenerator[bytes, None]:
    try:
        while True:
            yield b"part\n"
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
        },
    )
    yield server.sockets[0].getsockname()[1]
    server.close()


async def ask(port: int, request: bytes) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(5):
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
    async with asyncio.timeout(5):
        await reader.readuntil(b"part\n")
        writer.close()
        while not CLOSED:  # noqa: ASYNC110 - the server's task changes it
            await asyncio.sleep(0.01)


async def test_a_huge_head_is_cut_off(port: int) -> None:
    status, _ = await ask(port, b"GET /hello HTTP/1.1\r\nX: " + b"x" * 100_000)
    assert status == b""
