"""Expectations: a controller waits for its own writes, but not for ever."""

from typing import Any

import pytest

from ambit.kube.client import Client
from ambit.kube.credentials import Fixed
from ambit.kube.http import Address, Transport
from ambit.kube.informer import Informer
from ambit.kube.resource import PODS
from ambit.local.controllers.caches import Cache, Expectations, decode_object

OWNER = ("default", "web")


def pod(uid: str, deleting: bool = False, owner: str = "o") -> dict[str, Any]:
    references = [{"uid": owner, "controller": True, "kind": "ReplicaSet", "name": "web"}]
    metadata: dict[str, Any] = {
        "namespace": "default",
        "name": "p",
        "uid": uid,
        "ownerReferences": references,
    }
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"metadata": metadata}


class Shown(Cache):
    """A cache that shows what a test puts into it."""

    def __init__(self) -> None:
        client = Client(Transport(Address(unix_path="/nowhere")), Fixed())
        super().__init__(Informer(client, PODS, decode_object))
        self.shown: dict[tuple[str, str], dict[str, Any]] = {}

    def get(self, key: tuple[str, str]) -> dict[str, Any] | None:
        return self.shown.get(key)


async def test_a_creation_is_waited_for_until_it_shows() -> None:
    cache = Shown()
    expected = Expectations(cache)
    assert expected.are_met(OWNER)
    expected.created(OWNER, pod("1"))
    assert not expected.are_met(OWNER)
    cache.shown["default", "p"] = pod("an older one of that name")
    assert not expected.are_met(OWNER)
    cache.shown["default", "p"] = pod("1")
    assert expected.are_met(OWNER)


async def test_a_deletion_is_waited_for_until_it_shows() -> None:
    cache = Shown()
    expected = Expectations(cache)
    cache.shown["default", "p"] = pod("1")
    expected.deleted(OWNER, pod("1"))
    assert not expected.are_met(OWNER)
    cache.shown["default", "p"] = pod("1", deleting=True)
    assert expected.are_met(OWNER)


async def test_what_never_shows_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Expectations(Shown())
    monkeypatch.setattr(Expectations, "TIMEOUT", 0.0)
    expected.created(OWNER, pod("1"))
    assert expected.are_met(OWNER)
    monkeypatch.setattr(Expectations, "TIMEOUT", 99.0)
    assert expected.are_met(OWNER)


async def test_objects_are_found_by_their_controller() -> None:
    cache = Shown()
    cache._index("added", None, pod("1"))
    assert [item["metadata"]["uid"] for item in cache.owned_by("o")] == ["1"]
    cache._index("modified", pod("1"), pod("1", owner="other"))
    assert cache.owned_by("o") == []
    assert len(cache.owned_by("other")) == len(cache.in_namespace("default")) == 1
    cache._index("deleted", pod("1", owner="other"), None)
    assert cache.owned_by("other") == cache.in_namespace("default") == []
