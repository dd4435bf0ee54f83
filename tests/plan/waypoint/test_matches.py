"""Each part of a request that a route can ask for: what it takes, and what it leaves."""

import pytest

from ambit.model.http import (
    Action,
    Backend,
    Entry,
    NamedMatch,
    PathKind,
    PathMatch,
    RequestMatch,
)
from tests.plan.waypoint.conftest import PORT, V1, V2, Scene

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

TO_V1, TO_V2 = Action((Backend(V1.key, PORT),)), Action((Backend(V2.key, PORT),))


def path(kind: PathKind, value: str) -> RequestMatch:
    return RequestMatch(path=PathMatch(kind, value))


CASES: list[tuple[RequestMatch, list[tuple[str, dict[str, str]]], list[tuple[str, dict[str, str]]]]] = [
    (path(PathKind.EXACT, "/a"), [("/a", {}), ("/a?q=1", {}), ("/b/../a", {})], [("/a/", {}), ("/a/b", {})]),
    (path(PathKind.PREFIX, "/a/"), [("/a", {}), ("/a/b", {}), ("/%61/b", {})], [("/ab", {}), ("/", {})]),
    (path(PathKind.PREFIX, "/"), [("/", {}), ("/x/y", {})], []),
    (path(PathKind.REGEX, "/[0-9]+"), [("/12", {})], [("/12/", {}), ("/a12", {})]),
    (RequestMatch(method="POST"), [("/", {"method": "POST"})], [("/", {})]),
    (
        RequestMatch(headers=(NamedMatch("x-version", "2"), NamedMatch("x-user", "a.*", is_regex=True))),
        [("/", {"x_version": "2", "x_user": "anna"})],
        [("/", {"x_version": "2"}), ("/", {"x_version": "2", "x_user": "banana"})],
    ),
    (
        RequestMatch(queries=(NamedMatch("v", "2"), NamedMatch("w", "[ab]", is_regex=True))),
        [("/?w=a&v=2", {})],
        [("/?v=2", {}), ("/?v=2&w=ab", {})],
    ),
    (
        RequestMatch(headers=(NamedMatch("host", "web.example.com"),)),
        [("/", {"host": "web.example.com"})],
        [("/", {"host": "web"})],
    ),
]


@pytest.mark.parametrize(("match", "taken", "left"), CASES)
def test_a_match_takes_what_it_says(
    scene: Scene,
    match: RequestMatch,
    taken: list[tuple[str, dict[str, str]]],
    left: list[tuple[str, dict[str, str]]],
) -> None:
    scene.route(Entry("first", match, TO_V2), Entry("rest", RequestMatch(), TO_V1))
    assert [scene.get(path, **more).server for path, more in taken] == ["v2"] * len(taken)
    assert [scene.get(path, **more).server for path, more in left] == ["v1"] * len(left)


def test_callers_are_told_apart_by_the_namespace_they_proved(scene: Scene) -> None:
    scene.route(
        Entry("first", RequestMatch(source_namespaces=("default",)), TO_V2),
        Entry("rest", RequestMatch(), TO_V1),
    )
    assert scene.get().server == "v2"
    scene.route(
        Entry("first", RequestMatch(source_namespaces=("other", "defaul")), TO_V2),
        Entry("rest", RequestMatch(), TO_V1),
    )
    assert scene.get().server == "v1"


def test_the_first_entry_that_matches_counts(scene: Scene) -> None:
    scene.route(Entry("first", RequestMatch(), TO_V2), Entry("second", RequestMatch(), TO_V1))
    assert scene.get().server == "v2"


def test_a_request_that_no_entry_matches_is_answered_with_404(scene: Scene) -> None:
    scene.route(Entry("only", path(PathKind.EXACT, "/a"), TO_V1))
    assert [scene.get(each).status for each in ("/a", "/b")] == [200, 404]


def test_hosts_are_compared_without_port_and_case(scene: Scene) -> None:
    scene.route(Entry("only", RequestMatch(), TO_V1), domains=("web.example.com", "*.example.org"))
    assert scene.get(host="Web.example.com:80").status == 200
    assert scene.get(host="a.b.example.org").status == 200
    assert scene.get(host="example.org").status == 404
