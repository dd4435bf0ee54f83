"""What a real Envoy refuses takes nothing else with it: neither what comes with it, nor what was there before."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bench.ports import free_port
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401 - read from JSON
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401 - read from JSON
    http_connection_manager_pb2,
)
from google.protobuf import json_format

from ambit.agent.envoy_server import EnvoyServer
from ambit.plan.values import CLUSTER, LISTENER, ROUTES
from ambit.xds import wire
from ambit.xds.frames import Resource
from tests.xds.test_envoy import envoy

pytestmark = pytest.mark.envoy
_MANAGER = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
)
_ROUTER = {
    "name": "router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}
TABLES = ("one", "two", "three")


def resource(type_url: str, message: Any, version: str, value: dict[str, Any]) -> tuple[str, Resource]:
    body = json_format.ParseDict(value, message).SerializeToString()
    return type_url, Resource(name=value["name"], version=version, body=wire.pack(type_url, body))


def listener(name: str, port: int, **wrong: Any) -> tuple[str, Resource]:
    """Requests on this port, by the table of this name."""
    rds = {"route_config_name": name, "config_source": {"ads": {}, "resource_api_version": "V3"}}
    manager = {"@type": _MANAGER, "stat_prefix": name, "rds": rds, "http_filters": [_ROUTER]} | wrong
    value = {
        "name": f"listener of {name}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return resource(LISTENER, listener_pb2.Listener(), "1", value)


def table(name: str, version: str, expression: str = ".*") -> tuple[str, Resource]:
    """Answers with its version."""
    route = {
        "match": {"safe_regex": {"regex": expression}},
        "direct_response": {"status": 200, "body": {"inline_string": version}},
    }
    host = {"name": "all", "domains": ["*"], "routes": [route]}
    return resource(ROUTES, route_pb2.RouteConfiguration(), version, {"name": name, "virtual_hosts": [host]})


def cluster(name: str, **wrong: Any) -> tuple[str, Resource]:
    return resource(CLUSTER, cluster_pb2.Cluster(), "1", {"name": name, "type": "STATIC"} | wrong)


def to_cluster(name: str) -> tuple[str, Resource]:
    """Leads to the cluster of this name, whose answer tells whether it exists."""
    host = {
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name}}],
    }
    return resource(ROUTES, route_pb2.RouteConfiguration(), "1", {"name": name, "virtual_hosts": [host]})


async def ask(port: int) -> str:
    """The body of an answer; empty when nobody answers."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return ""
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.decode().rpartition("\r\n\r\n")[2]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EnvoyServer]:
    server = EnvoyServer(tmp_path / "xds.sock", lambda *_: None)
    await server.start()
    async with envoy(tmp_path):
        yield server
    await server.stop()


async def given(server: EnvoyServer, *resources: tuple[str, Resource]) -> str | None:
    async with asyncio.timeout(60):
        return await server.publish(resources).settled()


async def until(ports: dict[str, int], **expected: str) -> None:
    async with asyncio.timeout(60):
        while {name: await ask(ports[name]) for name in expected} != expected:  # noqa: ASYNC110 - Envoy tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("bad", TABLES)
async def test_a_table_that_is_refused_keeps_its_last_good_version_and_others_change(
    server: EnvoyServer, bad: str
) -> None:
    ports = {name: free_port() for name in TABLES}
    await given(server, cluster("any"), *(listener(name, port) for name, port in ports.items()))
    await given(server, *(table(name, "1") for name in TABLES))
    await until(ports, **dict.fromkeys(TABLES, "1"))
    error = await given(server, *(table(name, "2", "(" if name == bad else ".*") for name in TABLES))
    await until(ports, **{**dict.fromkeys(TABLES, "2"), bad: "1"})
    assert error is not None and "missing )" in error
    assert await given(server, table(bad, "3")) is None
    await until(ports, **{**dict.fromkeys(TABLES, "2"), bad: "3"})


@pytest.mark.parametrize("bad", TABLES)
async def test_clusters_change_beside_one_that_is_refused(server: EnvoyServer, bad: str) -> None:
    ports = {name: free_port() for name in TABLES}
    await given(server, *(listener(name, port) for name, port in ports.items()))
    made = [cluster(name, **({"connect_timeout": "-1s"} if name == bad else {})) for name in TABLES]
    error = await given(server, *made, *(to_cluster(name) for name in TABLES))
    assert error is not None and "Invalid duration" in error
    await until(ports, **{**dict.fromkeys(TABLES, "no healthy upstream"), bad: ""})


@pytest.mark.parametrize("bad", TABLES)
async def test_listeners_come_beside_one_that_is_refused(server: EnvoyServer, bad: str) -> None:
    ports = {name: free_port() for name in TABLES}
    made = [
        listener(name, port, **({"stat_prefix": ""} if name == bad else {})) for name, port in ports.items()
    ]
    error = await given(server, cluster("any"), *made, *(table(name, "1") for name in TABLES))
    assert error is not None and f"listener of {bad}" in error
    await until(ports, **{**dict.fromkeys(TABLES, "1"), bad: ""})


@pytest.mark.parametrize("bad", TABLES)
async def test_what_was_refused_with_others_and_is_taken_by_itself_is_not_told_as_refused(
    server: EnvoyServer, bad: str
) -> None:
    ports = {name: free_port() for name in TABLES}
    await given(server, cluster("any"), *(listener(name, port) for name, port in ports.items()))
    await given(server, *(table(name, "1") for name in TABLES))
    await until(ports, **dict.fromkeys(TABLES, "1"))
    async with asyncio.timeout(60):
        published = server.publish(table(name, "2", "(" if name == bad else ".*") for name in TABLES)
        assert await published.settled() is not None
    assert published.refused == {(ROUTES, bad)}
    made = [cluster(f"{name} 2", **({"connect_timeout": "-1s"} if name == bad else {})) for name in TABLES]
    async with asyncio.timeout(60):
        published = server.publish(made)
        assert await published.settled() is not None
    assert published.refused == {(CLUSTER, f"{bad} 2")}
