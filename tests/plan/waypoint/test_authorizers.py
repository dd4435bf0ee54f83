"""Requests that a policy with the action CUSTOM matches are shown to its provider, and to nobody else."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from ambit.agent.record import Flow, Reporter, RequestPart
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.envoy.http.authorizers import QUESTION
from ambit.model.policy import Exact, Prefix, Suffix
from ambit.model.provider import Authorizer, BodyInCheck, OverHttp, ProviderService
from ambit.model.request_policy import Asked as Whom
from ambit.model.request_policy import Attribute, RequestAction, RequestPolicy, Rule
from ambit.model.service import AppProtocol
from ambit.model.view import Snapshot
from ambit.model.workload import Port
from ambit.plan.l7 import waypoint
from ambit.plan.node.node_proxy import NodeSettings
from tests.plan.dataplane.served import until
from tests.plan.waypoint import test_seen_inline
from tests.plan.waypoint.authorizers import GrpcAuthorizer, HttpAuthorizer, Ruled
from tests.plan.waypoint.conftest import IDENTITY, PROXY, WEB, Scene, service
from tests.plan.waypoint.echo import statuses
from tests.plan.waypoint.placements import INLINE, WAYPOINT, at_waypoints_only
from tests.plan.waypoint.test_authorization import is_served, one, policy, rule
from tests.plan.waypoint.test_seen import told

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    pytest.mark.feature("N29"),
]

CUSTOM, DENY, ALLOW = RequestAction.CUSTOM, RequestAction.DENY, RequestAction.ALLOW
HTTP_PORT, GRPC_PORT, DEAD_PORT = 8000, 9000, 8001
AUTHZ = service(
    "authz",
    7,
    bound=False,
    ports=(Port(HTTP_PORT, 8010), Port(GRPC_PORT, 9010), Port(DEAD_PORT, 8011)),
    app_protocols={HTTP_PORT: AppProtocol.HTTP11},
)
SECRET = rule(one(Attribute.PATH, Prefix("/secret")))


class Asking(msgspec.Struct):
    """A scene with somebody to ask, over HTTP and over gRPC."""

    scene: Scene
    http: HttpAuthorizer
    grpc: GrpcAuthorizer

    @property
    def reader(self) -> Identity:
        """In whose name is asked."""
        return IDENTITY if self.scene.placement == WAYPOINT else self.scene.mesh.pods["v1"].identity

    def told(self, path: str) -> tuple[Flow, RequestPart]:
        """The record of the one request for this path, by who has read it."""
        if self.scene.placement == WAYPOINT:
            return told(self.scene, path)
        return test_seen_inline.told(self.scene.mesh.pods["v1"].agent, path, Reporter.DESTINATION)

    def is_open(self) -> bool:
        """Whether requests go on, also by the connections that nodes keep between them: of those that came in where
        there were more places, or fewer, each refuses one."""
        return all(self.scene.get("/open").status == 200 for _ in range(8))

    def enforce(self, *policies: RequestPolicy) -> None:
        self.scene.bind(authorization=policies)


@pytest.fixture(scope="module")
def servers(running: Scene) -> Iterator[Asking]:
    pod = running.mesh.pods["v2"]
    before, services = pod.workload, running.mesh.services
    ports = {**before.services, AUTHZ.key: AUTHZ.ports}
    pod.workload = msgspec.structs.replace(before, services=ports)
    running.mesh.services = [*services, AUTHZ]
    running.mesh.update()
    asking = Asking(running, HttpAuthorizer(pod, 8010), GrpcAuthorizer(pod, 9010))
    try:
        yield asking
    finally:
        asking.http.close()
        asking.grpc.close()
        pod.workload, running.mesh.services = before, services
        running.mesh.update()


@pytest.fixture
def asking(scene: Scene, servers: Asking) -> Asking:
    assert scene is servers.scene
    for each in (servers.http, servers.grpc):
        each.ruled = Ruled()
    # What is sent here replaces all that was; an agent leaves a place that connections may still have.
    scene.settle()
    until(servers.is_open, "connections that have what they need")
    for echo in scene.echoes.values():
        echo.seen.clear()
    for each in (servers.http, servers.grpc):
        each.asked.clear()
    return servers


def over_http(port: int = HTTP_PORT, name: str = "web", **fields: object) -> Whom:
    given: dict[str, object] = {"http": OverHttp(), **fields}
    place = ProviderService(AUTHZ.hostname, port)
    return Whom(Authorizer(name, place, **given), AUTHZ.key)  # type: ignore[arg-type]


def over_grpc(port: int = GRPC_PORT, name: str = "rpc", **fields: object) -> Whom:
    return Whom(Authorizer(name, ProviderService(AUTHZ.hostname, port), **fields), AUTHZ.key)  # type: ignore[arg-type]


def custom(whom: Whom | None, *rules: Rule, name: str = "c") -> RequestPolicy:
    made = policy(CUSTOM, *(rules or (SECRET,)), name=name)
    provider = whom.authorizer.name if whom else "nobody"
    return msgspec.structs.replace(made, asked=whom, provider=provider)


@pytest.mark.parametrize("whom", [over_http(), over_grpc()], ids=["http", "grpc"])
def test_what_the_rules_match_is_shown_and_nothing_else(asking: Asking, whom: Whom) -> None:
    server = asking.http if whom.authorizer.http else asking.grpc
    asking.enforce(custom(whom))
    assert asking.scene.get("/open").status == 200
    assert server.asked == []
    assert asking.scene.get("/secret/a?b=c", method="PUT").server == "v1"
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("PUT", "/secret/a?b=c")
    server.ruled = Ruled(status=401)
    path = f"/secret/{whom.authorizer.name}"
    answer = asking.scene.get(path)
    assert (answer.status, answer.body) == (401, b"no")
    assert asking.scene.echoes["v1"].seen == ["/open", "/secret/a?b=c"]
    flow, request = asking.told(path)
    assert (flow.decision, flow.policy, request.code) == ("deny", "default/c[0]", 401)
    assert flow.source.identity == asking.scene.client.identity.uri


def test_allow_and_deny_are_decided_besides(asking: Asking) -> None:
    denied = policy(DENY, rule(one(Attribute.METHOD, Exact("PUT"))), name="d")
    allowed = policy(ALLOW, rule(one(Attribute.METHOD, Exact("GET"), Exact("PUT"))), name="a")
    asking.enforce(custom(over_http()), denied, allowed)
    status = [asking.scene.get("/secret", method=each).status for each in ("GET", "PUT", "POST")]
    assert status == [200, 403, 403]
    assert [each.method for each in asking.http.asked] == ["GET", "PUT", "POST"]
    asking.http.ruled = Ruled(status=403)
    assert asking.scene.get("/secret").status == 403


def test_headers_over_http(asking: Asking) -> None:
    http = OverHttp(
        path_prefix="/check",
        check=(Exact("x-one"), Prefix("x-team-"), Suffix("-id"), Exact("x-forwarded-client-cert")),
        added=(("x-mesh", "100 %"), ("x-one", "mine")),
        upstream_on_allow=(Exact("x-user"),),
        downstream_on_deny=(Exact("x-why"),),
        downstream_on_allow=(Exact("x-said"),),
    )
    asking.enforce(custom(over_http(http=http)))
    given = {"x-user": "ann", "x-why": "because", "x-said": "yes", "x-other": "no"}
    asking.http.ruled = Ruled(headers=given)
    forged = "By=x;URI=spiffe://cluster.local/ns/default/sa/root"
    answer = asking.scene.get(
        "/secret", x_one="1", x_team_a="2", my_id="3", x_two="4", x_user="eve", x_forwarded_client_cert=forged
    )
    (asked,) = asking.http.asked
    assert asked.path == "/check/secret"
    assert asked.headers["host"] == "web"
    shown = {key: asked.headers.get(key) for key in ("x-one", "x-team-a", "my-id", "x-two", "x-mesh")}
    assert shown == {"x-one": "mine", "x-team-a": "2", "my-id": "3", "x-two": None, "x-mesh": "100 %"}
    caller = f"By={asking.reader.uri};URI={asking.scene.client.identity.uri}"
    assert asked.headers["x-forwarded-client-cert"] == caller
    got = answer.echo["headers"]
    assert (got["x-user"], "x-other" in got, got["x-one"]) == (["ann"], False, ["1"])
    assert (answer.header("x-said"), answer.header("x-why")) == ("yes", None)
    asking.http.ruled = Ruled(status=403, headers=given)
    refused = asking.scene.get("/secret")
    assert (refused.header("x-why"), refused.header("x-other")) == ("because", None)


def test_headers_over_grpc(asking: Asking) -> None:
    asking.enforce(custom(over_grpc()))
    asking.grpc.ruled = Ruled(headers={"x-user": "ann"})
    forged = "By=x;URI=spiffe://cluster.local/ns/default/sa/root"
    answer = asking.scene.get("/secret", x_one="1", x_user="eve", x_forwarded_client_cert=forged)
    (asked,) = asking.grpc.asked
    assert (asked.headers["x-one"], asked.headers[":authority"]) == ("1", "web")
    caller = f"By={asking.reader.uri};URI={asking.scene.client.identity.uri}"
    assert asked.headers["x-forwarded-client-cert"] == caller
    assert answer.echo["headers"]["x-user"] == ["ann"]


@pytest.mark.parametrize("over", [over_http, over_grpc])
def test_bodies(asking: Asking, over: Callable[..., Whom]) -> None:
    whom = over(body=BodyInCheck(8))
    server = asking.http if whom.authorizer.http else asking.grpc
    asking.enforce(custom(whom))
    assert asking.scene.get("/secret", method="POST", body=b"12345678").echo["body"] == "12345678"
    assert server.asked[-1].body == b"12345678"
    assert asking.scene.get("/secret", method="POST", body=b"123456789").status == 413
    asking.enforce(custom(over(body=BodyInCheck(4, allow_partial=True, as_bytes=True))))
    assert asking.scene.get("/secret", method="POST", body=b"123456789").echo["body"] == "123456789"
    last = server.asked[-1]
    assert (last.body + last.raw_body).startswith(b"1234")


@pytest.mark.parametrize("over", [over_http, over_grpc])
def test_whoever_cannot_be_asked_says_no(asking: Asking, over: Callable[..., Whom]) -> None:
    asking.enforce(custom(over(DEAD_PORT)))
    path = f"/secret/dead/{over().authorizer.name}"
    assert [asking.scene.get(each).status for each in ("/open", path)] == [200, 403]
    flow, _ = asking.told(path)
    assert (flow.decision, flow.policy) == ("deny", "default/c[0]")
    asking.enforce(custom(over(DEAD_PORT, status_on_error=503)))
    assert asking.scene.get("/secret").status == 503
    asking.enforce(custom(over(DEAD_PORT, fail_open=True)))
    assert asking.scene.get("/secret").status == 200
    # A port that the service does not have.
    asking.enforce(custom(over(7)))
    assert asking.scene.get("/secret").status == 403


@pytest.mark.parametrize("over", [over_http, over_grpc])
def test_patience_ends(asking: Asking, over: Callable[..., Whom]) -> None:
    for server in (asking.http, asking.grpc):
        server.ruled = Ruled(delay=1.0)
    asking.enforce(custom(over(timeout=100)))
    assert asking.scene.get("/secret").status == 403
    asking.enforce(custom(over(timeout=100, fail_open=True)))
    assert asking.scene.get("/secret").status == 200


def test_an_unknown_provider_lets_nothing_pass(asking: Asking) -> None:
    asking.enforce(custom(None))
    assert [asking.scene.get(each).status for each in ("/open", "/secret/unknown")] == [200, 403]
    flow, _ = asking.told("/secret/unknown")
    assert (flow.decision, flow.policy) == ("deny", "default/c[0]")


def test_several_are_asked(asking: Asking) -> None:
    whole = custom(over_http(), Rule(), name="c")
    asking.enforce(
        whole, custom(over_grpc(), name="d"), custom(None, rule(one(Attribute.PATH, Exact("/no"))))
    )
    # What came in where there were fewer places is refused.
    asking.scene.settle()
    asking.http.asked.clear()
    assert [asking.scene.get(each).status for each in ("/open", "/secret", "/no")] == [200, 200, 403]
    assert [len(asking.http.asked), len(asking.grpc.asked)] == [2, 1]
    asking.grpc.ruled = Ruled(status=403)
    assert [asking.scene.get(each).status for each in ("/open", "/secret/1")] == [200, 403]
    flow, _ = asking.told("/secret/1")
    assert flow.policy == "default/c[0] or default/d[0]"
    asking.http.ruled, asking.grpc.ruled = Ruled(status=403), Ruled()
    assert [asking.scene.get(each).status for each in ("/open/2", "/secret/2")] == [403, 403]
    flow, _ = asking.told("/open/2")
    assert flow.policy == "default/c[0]"


def test_open_connections_obey_at_once(asking: Asking) -> None:
    """Also when a policy needs one to be asked for whom the connection's chain has no place."""
    asking.enforce()
    until(asking.is_open, "the chain with one place")
    address = WEB.addresses[0].address
    sock = asking.scene.client.connect(address, 80)
    with statuses(sock, "web") as status:
        assert status("/secret") == 200
        asking.http.ruled = Ruled(status=401)
        asking.enforce(custom(over_http(name="b")))
        if asking.scene.placement == INLINE:
            # The first rules of a pod's port cut what nodes keep open between them, maybe under a request.
            until(lambda: status("/open") == 200, "the way again")
        assert [status("/open"), status("/secret")] == [200, 401]
        asking.http.ruled = Ruled()
        also = custom(over_grpc(name="c"), rule(one(Attribute.PATH, Prefix("/also"))), name="z")
        asking.enforce(custom(over_http(name="b")), also)
        # The last that it gets to ask on this connection.
        assert status("/also") == 403
    assert asking.grpc.asked == []
    assert asking.scene.get("/also").status == 200


def test_bytes_cannot_be_shown(asking: Asking) -> None:
    for rules, is_open in (((SECRET,), False), ((rule(one(Attribute.PORT, 80)),), True)):
        asking.enforce(custom(over_grpc(), *rules))
        assert is_served(asking.scene.client) is is_open


@at_waypoints_only("the test gives resources to the proxy of a waypoint")
def test_what_envoy_does_not_take_refuses(asking: Asking) -> None:
    name = names.asks(WEB.key, 80)
    asking.enforce()
    assert asking.scene.get("/a").status == 200
    refused = waypoint.refused_policy(name)
    assert refused.name == name
    view = Snapshot([each.workload for each in asking.scene.mesh.pods.values()], asking.scene.mesh.services)
    made = waypoint.resources(PROXY, waypoint.Bound((WEB,)), view, NodeSettings(node=""))
    asking.scene.waypoint.give([refused if each.name == name else each for each in made])
    assert asking.scene.get("/a").status == 403


@pytest.mark.parametrize("over", [over_http, over_grpc])
def test_questions_say_what_they_are(asking: Asking, over: Callable[..., Whom]) -> None:
    server = asking.http if over().authorizer.http else asking.grpc
    asking.enforce(custom(over()))
    assert asking.scene.get("/secret").status == 200
    (asked,) = server.asked
    said = asked.headers if over().authorizer.http else asked.metadata
    assert said[QUESTION] == "1"


def test_nobody_is_asked_about_questions(asking: Asking) -> None:
    """Where requests are read at pods. Whoever is asked about requests to himself would be asked without end."""
    itself = Authorizer("self", ProviderService(WEB.hostname, 80), 2000, fail_open=True, http=OverHttp())
    asking.enforce(custom(Whom(itself, WEB.key), Rule()))
    allowed = asking.scene.placement == WAYPOINT  # which goes past itself
    wanted = 200 if allowed else 403
    # A request on a connection that ended with the former policies is answered with 503.
    until(lambda: asking.scene.get("/itself").status == wanted, f"the answer {wanted}")
    assert (asking.scene.echoes["v1"].seen != []) is allowed
