"""Watches: order, selectors, bookmarks, streaming lists, old versions."""

import asyncio

from tests.local.apiserver.conftest import Client
from tests.local.apiserver.test_objects import MAPS, config_map


async def test_a_watch_continues_from_a_list_without_loss(client: Client) -> None:
    version = (await client.get(MAPS))["metadata"]["resourceVersion"]
    await client.make(MAPS, config_map("a"))
    await client.call("PATCH", f"{MAPS}/a", {"data": {"k": "v"}}, media="application/merge-patch+json")
    await client.call("DELETE", f"{MAPS}/a")
    events = await client.events(MAPS, 3, resourceVersion=version)
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))


async def test_leaving_a_selection_is_a_deletion(client: Client) -> None:
    version = (await client.get(MAPS))["metadata"]["resourceVersion"]
    body = config_map("a")
    await client.make(MAPS, body)
    for labels in ({"app": "x"}, {"app": "y"}):
        patch = {"metadata": {"labels": labels}}
        await client.call("PATCH", f"{MAPS}/a", patch, media="application/merge-patch+json")
    events = await client.events(MAPS, 2, resourceVersion=version, labelSelector="app=x")
    assert [event["type"] for event in events] == ["ADDED", "DELETED"]


async def test_a_streaming_list_ends_with_a_marked_bookmark(client: Client) -> None:
    await client.make(MAPS, config_map("a"))
    events = await client.events(
        MAPS,
        2,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
    )
    assert [event["type"] for event in events] == ["ADDED", "BOOKMARK"]
    assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_versions_out_of_reach(client: Client) -> None:
    status, body = await client.call("GET", MAPS, watch="true", resourceVersion="1")
    assert (status, body["reason"]) == (410, "Expired")
    status, body = await client.call("GET", MAPS, resourceVersion="999999")
    assert (status, body["details"]["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


async def test_a_running_watch_sees_changes_at_once(client: Client) -> None:
    task = asyncio.create_task(client.events(MAPS, 1, sendInitialEvents="false"))
    while not task.done():
        await client.make(MAPS, {"metadata": {"generateName": "a-"}})
        await asyncio.sleep(0)
    assert (await task)[0]["type"] == "ADDED"
