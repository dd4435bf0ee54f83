"""The reflector against transcripts of a server, and against a model of one."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.kube.client import WatchEvent
from ambit.kube.errors import Gone, Invalid
from ambit.kube.reflector import INITIAL_EVENTS_END, Change, Mode, Reflector, decode_page
from ambit.objects.nulls import without_nulls


class Value(msgspec.Struct, frozen=True):
    spec: int = 0


decode = msgspec.json.Decoder(Value).decode


def body(name: str, version: int, spec: Any = 0) -> bytes:
    meta = {"namespace": "default", "name": name, "resourceVersion": str(version)}
    return json.dumps({"metadata": meta, "spec": spec}).encode()


def event(kind: Any, name: str, version: int, spec: Any = 0) -> WatchEvent:
    return WatchEvent(kind, msgspec.Raw(body(name, version, spec)))


def bookmark(version: int, end: bool = False) -> WatchEvent:
    meta: dict[str, Any] = {"resourceVersion": str(version)}
    if end:
        meta["annotations"] = {INITIAL_EVENTS_END: "true"}
    return WatchEvent("BOOKMARK", msgspec.Raw(json.dumps({"metadata": meta}).encode()))


def error(code: int, reason: str) -> WatchEvent:
    status = {"kind": "Status", "code": code, "reason": reason, "message": reason}
    return WatchEvent("ERROR", msgspec.Raw(json.dumps(status).encode()))


def page(version: int, *items: bytes, token: str = "") -> bytes:
    meta = json.dumps({"resourceVersion": str(version), "continue": token})
    return f'{{"metadata":{meta},"items":[{",".join(item.decode() for item in items)}]}}'.encode()


def said(changes: list[Change[Value]]) -> list[tuple[str, str]]:
    return [(change.kind, change.key[1]) for change in changes]


def feed(reflector: Reflector[Value], *events: WatchEvent) -> list[tuple[str, str]]:
    return said([change for each in events for change in reflector.event(each)])


def test_streaming_list_then_watch() -> None:
    reflector = Reflector(decode)
    assert reflector.mode is Mode.STREAM
    reflector.begin()
    assert feed(reflector, event("ADDED", "a", 1), event("ADDED", "b", 2)) == [("added", "a"), ("added", "b")]
    assert not reflector.synced
    assert feed(reflector, bookmark(5, end=True)) == []
    assert reflector.synced
    assert reflector.mode is Mode.WATCH
    assert reflector.resource_version == "5"
    assert feed(reflector, event("MODIFIED", "a", 6, 1), event("DELETED", "b", 7)) == [
        ("modified", "a"),
        ("deleted", "b"),
    ]
    reflector.ended()
    assert (reflector.mode, reflector.resource_version) == (Mode.WATCH, "7")


def test_a_stream_that_breaks_before_its_end_starts_again_and_deletes_nothing() -> None:
    reflector = Reflector(decode)
    reflector.begin()
    feed(reflector, event("ADDED", "a", 1), event("ADDED", "b", 2))
    reflector.ended()
    assert reflector.mode is Mode.STREAM
    assert not reflector.synced
    assert len(reflector.items) == 2
    reflector.begin()
    assert feed(reflector, event("ADDED", "b", 2), bookmark(9, end=True)) == [("deleted", "a")]


def test_refused_streaming_falls_back_to_pages() -> None:
    reflector = Reflector(decode)
    reflector.begin()
    reflector.refused(Invalid(422, "Invalid", "sendInitialEvents is forbidden"))
    assert reflector.mode is Mode.LIST
    reflector.begin()
    assert said(list(reflector.list_page(decode_page(page(4, body("a", 1), token="more"))))) == [
        ("added", "a")
    ]
    assert (reflector.mode, reflector.page_token) == (Mode.LIST, "more")
    assert said(list(reflector.list_page(decode_page(page(4, body("b", 2)))))) == [("added", "b")]
    assert (reflector.mode, reflector.resource_version) == (Mode.WATCH, "4")


def test_a_server_that_does_not_know_streaming_is_listed_too() -> None:
    reflector = Reflector(decode)
    reflector.begin()
    feed(reflector, event("ADDED", "a", 1), bookmark(3))
    assert (reflector.mode, reflector.synced) == (Mode.LIST, False)
    reflector.begin()
    assert said(list(reflector.list_page(decode_page(page(4, body("b", 2)))))) == [
        ("added", "b"),
        ("deleted", "a"),
    ]
    assert reflector.synced


@pytest.mark.parametrize(("code", "reason"), [(410, "Expired"), (410, "Gone"), (500, "Expired")])
def test_an_expired_version_relists_and_delivers_what_was_missed(code: int, reason: str) -> None:
    reflector = Reflector(decode)
    reflector.begin()
    feed(reflector, event("ADDED", "a", 1), event("ADDED", "b", 2), bookmark(2, end=True))
    with pytest.raises(Gone):
        feed(reflector, error(code, reason))
    assert reflector.mode is Mode.STREAM
    assert reflector.synced
    reflector.begin()
    changes = feed(reflector, event("ADDED", "b", 8, 1), event("ADDED", "c", 9), bookmark(9, end=True))
    assert changes == [("modified", "b"), ("added", "c"), ("deleted", "a")]


def test_an_object_that_cannot_be_decoded_keeps_its_last_good_value() -> None:
    reflector = Reflector(decode)
    reflector.begin()
    feed(reflector, event("ADDED", "a", 1, 7), bookmark(1, end=True))
    assert feed(reflector, event("MODIFIED", "a", 2, "seven")) == []
    assert reflector.items["default", "a"] == Value(7)
    assert "int" in reflector.undecodable["default", "a"].problem
    assert feed(reflector, event("MODIFIED", "a", 3, 8)) == [("modified", "a")]
    assert not reflector.undecodable


def test_an_object_that_is_nested_too_deeply_keeps_its_last_good_value() -> None:
    def nested(data: bytes) -> Value:
        if b"[[" in data:
            without_nulls(json.loads(data))
        return decode(data)

    reflector = Reflector(nested)
    reflector.begin()
    feed(reflector, event("ADDED", "a", 1, 7), bookmark(1, end=True))
    deep = f'{{"metadata":{{"namespace":"default","name":"a"}},"spec":{"[" * 600}{"]" * 600}}}'
    assert feed(reflector, WatchEvent("MODIFIED", msgspec.Raw(deep.encode()))) == []
    assert reflector.items["default", "a"] == Value(7)
    assert "recursion" in reflector.undecodable["default", "a"].problem


def test_an_undecodable_object_that_vanished_in_a_relist_is_deleted() -> None:
    reflector = Reflector(decode)
    reflector.begin()
    feed(reflector, event("ADDED", "a", 1, 7), bookmark(1, end=True), event("MODIFIED", "a", 2, "x"))
    reflector.refused(Gone(410, "Gone", "gone"))
    reflector.begin()
    assert feed(reflector, bookmark(3, end=True)) == [("deleted", "a")]
    assert not reflector.undecodable


def test_a_kind_that_is_not_served_is_empty_and_complete() -> None:
    reflector = Reflector(decode)
    reflector.begin()
    feed(reflector, event("ADDED", "a", 1), bookmark(1, end=True))
    assert said(list(reflector.vanish())) == [("deleted", "a")]
    assert reflector.synced
    assert reflector.mode is Mode.STREAM


def test_a_bookmark_in_a_watch_moves_the_version() -> None:
    reflector = Reflector(decode)
    reflector.begin()
    feed(reflector, bookmark(1, end=True), bookmark(50))
    assert reflector.resource_version == "50"


class Server:
    """Objects with versions and a history, some of it forgotten."""

    def __init__(self) -> None:
        self.version = 0
        self.objects: dict[str, tuple[int, int]] = {}
        self.history: list[WatchEvent] = []

    def write(self, name: str, spec: int | None) -> None:
        self.version += 1
        if spec is None:
            if name in self.objects:
                _, old = self.objects.pop(name)
                self.history.append(event("DELETED", name, self.version, old))
            return
        kind = "MODIFIED" if name in self.objects else "ADDED"
        self.objects[name] = (self.version, spec)
        self.history.append(event(kind, name, self.version, spec))

    def after(self, version: str) -> list[WatchEvent]:
        return [
            e
            for e in self.history
            if int(json.loads(bytes(e.object))["metadata"]["resourceVersion"]) > int(version)
        ]


names = st.sampled_from("abcd")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), names, st.one_of(st.none(), st.integers(0, 3))),
        st.tuples(st.just("deliver"), st.integers(0, 5), st.none()),
        st.tuples(st.just("break"), st.none(), st.none()),
        st.tuples(st.just("expire"), st.none(), st.none()),
    ),
    max_size=40,
)


@given(steps, st.booleans())
def test_the_copy_converges_and_changes_replay_to_it(
    script: list[tuple[str, Any, Any]], streaming: bool
) -> None:
    """Rules 1 to 4: whatever breaks, the changes replay to the copy, which in the end is the server's."""
    server, reflector = Server(), Reflector(decode, streaming=streaming)
    replayed: dict[str, Value] = {}

    def take(changes: Any) -> None:
        for change in changes:
            name = change.key[1]
            assert replayed.get(name) == change.old
            assert change.old != change.new
            if change.new is None:
                del replayed[name]
            else:
                replayed[name] = change.new

    def request(limit: int) -> None:
        if reflector.mode is Mode.LIST:
            reflector.begin()
            items = [body(n, v, s) for n, (v, s) in server.objects.items()]
            if limit < 3:
                take(reflector.list_page(decode_page(page(server.version, *items[:limit], token="more"))))
                reflector.ended()
                return
            take(reflector.list_page(decode_page(page(server.version, *items))))
        elif reflector.mode is Mode.STREAM:
            reflector.begin()
            stream = [event("ADDED", n, v, s) for n, (v, s) in server.objects.items()]
            stream.append(bookmark(server.version, end=True))
            for each in stream[:limit]:
                take(reflector.event(each))
        else:
            for each in server.after(reflector.resource_version)[:limit]:
                take(reflector.event(each))
        reflector.ended()

    for what, first, second in script:
        if what == "write":
            server.write(first, second)
        elif what == "deliver":
            request(first)
        elif what == "break":
            reflector.ended()
        else:
            reflector.refused(Gone(410, "Expired", "too old"))
        assert {key[1]: value for key, value in reflector.items.items()} == replayed
    for _ in range(2):
        request(1000)
    assert replayed == {name: Value(spec) for name, (_, spec) in server.objects.items()}
    assert reflector.synced
