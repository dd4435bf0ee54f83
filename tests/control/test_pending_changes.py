"""Changes that wait to be compiled are shared out by namespace, and the event loop goes on between batches."""

import asyncio
import json
import time
from typing import Any

import pytest

from ambit.control.mesh import MeshFeed
from ambit.control.metrics import Counters
from ambit.control.pending_changes import OVERHEAD, SLICE, USUAL, PendingChanges
from ambit.control.settings import Settings
from ambit.ingest.mesh import Change
from ambit.objects.decoding import PROJECTIONS
from tests.ingest.build import service
from tests.ingest.gateway.build import bound, parent, route, to

ROUTES = "httproutes.gateway.networking.k8s.io"


def pods(namespace: str, count: int) -> list[Change]:
    return [Change("pods", f"{namespace}/p{number}") for number in range(count)]


def filled(*changes: Change) -> PendingChanges:
    pending = PendingChanges()
    for each in changes:
        pending.add(each)
    return pending


def taken(pending: PendingChanges, cost: float = 0.0) -> dict[str, int]:
    """How many changes of which namespace are in the next batch, each of which costs so much."""
    found = pending.take_slice()
    pending.note_cost(len(found) * cost + OVERHEAD)
    namespaces = [each.key.rpartition("/")[0] for each in found]
    return {each: namespaces.count(each) for each in namespaces}


def test_changes_of_one_namespace_keep_their_order_and_the_newest_counts() -> None:
    first, second = pods("shop", 2)
    newer = Change("pods", first.key, object())
    pending = filled(first, second, newer, Change("nodes", "node1"))
    assert pending.has_any(["pods"]) and not pending.has_any([ROUTES])
    assert pending.take_slice() == [newer, second, Change("nodes", "node1")]
    assert not pending and not pending.has_any(["pods"])


def test_a_namespace_with_many_changes_waits_for_itself() -> None:
    pending = filled(*pods("mallory", 10_000), *pods("shop", 3))
    assert taken(pending, USUAL) == {"mallory": round(SLICE / USUAL)}
    assert taken(pending, USUAL) == {"shop": 3, "mallory": round(SLICE / USUAL) - 3}


def test_changes_that_cost_much_come_one_by_one() -> None:
    pending = filled(*(Change(ROUTES, f"mallory/r{number}") for number in range(1000)))
    assert taken(pending, 2 * SLICE)["mallory"] <= 25
    for number in range(10):
        pending.add(Change(ROUTES, f"shop/r{number}"))
        assert taken(pending, 2 * SLICE) == {"mallory": 1}
        assert taken(pending, 0.001) == {"shop": 1}


def test_a_namespace_that_was_in_a_slow_batch_is_soon_as_before() -> None:
    pending = filled(Change("pods", "shop/p"), Change(ROUTES, "mallory/r"))
    assert taken(pending, 10.0) == {"shop": 1, "mallory": 1}
    counts = []
    for _ in range(20):
        for each in pods("shop", 1000):
            pending.add(each)
        counts.append(taken(pending, USUAL)["shop"])
    assert counts[0] == 1
    assert counts[-1] == pytest.approx(SLICE / USUAL, abs=1)


def decoded(given: tuple[str, dict[str, Any]]) -> Any:
    resource, body = given
    return PROJECTIONS[resource].decode(json.dumps(body).encode())


async def test_other_namespaces_and_the_event_loop_go_on_while_many_large_routes_are_compiled() -> None:
    feed = MeshFeed(None, Settings(), Counters())  # type: ignore[arg-type]
    published: list[str] = []
    feed.publish_to(
        lambda updates: published.extend(name for each in updates for name in each.changed), lambda *_: None
    )
    feed._started = True
    observe = {name: feed._collector(name) for name in ("services", ROUTES)}
    web = bound(service("web", {"app": "web"}, appProtocol=None), "waypoint")
    observe["services"]("added", None, decoded(web))
    await asyncio.sleep(0)
    assert feed.has_compiled(["services"])
    matches = [{"path": {"type": "Exact", "value": f"/{number}"}} for number in range(64)]
    parents = ({**parent("web"), "namespace": "default"},)
    for number in range(150):
        rules = [{"matches": matches, "backendRefs": [to("own")]}] * 2
        given = route(*rules, name=f"r{number}", namespace="mallory", parents=parents)
        observe[ROUTES]("added", None, decoded(given))
    began, ticks = time.perf_counter(), 0
    observe["services"]("added", None, decoded(service("victim", {"app": "v"}, namespace="shop")))
    while not feed.has_compiled(["services"]):
        ticks += 1
        await asyncio.sleep(0)
    waited = time.perf_counter() - began
    assert published[-1].startswith("shop/victim")
    assert feed._pending.has_any([ROUTES]), "the victim waited for all routes of the other namespace"
    while not feed.has_compiled([ROUTES]):
        ticks += 1
        await asyncio.sleep(0)
    assert waited < (time.perf_counter() - began) / 2
    assert ticks > 10
    feed.failed.cancel()
