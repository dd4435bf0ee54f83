"""A route that Envoy cannot carry out harms nobody but those who ask for it: tables hold routes of several owners."""

import pytest

from ambit.model.http import (
    Action,
    Backend,
    Cors,
    Entry,
    HeaderChanges,
    Mirror,
    NamedMatch,
    PathChange,
    PathKind,
    PathMatch,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    SessionPersistence,
)
from tests.plan.waypoint.conftest import PORT, V1, V2, Scene

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

TO_V1, TO_V2 = (Backend(V1.key, PORT),), (Backend(V2.key, PORT),)
BAD = RequestMatch(path=PathMatch(PathKind.PREFIX, "/bad"))
REST = Entry("default/good/0", RequestMatch(), Action(TO_V1))


def headers(**changes: object) -> dict[str, object]:
    return {"request_headers": HeaderChanges(**changes)}  # type: ignore[arg-type]


def answers(**changes: object) -> dict[str, object]:
    return {"response_headers": HeaderChanges(**changes)}  # type: ignore[arg-type]


def path(value: str, *, is_prefix: bool = False) -> PathChange:
    return PathChange(value, is_prefix)


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(headers(set=(("x-a", "1\n2"),)), id="header of two lines"),
        pytest.param(headers(add=(("x-a", "1\x002"),)), id="header with a zero"),
        pytest.param(headers(set=(("host", "a\r\nb"),)), id="host of two lines"),
        pytest.param(headers(set=((":path", "/admin"),)), id="path as a header"),
        pytest.param(headers(remove=(":path",)), id="no path"),
        pytest.param(headers(remove=("",)), id="no name"),
        pytest.param(answers(set=(("x-a", "1\r\n2"),)), id="answer's header of two lines"),
        pytest.param(answers(remove=(":status",)), id="no status"),
        pytest.param(answers(remove=("host",)), id="answer's host"),
        pytest.param({"rewrite": Rewrite(path=path("/a\nb"))}, id="path of two lines"),
        pytest.param({"rewrite": Rewrite(path=path("/a HTTP/1.1"))}, id="path with a space"),
        pytest.param({"rewrite": Rewrite(path=path("/a\nb", is_prefix=True))}, id="prefix of two lines"),
        pytest.param({"rewrite": Rewrite("a\nb")}, id="rewritten host of two lines"),
        pytest.param({"redirect": Redirect(path=path("/a\nb"))}, id="redirect of two lines"),
        pytest.param({"redirect": Redirect(hostname="a\nb")}, id="redirect to a host of two lines"),
        pytest.param({"retry": Retry(-1)}, id="fewer tries than none"),
        pytest.param({"retry": Retry(2**32)}, id="endless tries"),
        pytest.param({"retry": Retry(1, (-1,))}, id="no status to try again"),
        pytest.param({"session": SessionPersistence("a\r\nb")}, id="cookie of two lines"),
        pytest.param({"session": SessionPersistence(":path", is_cookie=False)}, id="session in the path"),
        pytest.param({"mirrors": (Mirror(V2.key, PORT, 1, 0),)}, id="no share"),
        pytest.param({"backends": (*TO_V1, Backend(V2.key, PORT, -1))}, id="negative weight"),
        pytest.param({"backends": (*TO_V1, Backend(V2.key, PORT, 2**32))}, id="endless weight"),
        pytest.param(
            {"backends": (Backend(V2.key, PORT, request_headers=HeaderChanges(remove=("a b",))),)},
            id="backend's header",
        ),
    ],
)
def test_what_cannot_be_done_to_a_request_is_answered_with_500(
    scene: Scene, action: dict[str, object]
) -> None:
    scene.route(Entry("other/bad/0", BAD, Action(**{"backends": TO_V2, **action})), REST)  # type: ignore[arg-type]
    assert scene.get("/bad").status == 500
    assert scene.get("/good").server == "v1"


@pytest.mark.parametrize(
    "match",
    [
        pytest.param(RequestMatch(PathMatch(PathKind.REGEX, "")), id="empty expression of paths"),
        pytest.param(RequestMatch(PathMatch(PathKind.PREFIX, "/a?b")), id="prefix with a query"),
        pytest.param(RequestMatch(headers=(NamedMatch("x-a", "", is_regex=True),)), id="empty expression"),
        pytest.param(RequestMatch(PathMatch(PathKind.PREFIX, "a")), id="prefix of no path"),
        pytest.param(RequestMatch(headers=(NamedMatch("", "1"),)), id="header without a name"),
        pytest.param(RequestMatch(queries=(NamedMatch("", "1"),)), id="query without a name"),
    ],
)
def test_a_match_that_no_request_can_have_takes_none(scene: Scene, match: RequestMatch) -> None:
    scene.route(Entry("other/bad/0", match, Action(TO_V2)), REST)
    assert scene.get("/a").server == "v1"


def test_a_long_expression_is_as_good_as_a_short_one(scene: Scene) -> None:
    long = RequestMatch(PathMatch(PathKind.REGEX, "/(a|b){50}" + "(c|d){50}" * 8))
    origins = tuple(f"https://*.{letter * 60}.{letter * 60}.example" for letter in "abcdef")
    action = Action(TO_V2, cors=Cors(origins=origins))
    scene.route(Entry("other/long/0", long, action), REST)
    assert scene.get("/" + "a" * 50 + "c" * 400).server == "v2"
    assert scene.get("/a").server == "v1"


def test_a_namespace_with_the_longest_name_can_have_its_own_routes(scene: Scene) -> None:
    own = RequestMatch(source_namespaces=("n" * 63,))
    scene.route(Entry("n/own/0", own, Action(TO_V2)), REST)
    assert scene.get("/a").server == "v1"
