"""The HTTP client against a server that plays exact bytes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ambit.core.errors import Unreachable
from ambit.kube.client import Client
from ambit.kube.credentials import Fixed, TokenFile
from ambit.kube.errors import AlreadyExists, Conflict, NotFound, Overloaded
from ambit.kube.http import Address, Transport, parse_head
from ambit.kube.resource import PODS


class Script:
    """Answers the n-th request of the n-th connection with the given bytes; "" closes the connection."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.connections = list(connections)
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in self.connections.pop(0) if self.connections else []:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = next(
                (int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0
            )
            self.requests.append(head + await reader.readexactly(length))
            writer.write(answer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def transport(script: Script, tmp_path: Path) -> AsyncIterator[Transport]:
    path = str(tmp_path / "api")
    server = await asyncio.start_unix_server(script.serve, path)
    result = Transport(Address(unix_path=path))
    try:
        yield result
    finally:
        result.close()
        server.close()


def ok(body: bytes, code: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_bodies_of_all_three_framings_and_reuse(tmp_path: Path) -> None:
    script = Script(
        [ok(b"one"), CHUNKED + b"3;x=y\r\ntwo\r\n0\r\nTrailer: t\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nthree"]
    )
    async with transport(script, tmp_path) as http:
        for expected in (b"one", b"two", b"three"):
            async with await http.request("GET", "/", {}) as response:
                assert await response.read() == expected
    assert len(script.requests) == 3


async def test_a_get_survives_a_connection_that_the_server_closed(tmp_path: Path) -> None:
    script = Script([ok(b"1")], [ok(b"2")])
    async with transport(script, tmp_path) as http:
        for expected in (b"1", b"2"):
            async with await http.request("GET", "/", {}) as response:
                assert await response.read() == expected


async def test_a_truncated_body_is_an_error_not_a_short_answer(tmp_path: Path) -> None:
    script = Script([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"], [CHUNKED + b"5\r\nab"])
    async with transport(script, tmp_path) as http:
        for _ in range(2):
            response = await http.request("GET", "/", {})
            with pytest.raises(Unreachable):
                await response.read()


async def test_lines_are_cut_across_chunks(tmp_path: Path) -> None:
    script = Script([CHUNKED + b"3\r\nab\n\r\n4\r\nc\ndd\r\n2\r\nd\n\r\n0\r\n\r\n"])
    async with transport(script, tmp_path) as http, await http.request("GET", "/", {}) as response:
        assert [line async for line in response.lines()] == [b"ab", b"c", b"ddd"]


async def test_interim_answers_are_skipped(tmp_path: Path) -> None:
    script = Script([b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"x")])
    async with transport(script, tmp_path) as http, await http.request("GET", "/", {}) as response:
        assert await response.read() == b"x"


async def test_no_server_is_unreachable(tmp_path: Path) -> None:
    http = Transport(Address(unix_path=str(tmp_path / "none")))
    with pytest.raises(Unreachable, match="cannot reach"):
        await http.request("GET", "/", {})


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("404 x", "NotFound", NotFound),
        ("409 x", "AlreadyExists", AlreadyExists),
        ("409 x", "Conflict", Conflict),
    ],
)
async def test_refusals_become_errors_with_the_servers_words(
    tmp_path: Path, code: str, reason: str, kind: type[Exception]
) -> None:
    status = f'{{"kind":"Status","code":{code[:3]},"reason":"{reason}","message":"said so"}}'.encode()
    script = Script([ok(status, code)])
    async with transport(script, tmp_path), Client.over_unix(tmp_path / "api") as client:
        with pytest.raises(kind, match="said so"):
            await client.get(PODS, "a", "default")
    assert script.requests[0].startswith(b"GET /api/v1/namespaces/default/pods/a HTTP/1.1\r\n")


async def test_a_rotated_token_is_read_again_after_a_refusal(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    credentials = TokenFile(str(file))
    assert await credentials.header() == "Bearer old"
    file.write_text("new\n")
    script = Script([ok(b"", "401 Unauthorized"), ok(b"{}")])
    async with transport(script, tmp_path) as http:
        client = Client(http, credentials)
        assert await client.get(PODS, "a", "default") == {}
    assert b"Bearer old" in script.requests[0]
    assert b"Bearer new" in script.requests[1]


async def test_a_server_that_is_too_busy_is_asked_again(tmp_path: Path) -> None:
    busy = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
    script = Script([busy, busy, ok(b'{"a":1}')], [busy] * 6)
    async with transport(script, tmp_path) as http:
        client = Client(http, Fixed())
        assert await client.create(PODS, {"metadata": {"name": "a"}}, "default") == {"a": 1}
        http.drop_idle()
        with pytest.raises(Overloaded):
            await client.get(PODS, "a", "default")
    assert len(script.requests) == 9


def test_a_head_that_is_not_http_is_refused() -> None:
    with pytest.raises(ValueError, match="not an HTTP/1 answer"):
        parse_head(b"SSH-2.0-x\r\n\r\n")
