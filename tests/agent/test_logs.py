"""The socket for Envoy's access log, with requests as Envoy 1.40 sends them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.agent.logs import LogServer, parse

HEAD = (
    b"POST /logs HTTP/1.1\r\nhost: agent\r\ncontent-type: application/x-protobuf\r\n"
    b"x-envoy-expected-rq-timeout-ms: 10000\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunked(*parts: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


def sized(body: bytes) -> bytes:
    return b"POST /logs HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.fixture
async def taken(tmp_path: Path) -> AsyncIterator[tuple[Path, asyncio.Queue[bytes]]]:
    found: asyncio.Queue[bytes] = asyncio.Queue()
    server = LogServer(tmp_path / "logs.sock", found.put_nowait)
    await server.start()
    yield tmp_path / "logs.sock", found
    server.stop()


async def test_requests_are_taken_and_answered(taken: tuple[Path, asyncio.Queue[bytes]]) -> None:
    path, found = taken
    reader, writer = await asyncio.open_unix_connection(path)
    async with asyncio.timeout(60):
        for body in (b"\x0a\x00\r\n\r\n0\r\n\r\n", b"x" * 300_000):
            writer.write(chunked(body))
            assert await found.get() == body
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_lines_that_are_to_be_printed_have_their_own_place(tmp_path: Path) -> None:
    found: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    server = LogServer(
        tmp_path / "logs.sock",
        lambda message: found.put_nowait(("taken", message)),
        lambda message: found.put_nowait(("printed", message)),
    )
    await server.start()
    _, writer = await asyncio.open_unix_connection(tmp_path / "logs.sock")
    async with asyncio.timeout(60):
        for path, wanted in ((b"/lines", "printed"), (b"/logs", "taken")):
            writer.write(sized(b"x").replace(b"/logs", path))
            assert await found.get() == (wanted, b"x")
    writer.close()
    server.stop()


async def test_nonsense_ends_its_connection_only(taken: tuple[Path, asyncio.Queue[bytes]]) -> None:
    path, found = taken
    bad, good = [await asyncio.open_unix_connection(path) for _ in range(2)]
    async with asyncio.timeout(60):
        bad[1].write(b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n")
        assert await bad[0].read() == b""
        good[1].write(chunked(b"ok"))
        assert await found.get() == b"ok"
    for _, writer in (bad, good):
        writer.close()


async def test_a_message_that_cannot_be_read_does_not_end_the_server(tmp_path: Path) -> None:
    found: asyncio.Queue[bytes] = asyncio.Queue()

    def take(message: bytes) -> None:
        found.put_nowait(message)
        if message == b"bad":
            raise RuntimeError("a defect")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    server = LogServer(tmp_path / "logs.sock", take)
    await server.start()
    async with asyncio.timeout(60):
        for body in (b"bad", b"good"):
            _, writer = await asyncio.open_unix_connection(tmp_path / "logs.sock")
            writer.write(sized(body))
            assert await found.get() == body
            writer.close()
    server.stop()


@given(st.lists(st.lists(st.binary(min_size=1, max_size=50), max_size=4), max_size=4), st.integers(1, 40))
def test_any_division_gives_the_same_bodies(requests: list[list[bytes]], step: int) -> None:
    stream = b"".join(chunked(*parts) for parts in requests) + sized(b"last")
    data, found = bytearray(), []
    for begin in range(0, len(stream), step):
        data += stream[begin : begin + step]
        while (request := parse(data)) is not None:
            found.append(request[0])
            del data[: request[1]]
    assert found == [*(b"".join(parts) for parts in requests), b"last"]
    assert not data


@given(st.binary(max_size=100), st.booleans())
def test_bytes_of_any_kind_are_refused_or_wanted_more_of(data: bytes, with_head: bool) -> None:
    with contextlib.suppress(ValueError):
        parse(HEAD + data if with_head else data)


@pytest.mark.parametrize("length", [b"-1", b"1_0", b"+2", b"", b"99999999999"])
def test_lengths_are_plain_numbers(length: bytes) -> None:
    with pytest.raises(ValueError, match="length"):
        parse(b"POST / HTTP/1.1\r\ncontent-length: " + length + b"\r\n\r\nbody")
    with pytest.raises(ValueError, match="length"):
        parse(HEAD + length + b"\r\nbody\r\n")
