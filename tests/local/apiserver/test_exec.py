"""exec over SPDY, seen from the wire: what kubectl does not do."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ambit.kube import spdy
from ambit.local.apiserver.server import ApiServer, ApiSettings
from tests.local.apiserver.conftest import Client
from tests.local.apiserver.streams import HostStreams

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "c"}]},
}
PATH = "/api/v1/namespaces/default/pods/p/exec?command=cat&stdin=true&stdout=true"
UPGRADE = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {}\r\n"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    """Pods are this machine."""
    api = ApiServer(ApiSettings(tmp_path / "pki", tmp_path / "cluster.sqlite"), HostStreams())
    await api.start([], tmp_path / "api.sock")
    yield api
    await api.stop()


async def upgraded(client: Client, path: Path, protocol: str) -> tuple[StreamReader, StreamWriter, str]:
    """A connection after the answer's head, and the head."""
    await client.make("/api/v1/namespaces/default/pods", POD)
    reader, writer = await asyncio.open_unix_connection(str(path / "api.sock"))
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: api\r\n{UPGRADE.format(protocol)}\r\n".encode())
    return reader, writer, (await reader.readuntil(b"\r\n\r\n")).decode()


async def test_what_comes_before_all_streams_are_open_is_input_too(client: Client, tmp_path: Path) -> None:
    reader, writer, head = await upgraded(client, tmp_path, "v4.channel.k8s.io")
    assert head.startswith("HTTP/1.1 101 ")
    session = spdy.Session(client=True)
    stdin = session.open_stream({"streamtype": "stdin"})
    session.send(stdin, b"early", finished=True)
    writer.write(session.output())
    streams = {session.open_stream({"streamtype": kind}): kind for kind in ("error", "stdout")}
    writer.write(session.output())
    got = {"error": b"", "stdout": b""}
    async with asyncio.timeout(60):
        while data := await reader.read(4096):
            for event in session.receive(data):
                if isinstance(event, spdy.Data) and event.stream in streams:
                    got[streams[event.stream]] += event.data
    assert got["stdout"] == b"early"
    assert b'"Success"' in got["error"]
    writer.close()


async def test_a_client_that_speaks_no_spdy_is_hung_up_on(client: Client, tmp_path: Path) -> None:
    reader, writer, head = await upgraded(client, tmp_path, "v4.channel.k8s.io")
    assert head.startswith("HTTP/1.1 101 ")
    writer.write(b"\x80\x07" + b"no spdy at all" * 10)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
    assert (await client.get("/api/v1/namespaces/default/pods/p"))["metadata"]["name"] == "p"


async def test_a_protocol_that_is_not_served_is_named(client: Client, tmp_path: Path) -> None:
    _, writer, head = await upgraded(client, tmp_path, "v9.channel.k8s.io")
    assert head.startswith("HTTP/1.1 403 ")
    writer.close()
