"""Each thing that a route can do with a request."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from ambit.model.http import (
    Action,
    Backend,
    Cors,
    Entry,
    HeaderChanges,
    Mirror,
    PathChange,
    PathKind,
    PathMatch,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
    SessionPersistence,
)
from ambit.model.service import RetryBudget
from ambit.model.workload import Port
from tests.plan.dataplane.network import read_all
from tests.plan.dataplane.served import until
from tests.plan.waypoint.conftest import EMPTY, PORT, V1, V2, WEB, Scene
from tests.plan.waypoint.placements import at_waypoints_only

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

TO_V1, TO_V2 = Backend(V1.key, PORT), Backend(V2.key, PORT)
NOBODY = Backend("", 0)
UNDER_A = RequestMatch(path=PathMatch(PathKind.PREFIX, "/a"))


def do(scene: Scene, *backends: Backend, match: RequestMatch = UNDER_A, **more: object) -> None:
    scene.route(Entry("default/route/0", match, Action(backends, **more)))  # type: ignore[arg-type]


def servers(scene: Scene, count: int) -> Counter[str]:
    return Counter(scene.get("/a").server for _ in range(count))


def test_requests_are_shared_out_by_weight(scene: Scene) -> None:
    weights = [TO_V1, Backend(V2.key, PORT, weight=3), Backend("", 0, weight=0)]
    do(scene, *weights)
    found = servers(scene, 120)
    # Further off than this is one run in a hundred million.
    assert set(found) == {"v1", "v2"}
    assert 7 <= found["v1"] <= 62


def test_the_share_of_a_backend_that_does_not_exist_is_answered_with_500(scene: Scene) -> None:
    do(scene, TO_V1, NOBODY)
    assert set(servers(scene, 40)) == {"v1", "500"}
    do(scene, NOBODY)
    assert servers(scene, 3) == {"500": 3}
    do(scene, Backend("default/gone.default.svc.cluster.local", PORT))
    assert servers(scene, 3) == {"500": 3}


def test_without_backends_a_request_is_answered_with_the_status(scene: Scene) -> None:
    do(scene)
    assert scene.get("/a").status == 500
    do(scene, Backend(V1.key, PORT, weight=0), status=404)
    assert scene.get("/a").status == 404


def test_a_backend_without_endpoints_is_unavailable(scene: Scene) -> None:
    do(scene, Backend(EMPTY.key, PORT))
    assert scene.get("/a").status == 503


def test_headers_of_requests_and_answers_change(scene: Scene) -> None:
    do(
        scene,
        TO_V1,
        request_headers=HeaderChanges((("x-a", "100%"),), (("x-b", "2"),), ("x-c",)),
        response_headers=HeaderChanges((("x-served-by", "me"),), (("x-new", "1"),), ("server",)),
    )
    answer = scene.get("/a", x_a="0", x_b="1", x_c="1")
    sent = answer.echo["headers"]
    assert (sent["x-a"], ",".join(sent["x-b"]), sent.get("x-c")) == (["100%"], "1,2", None)
    said = [answer.header(each) for each in ("x-served-by", "x-new", "server")]
    assert said == ["me", "1", None]


def test_headers_change_for_one_backend_only(scene: Scene) -> None:
    changed = Backend(
        V2.key,
        PORT,
        request_headers=HeaderChanges(set=(("x-a", "2"), ("host", "two"))),
        response_headers=HeaderChanges(remove=("x-served-by",)),
    )
    do(scene, TO_V1, changed)
    answers = {each.server: each for each in (scene.get("/a") for _ in range(40))}
    one, two = answers["v1"], answers["v2"]
    assert (one.echo["headers"].get("x-a"), one.echo["headers"]["host"]) == (None, ["web"])
    assert (two.echo["headers"]["x-a"], two.echo["headers"]["host"]) == (["2"], ["two"])
    assert (one.header("x-served-by"), two.header("x-served-by")) == ("v1", None)


REDIRECTS: list[tuple[Redirect, str, str]] = [
    (Redirect(hostname="b.example.com"), "/a/b?c=d", "http://b.example.com/a/b?c=d"),
    (Redirect(scheme="https"), "/a", "https://web/a"),
    (Redirect(scheme="https", port=8443), "/a", "https://web:8443/a"),
    (Redirect(port=8080), "/a", "http://web:8080/a"),
    (Redirect(scheme="http", port=80), "/a", "http://web/a"),
    (Redirect(path=PathChange("/c")), "/a/b?c=d", "http://web/c?c=d"),
    (Redirect(path=PathChange("/c", is_prefix=True)), "/a/b?c=d", "http://web/c/b?c=d"),
    (Redirect(path=PathChange("/", is_prefix=True)), "/a/b", "http://web/b"),
]


@pytest.mark.parametrize(("redirect", "path", "location"), REDIRECTS)
def test_redirects(scene: Scene, redirect: Redirect, path: str, location: str) -> None:
    do(scene, redirect=redirect)
    answer = scene.get(path)
    assert (answer.status, answer.header("location")) == (302, location)


@pytest.mark.parametrize("status", [301, 303, 307, 308])
def test_redirects_have_the_status_that_is_wanted(scene: Scene, status: int) -> None:
    do(scene, redirect=Redirect(status=status), response_headers=HeaderChanges(set=(("x-a", "1"),)))
    answer = scene.get("/a")
    assert (answer.status, answer.header("x-a")) == (status, "1")


REWRITES = [
    # The table of Gateway API's HTTPPathModifier.replacePrefixMatch.
    ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
    ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
    ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
    ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
    ("/foo", "/xyz", "/foo", "/xyz"),
    ("/foo", "/xyz", "/foo/", "/xyz/"),
    ("/foo", "", "/foo/bar", "/bar"),
    ("/foo", "", "/foo/", "/"),
    ("/foo", "", "/foo", "/"),
    ("/foo", "/", "/foo/", "/"),
    ("/foo", "/", "/foo", "/"),
    ("/foo", "/", "/foo/bar?q=/foo", "/bar?q=/foo"),
    ("/", "/xyz", "/foo", "/xyz/foo"),
    ("/", "/", "/foo", "/foo"),
]


@pytest.mark.parametrize(("prefix", "value", "path", "expected"), REWRITES)
def test_prefixes_are_rewritten(scene: Scene, prefix: str, value: str, path: str, expected: str) -> None:
    match = RequestMatch(path=PathMatch(PathKind.PREFIX, prefix))
    do(scene, TO_V1, match=match, rewrite=Rewrite(path=PathChange(value, is_prefix=True)))
    assert scene.get(path).echo["path"] == expected


def test_paths_and_hosts_are_rewritten(scene: Scene) -> None:
    do(scene, TO_V1, rewrite=Rewrite("b.example.com", PathChange("/new\\1")))
    echo = scene.get("/a/b?c=d").echo
    assert (echo["path"], echo["headers"]["host"]) == ("/new\\1?c=d", ["b.example.com"])


def test_backends_differ_in_path_and_redirect(scene: Scene) -> None:
    do(
        scene,
        Backend(V1.key, PORT, rewrite=Rewrite(path=PathChange("/one", is_prefix=True))),
        Backend(V2.key, PORT, rewrite=Rewrite("two", PathChange("/two"))),
        Backend(V2.key, PORT, weight=2, redirect=Redirect(hostname="three")),
    )
    seen: Counter[object] = Counter()
    for _ in range(60):
        answer = scene.get("/a/b")
        if answer.status == 302:
            seen[answer.header("location")] += 1
        else:
            seen[answer.echo["path"], *answer.echo["headers"]["host"]] += 1
    assert set(seen) == {("/one/b", "web"), ("/two", "two"), "http://three/a/b"}
    assert 10 <= seen["http://three/a/b"] <= 50


@pytest.mark.feature("F37")
def test_requests_are_mirrored(scene: Scene) -> None:
    do(scene, TO_V1, mirrors=(Mirror(V2.key, PORT), Mirror(WEB.key, PORT, numerator=0)))
    assert scene.get("/a?first").server == "v1"
    until(lambda: scene.echoes["v2"].seen == ["/a?first"], "the copy")


@pytest.mark.feature("F37")
def test_several_mirrors_get_a_copy_each(scene: Scene) -> None:
    """Whatever one of them answers, and however long it takes."""
    do(scene, TO_V1, mirrors=(Mirror(V2.key, PORT), Mirror(V1.key, PORT), Mirror(EMPTY.key, PORT)))
    answer = scene.get("/a?copied")
    assert (answer.status, answer.server) == (200, "v1")
    until(lambda: scene.echoes["v2"].seen == ["/a?copied"], "the first copy")
    until(lambda: scene.echoes["v1"].seen == ["/a?copied"] * 2, "the second copy")


@pytest.mark.feature("F37")
def test_mirrors_take_a_share(scene: Scene) -> None:
    do(scene, TO_V1, mirrors=(Mirror(V2.key, PORT, 1, 2),))
    for _ in range(60):
        scene.get("/a")
    # The last is copied for sure, so that all copies that come before it have come.
    do(scene, TO_V1, mirrors=(Mirror(V2.key, PORT),))
    scene.get("/a?last")
    until(lambda: "/a?last" in scene.echoes["v2"].seen, "the last copy")
    assert 8 <= len(scene.echoes["v2"].seen) - 1 <= 52


def test_cors(scene: Scene) -> None:
    do(
        scene,
        TO_V1,
        cors=Cors(
            origins=("https://a.example.com", "https://*.example.org"),
            methods=("GET", "PUT"),
            headers=("x-a",),
            expose=("x-b",),
            credentials=True,
            max_age_seconds=60,
        ),
    )
    asked = {"access_control_request_method": "PUT"}
    for origin in ("https://a.example.com", "https://b.example.org"):
        answer = scene.get("/a", method="OPTIONS", origin=origin, **asked)
        assert answer.status == 200
        assert [
            answer.header(f"access-control-{each}")
            for each in ("allow-origin", "allow-methods", "allow-headers", "max-age", "allow-credentials")
        ] == [origin, "GET, PUT", "x-a", "60", "true"]
        assert scene.get("/a", origin=origin).header("access-control-expose-headers") == "x-b"
    assert scene.echoes["v1"].seen == ["/a", "/a"]
    stranger = scene.get("/a", method="OPTIONS", origin="https://example.com", **asked)
    assert (stranger.header("access-control-allow-origin"), stranger.server) == (None, "200")


@pytest.mark.parametrize("credentials", [True, False])
def test_cors_that_allows_everything_names_what_was_asked_for(scene: Scene, credentials: bool) -> None:
    """To a browser that sends credentials `*` would be the name of a method."""
    everything = Cors(("*",), ("*",), ("*",), credentials=credentials)
    do(scene, TO_V1, cors=everything)
    asked = {"access_control_request_method": "PUT", "access_control_request_headers": "x-a, x-b"}
    answer = scene.get("/a", method="OPTIONS", origin="https://a.example.com", **asked)
    names = ("allow-origin", "allow-methods", "allow-headers", "allow-credentials")
    assert [answer.header(f"access-control-{each}") for each in names] == [
        "https://a.example.com",
        "PUT",
        "x-a, x-b",
        "true" if credentials else None,
    ]
    assert scene.echoes["v1"].seen == []


@pytest.mark.feature("F33")
def test_requests_have_so_much_time(scene: Scene) -> None:
    do(scene, TO_V1, request_timeout=300)
    until(lambda: scene.get("/a").status == 200, "an answer in time")
    assert scene.get("/a", x_want_delay="5").status == 504
    do(scene, TO_V1, backend_timeout=300)
    assert scene.get("/a", x_want_delay="5").status == 504


@pytest.mark.feature("F33")
def test_failed_requests_are_tried_again(scene: Scene) -> None:
    do(scene, TO_V1, retry=Retry(attempts=2, codes=(503,), backoff=5))
    assert scene.get("/a", x_want_status="503").status == 503
    assert len(scene.echoes["v1"].seen) == 3
    assert scene.get("/a", x_want_status="500").status == 500
    assert len(scene.echoes["v1"].seen) == 4


@pytest.mark.feature("F64")
@at_waypoints_only("nobody counts the retries of all callers together")
def test_a_budget_bounds_retries(scene: Scene) -> None:
    """Of 20 requests at once that all fail one in five is tried again, where without a budget it were all, three
    times."""
    before = list(scene.mesh.services)
    budget = msgspec.structs.replace(V1, retry_budget=RetryBudget(percent=20, at_least=1))
    scene.mesh.services = [budget if each.key == V1.key else each for each in before]
    try:
        do(scene, TO_V1, retry=Retry(attempts=3, codes=(503,), backoff=5))
        with ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(scene.get, "/a", x_want_status="503", x_want_delay="3") for _ in range(20)]
            assert {each.result().status for each in asked} == {503}
        assert 20 < len(scene.echoes["v1"].seen) <= 30
    finally:
        scene.mesh.services = before


@pytest.mark.feature("F33")
def test_a_backend_that_does_not_accept_is_tried_elsewhere(scene: Scene) -> None:
    v2 = scene.mesh.pods["v2"]
    before = v2.workload
    nobody = (Port(PORT, 9),)
    v2.workload = msgspec.structs.replace(before, services={**before.services, WEB.key: nobody})
    try:
        do(scene, Backend(WEB.key, PORT))
        assert set(servers(scene, 40)) == {"v1", "503"}
        # The other one is found by chance: more tries than there are hosts.
        do(scene, Backend(WEB.key, PORT), retry=Retry(attempts=4))
        assert servers(scene, 20) == {"v1": 20}
    finally:
        v2.workload = before


@pytest.mark.feature("F33")
def test_a_backend_that_takes_too_long_is_tried_again(scene: Scene) -> None:
    do(scene, TO_V1, backend_timeout=200, retry=Retry(attempts=1))
    assert scene.get("/a", x_want_delay="5").status == 504
    assert len(scene.echoes["v1"].seen) == 2


@pytest.mark.parametrize("is_cookie", [True, False])
def test_sessions_stay_with_their_endpoint(scene: Scene, is_cookie: bool) -> None:
    """Both pods serve the service for this."""
    v2 = scene.mesh.pods["v2"]
    before = v2.workload
    v2.workload = msgspec.structs.replace(before, services={**before.services, WEB.key: WEB.ports})
    try:
        do(scene, Backend(WEB.key, PORT), session=SessionPersistence("x-session", is_cookie=is_cookie))
        assert set(servers(scene, 40)) == {"v1", "v2"}
        first = scene.get("/a")
        name = "set-cookie" if is_cookie else "x-session"
        token = first.header(name)
        assert token
        sent = {"cookie": token.partition(";")[0]} if is_cookie else {"x_session": token}
        assert {scene.get("/a", **sent).server for _ in range(20)} == {first.server}
    finally:
        v2.workload = before


def test_websockets(scene: Scene) -> None:
    do(scene, TO_V1)
    with scene.client.connect(WEB.addresses[0].address, PORT) as connection:
        connection.sendall(
            b"GET /a HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 101")
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"


def test_orders_to_the_proxy_are_taken_away(scene: Scene) -> None:
    do(scene, TO_V1)
    answer = scene.get(
        "/a", x_envoy_upstream_rq_timeout_ms="1", x_want_delay="0.3", x_forwarded_proto="https"
    )
    headers = answer.echo["headers"]
    assert [each for each in headers if each.startswith("x-envoy")] == []
    assert (headers["x-forwarded-proto"], "x-forwarded-for" in headers) == (["https"], False)


def test_a_client_that_sends_too_many_headers_is_refused(scene: Scene) -> None:
    do(scene, TO_V1)
    assert scene.get("/a", x_long="a" * 70_000).status == 431


def test_http_1_0(scene: Scene) -> None:
    do(scene, TO_V1)
    with scene.client.connect(WEB.addresses[0].address, PORT) as connection:
        connection.sendall(b"GET /a HTTP/1.0\r\n\r\n")
        answer = read_all(connection)
    assert b'"host": ["web.default.svc.cluster.local"]' in answer
