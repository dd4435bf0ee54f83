"""Port-forward's client against a peer built from the codecs: a WebSocket with a SPDY session behind it."""

import asyncio
import base64
import hashlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bench.ports import free_port

from ambit.core.errors import Unreachable
from ambit.kube import portforward, spdy
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.portforward import PROTOCOL, forward_to, pod_http
from ambit.kube.resource import PODS
from tests.kube.conftest import Cluster
from tests.local.apiserver.streams import HostStreams

C = {"name": "c", "image": "a"}
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MISSING = b'{"kind":"Status","code":404,"reason":"NotFound","message":"pods \\"none\\" not found"}'


class Peer:
    """Port 80 answers HTTP with the request's path, port 7 echoes, any other is refused."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "/pods/none/" in head:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(MISSING) + MISSING)
            writer.close()
            return
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        assert fields["Sec-WebSocket-Protocol"] == PROTOCOL
        assert fields["Accept"] == "*/*"  # Kubernetes answers 406 to anything less
        accept = base64.b64encode(
            hashlib.sha1((fields["Sec-WebSocket-Key"] + GUID).encode()).digest()
        ).decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n".encode()
        )
        session, ports = spdy.Session(client=False), dict[int, str]()
        try:
            while True:
                for event in session.receive(await self._message(reader)):
                    self._take(session, ports, event)
                output = session.output()
                if output:
                    writer.write(struct.pack(">BBQ", 0x82, 127, len(output)) + output)
                    await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    async def _message(self, reader: asyncio.StreamReader) -> bytes:
        first, length = await reader.readexactly(2)
        length &= 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", await reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await reader.readexactly(8))
        mask = await reader.readexactly(4)
        data = await reader.readexactly(length)
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        return payload if first == 0x82 else b""

    def _take(self, session: spdy.Session, ports: dict[int, str], event: spdy.Event) -> None:
        match event:
            case spdy.StreamOpened(stream, headers, _):
                session.reply(stream)
                if headers["streamtype"] == "data":
                    ports[stream] = headers["port"]
                elif headers["port"] not in ("80", "7"):
                    session.send(stream, b"connection refused", finished=True)
            case spdy.Data(stream, data, finished):
                if ports.get(stream) == "7":
                    session.send(stream, data, finished=finished)
                elif ports.get(stream) == "80" and data:
                    path = data.split(b" ")[1]
                    session.send(stream, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(path) + path)


@asynccontextmanager
async def connected(tmp_path: Path) -> AsyncIterator[Client]:
    server = await asyncio.start_unix_server(Peer().serve, tmp_path / "api")
    async with Client.over_unix(tmp_path / "api") as client:
        yield client
    server.close()


async def test_http_to_a_pod_with_connections_reused(tmp_path: Path) -> None:
    async with connected(tmp_path) as client, pod_http(client, "default", "web", 80) as http:
        for path in ("/metrics", "/certs", "/flows"):
            async with await http.request("GET", path, {}) as response:
                assert (await response.read()).decode() == path


async def test_connections_do_not_mix(tmp_path: Path) -> None:
    async with connected(tmp_path) as client, forward_to(client, "default", "web") as tunnel:
        first, second = await tunnel.dial(7), await tunnel.dial(7)
        big = b"x" * 200_000
        first.writer.write(big)
        second.writer.write(b"small")
        await first.writer.drain()
        assert await second.reader.readexactly(5) == b"small"
        assert await first.reader.readexactly(len(big)) == big


async def test_a_slow_reader_holds_the_tunnel_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portforward, "BUFFER", 1000)
    async with connected(tmp_path) as client, forward_to(client, "default", "web") as tunnel:
        slow = await tunnel.dial(7)
        sent = bytes(range(256)) * 2000
        slow.writer.write(sent)
        await slow.writer.drain()
        got = b""
        while len(got) < len(sent):
            got += await slow.reader.read(4096)
        assert got == sent
        blocked = await tunnel.dial(7)
        blocked.writer.write(sent)
        await blocked.writer.drain()
        assert await blocked.reader.readexactly(10) == sent[:10]
        blocked.writer.close()
        free = await tunnel.dial(7)
        free.writer.write(b"through")
        await free.writer.drain()
        assert await asyncio.wait_for(free.reader.readexactly(7), 60) == b"through"


async def test_a_refused_port_says_why(tmp_path: Path) -> None:
    async with connected(tmp_path) as client, pod_http(client, "default", "web", 9999) as http:
        with pytest.raises(
            Unreachable, match="cannot reach port 9999 of pod default/web: connection refused"
        ):
            await http.request("GET", "/", {})


async def test_a_pod_that_does_not_exist(tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        with pytest.raises(NotFound):
            async with forward_to(client, "default", "none"):
                raise AssertionError("there is no such pod")


async def test_the_callers_error_comes_out_as_it_is(tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        with pytest.raises(KeyError):
            async with pod_http(client, "default", "web", 80):
                raise KeyError("mine")


async def test_through_the_real_api_server_over_tls(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            except asyncio.IncompleteReadError:
                break
            body = path * 50_000
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    pod = {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"nodeName": "node1", "containers": [C]},
    }
    web = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = web.sockets[0].getsockname()[1]
    cluster = Cluster(tmp_path, HostStreams())
    await cluster.start()
    try:
        async with Client.from_kubeconfig(cluster.kubeconfig) as client:
            await client.create(PODS, pod)
            await client.patch(PODS, "web", {"status": {"phase": "Running"}}, "default", subresource="status")
            async with pod_http(client, "default", "web", port) as http:
                for path in (b"/one", b"/two"):
                    async with await http.request("GET", path.decode(), {}) as response:
                        assert await response.read() == path * 50_000
            free = free_port()
            async with pod_http(client, "default", "web", free) as http:
                with pytest.raises(
                    Unreachable, match=f"cannot reach port {free} of pod default/web: .*failed"
                ):
                    await http.request("GET", "/", {})
            with pytest.raises(NotFound):
                async with forward_to(client, "default", "none"):
                    raise AssertionError("there is no such pod")
    finally:
        await cluster.stop()
        web.close()
