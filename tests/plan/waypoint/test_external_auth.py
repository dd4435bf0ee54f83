"""Requests that a route has shown to somebody before they go on (Gateway API `HTTPExternalAuthFilter`)."""

import msgspec
import pytest

from ambit.ingest.gateway.external_auth import external_auth
from ambit.model.http import (
    Action,
    Cors,
    Entry,
    ExternalAuth,
    Host,
    PathKind,
    PathMatch,
    Redirect,
    RequestMatch,
)
from ambit.model.policy import Exact
from ambit.model.proxy import ServiceRoutes
from ambit.model.request_policy import Attribute, RequestAction, RequestPolicy
from ambit.objects import routes
from tests.plan.waypoint.authorizers import GrpcAuthorizer, HttpAuthorizer, Ruled
from tests.plan.waypoint.conftest import PORT, WEB
from tests.plan.waypoint.echo import statuses
from tests.plan.waypoint.placements import at_waypoints_only
from tests.plan.waypoint.test_actions import TO_V1, TO_V2
from tests.plan.waypoint.test_authorization import one, policy, rule
from tests.plan.waypoint.test_authorizers import (
    AUTHZ,
    DEAD_PORT,
    GRPC_PORT,
    HTTP_PORT,
    Asking,
    asking,
    custom,
    over_grpc,
    servers,
)
from tests.plan.waypoint.test_seen import told

__all__ = ["asking", "servers"]
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    at_waypoints_only("a route that has somebody asked closes the service: not everybody comes by a node"),
]
SECRET = RequestMatch(path=PathMatch(PathKind.PREFIX, "/secret"))


def asked_by(protocol: str, port: int = 0, **fields: object) -> ExternalAuth:
    """As a route writes it."""
    port = port or (HTTP_PORT if protocol == "HTTP" else GRPC_PORT)
    given = {"protocol": protocol, "backendRef": {"name": "authz", "port": port}, **fields}
    return external_auth(msgspec.convert(given, routes.ExternalAuth), AUTHZ.key, port)


def show(asking: Asking, whom: ExternalAuth, *policies: RequestPolicy, **more: object) -> None:
    """Requests below `/secret` are shown, others are not."""
    shown = Action((TO_V1,), external_auth=whom, **more)  # type: ignore[arg-type]
    entries = (
        Entry("default/route/0", SECRET, shown),
        Entry("default/route/1", RequestMatch(), Action((TO_V2,))),
    )
    asking.scene.bind(ServiceRoutes(WEB.key, PORT, (Host(("*",), entries),)), authorization=policies)


def server_of(asking: Asking, protocol: str) -> HttpAuthorizer | GrpcAuthorizer:
    return asking.http if protocol == "HTTP" else asking.grpc


@pytest.mark.parametrize("protocol", ["HTTP", "GRPC"])
def test_what_meets_the_rule_is_shown_and_nothing_else(asking: Asking, protocol: str) -> None:
    server = server_of(asking, protocol)
    show(asking, asked_by(protocol))
    assert asking.scene.get("/open").server == "v2"
    assert server.asked == []
    assert asking.scene.get("/secret/a?b=c", method="PUT").server == "v1"
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("PUT", "/secret/a?b=c")
    server.ruled = Ruled(status=401)
    path = f"/secret/{protocol}"
    answer = asking.scene.get(path)
    assert (answer.status, answer.body) == (401, b"no")
    flow, request = told(asking.scene, path)
    assert (flow.decision, flow.policy, request.code) == ("deny", "default/route/0", 401)


def test_headers_over_http(asking: Asking) -> None:
    http = {"path": "/check", "allowedHeaders": ["X-One"], "allowedResponseHeaders": ["X-User"]}
    show(asking, asked_by("HTTP", http=http))
    asking.http.ruled = Ruled(headers={"x-user": "ann", "x-other": "no"})
    answer = asking.scene.get("/secret", x_one="1", x_two="2", authorization="Bearer a", x_user="eve")
    (asked,) = asking.http.asked
    assert asked.path == "/check/secret"
    shown = [
        asked.headers.get(each) for each in ("host", "authorization", "content-length", "x-one", "x-two")
    ]
    assert shown == ["web", "Bearer a", "0", "1", None]
    got = answer.echo["headers"]
    assert (got["x-user"], "x-other" in got) == (["ann"], False)


def test_all_headers_come_back_when_none_are_named_but_those_about_the_answer_itself(asking: Asking) -> None:
    show(asking, asked_by("HTTP"))
    asking.http.ruled = Ruled(headers={"x-user": "ann", "x-other": "yes", "content-type": "text/x-answer"})
    answer = asking.scene.get("/secret", method="POST", body=b"{}", content_type="application/json")
    got = answer.echo["headers"]
    assert (got["x-user"], got["x-other"], got["content-type"]) == (["ann"], ["yes"], ["application/json"])
    assert got["host"] == ["web"] and answer.echo["body"] == "{}"


@pytest.mark.parametrize("names", [(), ("X-One",)])
def test_headers_over_grpc(asking: Asking, names: tuple[str, ...]) -> None:
    show(asking, asked_by("GRPC", grpc={"allowedHeaders": names}))
    asking.grpc.ruled = Ruled(headers={"x-user": "ann"})
    answer = asking.scene.get("/secret", x_one="1", x_two="2", x_user="eve")
    (asked,) = asking.grpc.asked
    assert (asked.headers["x-one"], "x-two" in asked.headers) == ("1", not names)
    assert answer.echo["headers"]["x-user"] == ["ann"]


@pytest.mark.parametrize("protocol", ["HTTP", "GRPC"])
def test_bodies(asking: Asking, protocol: str) -> None:
    show(asking, asked_by(protocol, forwardBody={"maxSize": 8}))
    assert asking.scene.get("/secret", method="POST", body=b"12345678").echo["body"] == "12345678"
    assert server_of(asking, protocol).asked[-1].body == b"12345678"
    assert asking.scene.get("/secret", method="POST", body=b"123456789").status == 413
    show(asking, asked_by(protocol))
    assert asking.scene.get("/secret", method="POST", body=b"123456789").echo["body"] == "123456789"
    assert server_of(asking, protocol).asked[-1].body == b""


@pytest.mark.parametrize("protocol", ["HTTP", "GRPC"])
def test_whoever_cannot_be_asked_says_no(asking: Asking, protocol: str) -> None:
    for port in (DEAD_PORT, 7):
        show(asking, asked_by(protocol, port))
        assert [asking.scene.get(each).status for each in ("/open", "/secret")] == [200, 403]
    asking.http.ruled = Ruled(status=500)
    show(asking, asked_by("HTTP"))
    assert asking.scene.get("/secret").status == 403


def test_he_is_asked_after_policies_and_before_a_redirect(asking: Asking) -> None:
    denied = policy(RequestAction.DENY, rule(one(Attribute.PATH, Exact("/secret/d"))), name="d")
    show(asking, asked_by("HTTP"), denied, redirect=Redirect(hostname="other"))
    assert [asking.scene.get(each).status for each in ("/secret/d", "/secret/a")] == [403, 302]
    assert [each.path for each in asking.http.asked] == ["/secret/a"]
    asking.http.ruled = Ruled(status=401)
    assert asking.scene.get("/secret/a").status == 401


def test_he_is_asked_beside_whom_policies_name(asking: Asking) -> None:
    show(asking, asked_by("HTTP"), custom(over_grpc()))
    assert asking.scene.get("/secret/both").status == 200
    assert [len(asking.http.asked), len(asking.grpc.asked)] == [1, 1]
    for http, grpc, asked in ((200, 403, [1, 2]), (403, 200, [2, 3])):
        asking.http.ruled, asking.grpc.ruled = Ruled(status=http), Ruled(status=grpc)
        assert asking.scene.get("/secret/one").status == 403
        assert [len(asking.http.asked), len(asking.grpc.asked)] == asked


def test_browsers_ask_first_whether_they_may_without_him(asking: Asking) -> None:
    show(asking, asked_by("HTTP"), cors=Cors(origins=("https://a.example",), methods=("GET",)))
    before = {"origin": "https://a.example", "access_control_request_method": "GET"}
    assert asking.scene.get("/secret", method="OPTIONS", **before).status == 200
    assert asking.http.asked == []


def test_open_connections_obey_at_once(asking: Asking) -> None:
    sock = asking.scene.client.connect(WEB.addresses[0].address, PORT)
    with statuses(sock, "web") as status:
        assert status("/secret") == 200
        asking.http.ruled = Ruled(status=401)
        show(asking, asked_by("HTTP"))
        assert [status("/open"), status("/secret")] == [200, 401]
