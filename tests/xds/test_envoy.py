"""The server session with a real Envoy at the other end."""

import asyncio
from contextlib import asynccontextmanager, suppress

import grpc.aio
import msgspec
import pytest
from bench.ports import free_port
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401 - read from JSON
from google.protobuf import json_format

from ambit.agent.binary import envoy_binary
from ambit.xds import wire
from ambit.xds.events import Acknowledged, Asked, Rejected
from ambit.xds.frames import Resource
from ambit.xds.session import ServerSession
from ambit.xds.store import Store

pytestmark = pytest.mark.envoy
TYPE = "type.googleapis.com/envoy."
CLUSTER = TYPE + "config.cluster.v3.Cluster"
LISTENER = TYPE + "config.listener.v3.Listener"
HTTP = TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions"


def bootstrap(directory):
    http2 = {"@type": HTTP, "explicit_http_config": {"http2_protocol_options": {}}}
    path = {"pipe": {"path": str(directory / "xds.sock")}}
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": "test", "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "typed_extension_protocol_options": {HTTP.removeprefix("type.googleapis.com/"): http2},
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": path}}]}],
                    },
                }
            ]
        },
    }


def resource(kind, message, version, value, **options):
    parsed = json_format.ParseDict(value, message())
    return Resource(
        name=value["name"], version=version, body=wire.pack(kind, parsed.SerializeToString()), **options
    )


def listener(port, version="1", **wrong):
    proxy = {
        "@type": TYPE + "extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "t",
        "cluster": "lazy",
        "on_demand": {"odcds_config": {"ads": {}, "resource_api_version": "V3"}, "timeout": "10s"},
    } | wrong
    value = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }
    return {"in": resource(LISTENER, listener_pb2.Listener, version, value)}


def lazy(port, version="1"):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    value = {
        "name": "lazy",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "lazy", "endpoints": endpoints},
    }
    return {"lazy": resource(CLUSTER, cluster_pb2.Cluster, version, value, on_demand=True)}


class Server:
    """The smallest shell around a session."""

    def __init__(self, path):
        self.path = path
        self.store = Store()
        self.session = None
        self.outbox = asyncio.Queue()
        self.events = asyncio.Queue()
        self.requests = []

    @asynccontextmanager
    async def serving(self):
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(self.handle)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.SERVICE, {wire.METHOD_NAME: handler}),)
        )
        server.add_insecure_port(f"unix:{self.path}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    async def handle(self, requests, context):
        self.session, self.outbox, self.requests = ServerSession(self.store), asyncio.Queue(), []

        async def read():
            async for data in requests:
                request = wire.decode_request(data)
                self.requests.append(request)
                self.send(self.session.receive(request))
                for event in self.session.take_events():
                    self.events.put_nowait(event)

        reader = asyncio.create_task(read())
        try:
            while True:
                await context.write(wire.encode_response(await self.outbox.get()))
        finally:
            reader.cancel()

    def send(self, responses):
        for response in responses:
            self.outbox.put_nowait(response)

    def offer(self, kind, changed, removed=()):
        self.send(self.session.notify(self.session.store.update(kind, changed, removed)))

    async def event(self, wanted):
        """The next event for which `wanted` holds."""
        async with asyncio.timeout(60):
            while True:
                event = await self.events.get()
                if wanted(event):
                    return event


def answered(kind, of):
    return lambda event: isinstance(event, of) and event.response.type_url == kind


@asynccontextmanager
async def echo():
    async def answer(reader, writer):
        with suppress(OSError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def speak(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    async with asyncio.timeout(60):
        answer = await reader.read(100)
    writer.close()
    return answer


@asynccontextmanager
async def envoy(directory):
    config = directory / "envoy.json"
    config.write_bytes(msgspec.json.encode(bootstrap(directory)))
    process = await asyncio.create_subprocess_exec(
        str(envoy_binary()),
        *("-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error"),
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def test_envoy_and_the_session_understand_each_other(tmp_path):
    port, server = free_port(), Server(tmp_path / "xds.sock")
    server.store.update(LISTENER, listener(port))
    async with echo() as backend, server.serving(), envoy(tmp_path):
        acknowledged = await server.event(answered(LISTENER, Acknowledged))
        assert [each.name for each in acknowledged.response.resources] == ["in"]

        call = asyncio.create_task(speak(port))
        asked = await server.event(lambda event: isinstance(event, Asked))
        assert asked == Asked(CLUSTER, ("lazy",))
        server.offer(CLUSTER, lazy(backend))
        assert await call == b"hello"

        server.offer(LISTENER, listener(port, "bad", stat_prefix=""))
        rejected = await server.event(answered(LISTENER, Rejected))
        assert "StatPrefix" in rejected.error
        assert await speak(port) == b"hello"


async def test_envoy_keeps_what_it_has_when_the_server_comes_back(tmp_path):
    port, server = free_port(), Server(tmp_path / "xds.sock")
    server.store.update(LISTENER, listener(port))
    async with echo() as backend, envoy(tmp_path):
        async with server.serving():
            await server.event(answered(LISTENER, Acknowledged))
            call = asyncio.create_task(speak(port))
            await server.event(lambda event: isinstance(event, Asked))
            server.offer(CLUSTER, lazy(backend))
            await server.event(lambda event: isinstance(event, Acknowledged) and event.response.resources)
            assert await call == b"hello"
        first = server.session
        async with server.serving():
            answers = [await server.event(lambda event: isinstance(event, Acknowledged)) for _ in "cl"]
            assert server.session is not first
            assert [each.response.resources for each in answers] == [(), ()]
            assert [each.response.removed for each in answers] == [(), ()]
            assert server.session.names(CLUSTER) == {"lazy"}
            assert server.session.status(CLUSTER).wildcard
            assert await speak(port) == b"hello"
            server.offer(CLUSTER, lazy(backend, "2"))
            await server.event(answered(CLUSTER, Acknowledged))
