"""Rules about requests that are enforced where the server is, through real Envoys: whichever way a request comes, and
by whose identity."""

import ipaddress
from collections.abc import Iterator

import msgspec
import pytest

from ambit.agent.request_entry import About as Request
from ambit.core.finding import ObjectRef
from ambit.envoy.http import taken_headers
from ambit.envoy.names import parse_at_pod
from ambit.model.inline_rules import InlineRules
from ambit.model.jwt import Target, TokenPolicy, TokenRule
from ambit.model.policy import Action, Authorization, Exact, Match, Scope
from ambit.model.policy import Clause as ConnectionClause
from ambit.model.policy import Rule as ConnectionRule
from ambit.model.request_policy import Attribute, RequestAction, RequestPolicy, Rule
from ambit.model.service import AppProtocol, Service, VirtualAddress
from ambit.model.workload import Port
from tests.plan.dataplane.conftest import Mesh
from tests.plan.dataplane.network import REFUSED, Host
from tests.plan.dataplane.served import until
from tests.plan.waypoint.echo import Answer, Echo, ask, connection
from tests.plan.waypoint.test_authorization import one, policy, rule
from tests.tokens import Issuer

pytestmark = [pytest.mark.netns, pytest.mark.envoy]

TARGET, BYTES = 8180, 8181
VIP = "10.99.0.7"
ALLOW, DENY = RequestAction.ALLOW, RequestAction.DENY
CLIENT = "cluster.local/ns/default/sa/client"
ISSUER = Issuer("https://issuer.example")


def web(*policies: RequestPolicy, tokens: tuple[TokenPolicy, ...] = (), name: str = "web") -> Service:
    """HTTP on 80, bytes on 81; without a proxy between."""
    rules = InlineRules(policies, tokens)
    return Service(
        name=name,
        namespace="default",
        hostname=f"{name}.default.svc.cluster.local",
        addresses=(VirtualAddress("", ipaddress.ip_address(VIP)),) if name == "web" else (),
        ports=(Port(80, TARGET), Port(81, BYTES)),
        app_protocols={80: AppProtocol.HTTP11, 81: AppProtocol.TCP},
        canonical=True,
        inline=(),
        rules=rules if rules.forbid else None,
    )


class Scene:
    """`a` and `near` share a node, `far` is on another; `near` and `far` serve what `rule` is told."""

    def __init__(self, mesh: Mesh, outside: Host) -> None:
        self.mesh = mesh
        self.outside = outside
        self.a, self.b = mesh.pods["a"], mesh.pods["b"]
        self.servers = {name: mesh.pods[name] for name in ("near", "far")}

    def serve(self, *services: Service, closed: bool = True) -> None:
        """With the policies that stand for rules where they are not enforced, if they are `closed`."""
        self.mesh.services = list(services)
        policies = {}
        for pod in self.servers.values():
            served = {each.key: each.ports for each in services}
            pod.workload = msgspec.structs.replace(pod.workload, services=served)
            made = [found for each in services if (found := each.closing(pod.workload)) is not None]
            policies.update({each.key: each for each in made if closed})
            pod.workload = msgspec.structs.replace(
                pod.workload, policies=tuple(sorted(each.key for each in made))
            )
        self.mesh.policies = list(policies.values())
        self.mesh.update()

    def get(self, who: Host, where: str, path: str = "/", port: int = TARGET, **more: object) -> Answer:
        address = self.servers[where].four if where in self.servers else where
        with who.connect(address, port) as connection:
            return ask(connection, path, **more)  # type: ignore[arg-type]

    def status(self, who: Host, where: str, path: str = "/", port: int = TARGET, **more: object) -> int:
        """0 when there is no answer."""
        try:
            return self.get(who, where, path, port, **more).status
        except OSError:
            return 0


@pytest.fixture
def scene(mesh: Mesh, outside: Host) -> Iterator[Scene]:
    echoes = [Echo(mesh.pods[name], name, TARGET) for name in ("near", "far")]
    yield Scene(mesh, outside)
    for each in echoes:
        each.close()


def _about(attribute: Attribute, value: str) -> Rule:
    return rule(one(attribute, Exact(value)))


@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.usefixtures("way")
def test_a_request_is_judged_by_its_callers_identity(scene: Scene, where: str) -> None:
    """Through a tunnel, within the node, and without any in plain text."""
    scene.serve(web(policy(ALLOW, _about(Attribute.PRINCIPAL, CLIENT))))
    until(lambda: scene.status(scene.b, where) == 403, "the policy")
    answer = scene.get(scene.a, where)
    assert (answer.server, answer.echo["client"]) == (where, str(scene.a.four))
    said = answer.echo["headers"]["x-forwarded-client-cert"]
    assert said == [f"By=spiffe://cluster.local/ns/default/sa/server;URI=spiffe://{CLIENT}"]
    forged = {"x-forwarded-client-cert": f"By=x;URI=spiffe://{CLIENT}", "x-forwarded-for": str(scene.a.four)}
    assert scene.status(scene.b, where, headers=forged) == 403
    assert scene.status(scene.outside, where) == 403
    alike = taken_headers.lookalikes("x-forwarded-client-cert")
    got = scene.get(scene.a, where, headers=dict.fromkeys(alike, "x")).echo["headers"]
    assert [each for each in got if "client" in each] == ["x-forwarded-client-cert"]


@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.usefixtures("way")
def test_by_what_it_asks_for(scene: Scene, where: str) -> None:
    scene.serve(web(policy(DENY, _about(Attribute.PATH, "/admin"))))
    for who in (scene.a, scene.b, scene.outside):
        until(lambda who=who: scene.status(who, where, "/admin") == 403, "the policy")  # type: ignore[misc]
        for path in ("//admin", "/%61dmin", "/x/../admin", "/admin;x"):
            assert scene.status(who, where, path) == 403, path
        assert scene.get(who, where, "/other").server == where


@pytest.mark.parametrize("where", ["near", "far"])
def test_each_is_told_of(scene: Scene, where: str) -> None:
    """With who called, which rule decided, and where it was for."""
    agent = scene.servers[where].agent
    scene.serve(web(policy(DENY, _about(Attribute.PATH, "/admin"))))
    lie = {"x-forwarded-for": "192.0.2.7"}
    until(lambda: scene.status(scene.a, where, "/admin", headers=lie) == 403, "the policy")
    assert scene.status(scene.a, where, "/other", headers=lie) == 200

    def told() -> dict[int, Request]:
        return {
            each.code: each
            for each in agent.requests
            if each is not None and each.identity.endswith("/client")
        }

    until(lambda: told().keys() >= {200, 403}, "records")
    for code, each in told().items():
        assert each.denied is (code == 403)
        assert each.policy == ("default/p[0]" if code == 403 else "")
        assert (each.client, each.port) == (str(scene.a.four), str(TARGET))
        pod, service = parse_at_pod(each.service) or ("", "")
        assert (pod, service) == (scene.servers[where].local.key, web().key)


@pytest.mark.parametrize("where", ["near", "far"])
def test_by_its_callers_address(scene: Scene, where: str) -> None:
    """Which nobody can say of himself."""
    [own] = [ipaddress.ip_network(scene.a.four)]
    scene.serve(web(policy(ALLOW, rule(one(Attribute.SOURCE_IP, own)))))
    until(lambda: scene.status(scene.b, where, headers={"x-forwarded-for": str(own[0])}) == 403, "the policy")
    assert scene.status(scene.outside, where) == 403
    assert scene.status(scene.a, where) == 200


@pytest.mark.parametrize("where", ["near", "far"])
def test_tokens_are_verified(scene: Scene, where: str) -> None:
    tokens = TokenPolicy(ObjectRef("RequestAuthentication", "default", "tokens"), (), (_rule(),))
    scene.serve(
        web(policy(ALLOW, _about(Attribute.REQUEST_PRINCIPAL, f"{ISSUER.name}/anna")), tokens=(tokens,))
    )
    until(lambda: scene.status(scene.a, where) == 403, "the policy")
    good, bad = ISSUER.token(), Issuer(ISSUER.name).token()
    for who in (scene.a, scene.outside):
        asked = {
            token: scene.get(who, where, headers={"authorization": f"Bearer {token}"})
            for token in (good, bad)
        }
        assert [each.status for each in asked.values()] == [200, 401]
        assert "authorization" not in asked[good].echo["headers"]


def _rule() -> TokenRule:
    return TokenRule(ISSUER.name, keys=ISSUER.jwks)


@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.usefixtures("way")
def test_other_ports_go_on_as_bytes_as_far_as_rules_let_them(scene: Scene, where: str) -> None:
    """Nobody knows what bytes ask for."""
    server = scene.servers[where]
    allowed = {scene.a: f"{scene.a.four} 2", scene.b: REFUSED, scene.outside: REFUSED}
    with server.listen(BYTES), server.listen(8182):
        scene.serve(web(policy(ALLOW, _about(Attribute.PRINCIPAL, CLIENT))))
        until(lambda: scene.b.ask(server.four, BYTES) == REFUSED, "the policy")
        assert {who: who.ask(server.four, BYTES) for who in allowed} == allowed
        scene.serve(web(policy(ALLOW, _about(Attribute.METHOD, "GET"))))
        until(lambda: scene.a.ask(server.four, BYTES) == REFUSED, "the other policy")
        assert scene.outside.ask(server.four, BYTES) == REFUSED
        # Of no service.
        assert scene.b.ask(server.four, 8182) == f"{scene.b.four} 2"


@pytest.mark.parametrize("where", ["near", "far"])
def test_each_service_of_a_port_has_its_say(scene: Scene, where: str) -> None:
    first = policy(DENY, _about(Attribute.PATH, "/a"))
    second = policy(ALLOW, _about(Attribute.METHOD, "GET"), name="q")
    scene.serve(web(first), web(second, name="second"), web(name="third"))
    until(lambda: scene.status(scene.a, where, method="POST") == 403, "the policies")
    assert [scene.status(scene.a, where, each) for each in ("/a", "/b")] == [403, 200]


def test_bytes_to_a_port_that_is_read_are_requests_too(scene: Scene) -> None:
    both = msgspec.structs.replace(
        web(policy(ALLOW, _about(Attribute.METHOD, "GET"))), ports=(Port(80, TARGET), Port(81, TARGET))
    )
    scene.serve(both)
    until(lambda: scene.status(scene.a, "far", method="POST") == 403, "the policy")
    assert scene.status(scene.a, "far") == 200


def test_services_of_a_port_with_other_tokens_let_nobody_in(scene: Scene) -> None:
    """A token of one might count as another's."""
    own = TokenPolicy(ObjectRef("RequestAuthentication", "default", "own"), (), (_rule(),))
    scene.serve(web(tokens=(own,)), web(policy(DENY, _about(Attribute.PATH, "/a")), name="second"))
    until(lambda: scene.status(scene.a, "far") == 401, "the refusal")
    token = {"authorization": f"Bearer {ISSUER.token()}"}
    assert scene.status(scene.a, "far", headers=token) == 401
    scene.serve(web(tokens=(own,)), web(tokens=(own,), name="second"))
    until(lambda: scene.status(scene.a, "far", headers=token) == 200, "the same for both")


@pytest.mark.parametrize("who", ["a", "outside"])
@pytest.mark.parametrize("where", ["near", "far"])
@pytest.mark.usefixtures("way")
def test_who_may_connect_no_more_asks_no_more_on_what_is_open(scene: Scene, where: str, who: str) -> None:
    """Between a client and who reads a connection stays open, whatever becomes of those behind."""
    client = scene.a if who == "a" else scene.outside
    scene.serve(web(policy(DENY, _about(Attribute.PATH, "/admin"))))
    until(lambda: scene.status(client, where, "/admin") == 403, "the policy")
    scene.mesh.settle()
    with client.connect(scene.servers[where].four, TARGET) as kept, connection(kept, "web") as asking:

        def status(path: str) -> int:
            asking.request("GET", path)
            answer = asking.getresponse()
            answer.read()
            return answer.status

        assert (status("/"), status("/admin")) == (200, 403)
        only_b = Match(not_principals=(Exact(scene.b.identity.principal),))
        rules = (ConnectionRule((ConnectionClause((only_b,)),)),)
        scene.mesh.policies.append(Authorization("only-b", "default", Scope.NAMESPACE, Action.DENY, rules))
        scene.mesh.update()
        until(lambda: scene.status(client, where) == 0, "the policy about connections")
        assert status("/") == 403
    assert scene.get(scene.b, where).server == where


@pytest.mark.parametrize("where", ["near", "far"])
def test_rules_come_and_go(scene: Scene, where: str) -> None:
    """What stands for them is lifted where they are enforced only."""
    scene.serve(web())
    assert scene.get(scene.b, where).server == where
    ruled = web(policy(DENY, _about(Attribute.PATH, "/a")))
    scene.serve(ruled)
    until(lambda: scene.status(scene.b, where, "/a") == 403, "the policy")
    scene.mesh.services = [web()]
    scene.mesh.update()
    until(lambda: scene.status(scene.b, where, "/b") == 0, "the policy that nobody lifts")
    assert scene.status(scene.outside, where, "/b") == 0
    scene.serve(web())
    until(lambda: scene.get(scene.b, where, "/a").server == where, "no policy")


def test_a_service_leads_to_who_enforces_its_rules_only(scene: Scene) -> None:
    """An endpoint outside of the mesh enforces nothing."""
    plain = Echo(scene.outside, "outside", TARGET)
    try:
        given = web(policy(DENY, _about(Attribute.PATH, "/admin")))
        scene.serve(web())
        outside = msgspec.structs.replace(
            scene.servers["far"].workload,
            uid="outside",
            name="outside",
            addresses=scene.outside.addresses,
            tunnel=0,
            node="",
        )
        scene.mesh.others = [outside]
        scene.mesh.update()
        until(lambda: scene.status(scene.a, VIP, port=80) == 200, "the way there")
        until(lambda: _answering(scene) == {"near", "far", "outside"}, "all endpoints")
        scene.serve(given)
        until(lambda: scene.status(scene.a, VIP, "/admin", 80) == 403, "the policy")
        assert _answering(scene) == {"near", "far"}
    finally:
        plain.close()


def _answering(scene: Scene) -> set[str]:
    return {scene.get(scene.a, VIP, port=80).server for _ in range(32)}


def test_targets_are_not_asked_again(scene: Scene) -> None:
    """Which rules are a service's was decided before they came here."""
    other = policy(DENY, _about(Attribute.PATH, "/a"), targets=(Target("Gateway", "default", "way"),))
    scene.serve(web(other))
    until(lambda: scene.status(scene.a, "far", "/a") == 403, "the policy")
