"""Informers against a real server that goes away, comes back, and forgets."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from ambit.kube.client import Client
from ambit.kube.informer import Informer
from ambit.kube.resource import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, Resource
from tests.kube.conftest import Cluster, until


class Config(msgspec.Struct, frozen=True):
    data: dict[str, str] = {}


decode = msgspec.json.Decoder(Config).decode


def config(name: str, value: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": labels or {}}
    return {"metadata": metadata, "data": {"k": value}}


@asynccontextmanager
async def following(informer: Informer[Any]) -> AsyncIterator[list[str]]:
    seen: list[str] = []

    def note(kind: str, old: Any, new: Any) -> None:
        seen.append(f"{kind} {(new or old).data.get('k')}" if isinstance(new or old, Config) else kind)

    informer.subscribe(note)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(informer.run())
        await asyncio.wait_for(informer.wait_synced(), 60)
        yield seen
        task.cancel()


async def test_it_follows_and_filters(cluster: Cluster) -> None:
    async with Client.over_unix(cluster.unix) as client:
        await client.create(CONFIG_MAPS, config("a", "1", {"app": "x"}))
        await client.create(CONFIG_MAPS, config("b", "2"))
        informer = Informer(client, CONFIG_MAPS, decode, namespace="default", label_selector="app=x")
        async with following(informer) as seen:
            assert informer.items == {("default", "a"): Config({"k": "1"})}
            await client.patch(CONFIG_MAPS, "a", {"data": {"k": "3"}}, "default")
            await client.patch(CONFIG_MAPS, "b", {"metadata": {"labels": {"app": "x"}}}, "default")
            await client.patch(CONFIG_MAPS, "a", {"metadata": {"labels": {"app": None}}}, "default")
            await until(lambda: len(seen) == 4)
        assert seen == ["added 1", "modified 3", "added 2", "deleted 3"]


async def test_it_survives_a_restart_and_reports_what_it_missed(cluster: Cluster) -> None:
    async with Client.over_unix(cluster.unix) as client:
        await client.create(CONFIG_MAPS, config("stays", "1"))
        await client.create(CONFIG_MAPS, config("goes", "2"))
        informer = Informer(client, CONFIG_MAPS, decode, namespace="default")
        async with following(informer) as seen:
            await cluster.stop()
            await cluster.start()
            async with Client.over_unix(cluster.unix) as other:
                await other.delete(CONFIG_MAPS, "goes", "default")
                await other.create(CONFIG_MAPS, config("comes", "3"))
            await until(lambda: len(seen) == 4)
            assert sorted(seen) == ["added 1", "added 2", "added 3", "deleted 2"]
            await client.patch(CONFIG_MAPS, "stays", {"data": {"k": "4"}}, "default")
            await until(lambda: seen[-1] == "modified 4")
        assert len(seen) == 5


async def test_a_kind_that_is_not_served_yet_counts_as_empty(cluster: Cluster) -> None:
    widgets = Resource("example.com", "v1", "widgets", "Widget")
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    definition = {
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    async with Client.over_unix(cluster.unix) as client:
        informer = Informer(client, widgets, msgspec.json.Decoder(dict).decode, missing_retry=0.05)
        async with following(informer) as seen:
            assert informer.items == {}
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
            await client.create(widgets, {"metadata": {"name": "w", "namespace": "default"}})
            await until(lambda: seen == ["added"])
            await client.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.com")
            await until(lambda: seen == ["added", "deleted"])


async def test_an_object_of_the_wrong_shape_is_reported_not_fatal(cluster: Cluster) -> None:
    class Strict(msgspec.Struct, frozen=True):
        data: dict[str, int] = {}

    async with Client.over_unix(cluster.unix) as client:
        await client.create(CONFIG_MAPS, config("text", "word"))
        informer = Informer(
            client, CONFIG_MAPS, msgspec.json.Decoder(Strict).decode, field_selector="metadata.name=text"
        )
        async with following(informer):
            assert informer.items == {}
            assert ("default", "text") in informer.undecodable


async def test_a_server_that_ends_every_watch_is_not_asked_in_a_loop(tmp_path: Path) -> None:
    asked: list[float] = []
    clock = asyncio.get_running_loop().time

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b""
        if not asked:
            annotations = {"k8s.io/initial-events-end": "true"}
            metadata = {"resourceVersion": "7", "annotations": annotations}
            body = msgspec.json.encode({"type": "BOOKMARK", "object": {"metadata": metadata}}) + b"\n"
        asked.append(clock())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "api")
    async with Client.over_unix(tmp_path / "api") as client, following(Informer(client, CONFIG_MAPS, decode)):
        await until(lambda: len(asked) == 5)
    server.close()
    pauses = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert all(pause >= floor for pause, floor in zip(pauses, (0.045, 0.09, 0.19, 0.39), strict=True))


async def test_a_refusal_is_known_as_long_as_it_lasts(tmp_path: Path) -> None:
    """What was seen before stays."""
    allowed = True
    item = {"metadata": {"name": "a", "namespace": "default", "resourceVersion": "6"}, "data": {"k": "1"}}
    annotations = {"k8s.io/initial-events-end": "true"}
    seen = {"metadata": {"resourceVersion": "7", "annotations": annotations}}
    lines = [{"type": "ADDED", "object": item}, {"type": "BOOKMARK", "object": seen}]
    shown = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    status = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "configmaps is forbidden"}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        code, body = (b"200 OK", shown) if allowed else (b"403 Forbidden", msgspec.json.encode(status))
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (code, len(body)) + body)
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "api")
    informer = Informer(client := Client.over_unix(tmp_path / "api"), CONFIG_MAPS, decode)
    async with client, following(informer):
        assert informer.refusal == ""
        allowed = False
        await until(lambda: "configmaps is forbidden" in informer.refusal)
        assert informer.items == {("default", "a"): Config({"k": "1"})}
        allowed = True
        await until(lambda: informer.refusal == "")
    server.close()
