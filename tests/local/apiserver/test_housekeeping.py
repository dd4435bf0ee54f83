"""Old Events go; recent ones stay."""

from datetime import UTC, datetime, timedelta

from ambit.local.apiserver.clock import stamp
from ambit.local.apiserver.housekeeping import outdated
from ambit.local.apiserver.server import ApiServer
from tests.local.apiserver.conftest import Client


async def test_events_last_an_hour(client: Client, server: ApiServer) -> None:
    now = datetime.now(UTC)
    for name, age in (("old", 61), ("new", 59)):
        seen = stamp(now - timedelta(minutes=age))
        body = {
            "metadata": {"name": name, "creationTimestamp": None},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
            "lastTimestamp": seen,
        }
        await client.make("/api/v1/namespaces/default/events", body)
    entries = server.store.select("events")
    assert outdated(entries, now) == []
    later = now + timedelta(minutes=60, seconds=30)
    assert [entry.name for entry in outdated(entries, later)] == ["new", "old"]


async def test_events_have_two_faces(client: Client) -> None:
    body = {
        "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
        "note": "hello",
        "reason": "Tested",
    }
    await client.make("/apis/events.k8s.io/v1/namespaces/default/events", body)
    found = await client.get("/api/v1/namespaces/default/events", fieldSelector="involvedObject.name=p")
    (event,) = found["items"]
    assert (event["message"], event["involvedObject"]["name"]) == ("hello", "p")
    other = await client.get("/apis/events.k8s.io/v1/namespaces/default/events/e")
    assert (other["note"], other["apiVersion"]) == ("hello", "events.k8s.io/v1")
