"""One caller cannot take all connections; what it closed counts no more."""

import asyncio
import contextlib
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest

from ambit.daemon import fair_socket
from ambit.daemon.fair_socket import FairSocket


class Elsewhere(IPv4Address):
    """Loopback addresses are all a test has."""

    is_loopback = False


def listener() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


async def ask(port: int, own: str) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(own, 0))
    async with asyncio.timeout(60):
        try:
            return await reader.read(2), writer
        except ConnectionResetError:
            return b"", writer


@contextlib.asynccontextmanager
async def serving(limit: int):
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hi")
        await reader.read()
        writer.close()

    listening = listener()
    server = await asyncio.start_server(connected, sock=FairSocket(listening, limit))
    listening.close()
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_one_caller_is_limited_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_socket, "ip_address", Elsewhere)
    async with serving(2) as port:
        answers = [await ask(port, "127.0.0.2") for _ in range(4)]
        assert [text for text, _ in answers] == [b"hi", b"hi", b"", b""]
        assert (await ask(port, "127.0.0.3"))[0] == b"hi"
        for _, writer in answers:
            writer.close()
        async with asyncio.timeout(60):
            while (await ask(port, "127.0.0.2"))[0] != b"hi":  # noqa: ASYNC110 - the server counts when it sees them gone
                await asyncio.sleep(0)


async def test_the_users_own_programs_are_not_counted() -> None:
    assert IPv6Address("::1").is_loopback
    async with serving(1) as port:
        assert [(await ask(port, "127.0.0.1"))[0] for _ in range(3)] == [b"hi"] * 3
