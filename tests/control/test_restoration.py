"""A status that another writer wiped or overwrote is written again, beside what other controllers say."""

import asyncio
from typing import Any

import pytest

from ambit.control.statuses import restoration
from ambit.control.statuses.restoration import Restoration
from ambit.core.finding import ObjectRef
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from tests.control.test_gateways import GATEWAY, ROUTE, web
from tests.control.test_process import client, eventually, running

__all__ = ["client"]

DENY: dict[str, Any] = {
    "metadata": {"name": "deny", "namespace": "shop"},
    "spec": {"action": "DENY", "rules": [{"from": [{"source": {"namespaces": ["other"]}}]}]},
}
OF_REQUESTS: dict[str, Any] = {
    "metadata": {"name": "requests", "namespace": "shop"},
    "spec": {
        "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
        "action": "DENY",
        "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}],
    },
}
FOREIGN = {
    "controllerName": "example.com/other",
    "parentRef": {"group": "", "kind": "Service", "name": "web"},
    "conditions": [
        {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ],
}
OBJECTS = {
    "AuthorizationPolicy of connections": (kinds.AUTHORIZATION_POLICIES, "deny", "shop"),
    "AuthorizationPolicy of requests": (kinds.AUTHORIZATION_POLICIES, "requests", "shop"),
    "HTTPRoute": (kinds.HTTP_ROUTES, "web", "shop"),
    "Gateway": (kinds.GATEWAYS, "waypoint", "shop"),
    "GatewayClass": (kinds.GATEWAY_CLASSES, "ambit-waypoint", None),
    "Service": (kinds.SERVICES, "web", "shop"),
}


def spoilt(said: dict[str, Any]) -> dict[str, Any]:
    """A condition, or a parent's conditions, with another meaning."""
    if "conditions" in said:
        return {**said, "conditions": [spoilt(each) for each in said["conditions"]]}
    return {**said, "status": "Unknown", "reason": "Other", "lastTransitionTime": "2026-01-01T00:00:00Z"}


def without_times(status: Any) -> Any:
    if isinstance(status, dict):
        return {name: without_times(each) for name, each in status.items() if name != "lastTransitionTime"}
    return [without_times(each) for each in status] if isinstance(status, list) else status


async def test_a_status_that_was_wiped_or_overwritten_is_restored(client: Client) -> None:
    await client.create(kinds.SERVICES, web(**{"istio.io/use-waypoint": "waypoint"}))
    await client.create(kinds.HTTP_ROUTES, ROUTE)
    await client.create(kinds.GATEWAYS, GATEWAY)
    for policy in (DENY, OF_REQUESTS):
        await client.create(kinds.AUTHORIZATION_POLICIES, policy)

    async def status(name: str) -> dict[str, Any]:
        kind, of, namespace = OBJECTS[name]
        found: dict[str, Any] = without_times((await client.get(kind, of, namespace)).get("status") or {})
        return found

    async def written() -> dict[str, dict[str, Any]]:
        return {name: await status(name) for name in OBJECTS}

    def conditions(found: dict[str, Any]) -> list[Any]:
        return found.get("conditions") or [
            each for one in found.get("parents") or () for each in one["conditions"]
        ]

    async with running(client):
        await eventually(written, lambda found: all(map(conditions, found.values())))
        await eventually(lambda: status("HTTPRoute"), lambda found: conditions(found)[0]["status"] == "True")
        for name, (kind, of, namespace) in OBJECTS.items():
            wanted = await status(name)
            several = "parents" if "parents" in wanted else "conditions"
            overwritten = [spoilt(each) for each in wanted[several]]
            for broken in ([], overwritten):
                patch = {"status": {several: broken}}
                await client.patch(kind, of, patch, namespace, subresource="status")
                await eventually(lambda name=name: status(name), lambda found, wanted=wanted: found == wanted)
        # What another controller says of the route stays.
        patch = {"status": {"parents": [FOREIGN]}}
        await client.patch(kinds.HTTP_ROUTES, "web", patch, "shop", subresource="status")
        found = await eventually(lambda: status("HTTPRoute"), lambda found: len(found["parents"]) == 2)
        assert without_times(FOREIGN) in found["parents"]


async def test_writers_that_overwrite_each_other_take_longer_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(restoration, "FIRST", 0.01)
    monkeypatch.setattr(restoration, "LONGEST", 0.04)
    origin, looked = ObjectRef("HTTPRoute", "shop", "web"), asyncio.Event()
    given = Restoration(lambda _: looked.set(), lambda: True)
    loop = asyncio.get_running_loop()
    given.good(origin, "1")
    pauses = []
    for version in range(2, 12, 2):
        began = loop.time()
        given.seen(origin, str(version))
        async with asyncio.timeout(60):
            await looked.wait()
        looked.clear()
        given.good(origin, str(version + 1))
        given.seen(origin, str(version + 1))
        pauses.append(loop.time() - began)
    assert all(pause >= least for pause, least in zip(pauses, (0.01, 0.02, 0.04, 0.04), strict=False))
    assert not looked.is_set()


async def test_a_status_that_is_overwritten_in_the_pause_before_a_look_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another controller answers a change of the object as well, some milliseconds after this one."""
    monkeypatch.setattr(restoration, "FIRST", 0.01)
    origin, looked = ObjectRef("HTTPRoute", "shop", "web"), asyncio.Event()
    given = Restoration(lambda _: looked.set(), lambda: True)
    given.good(origin, "1")
    given.seen(origin, "2")  # the user's change
    given.good(origin, "3")  # the status that this controller writes
    given.seen(origin, "3")
    given.seen(origin, "4")  # the other controller's
    async with asyncio.timeout(10):
        await looked.wait()
