"""A waypoint's Envoy allows and denies what `ambit.policy.requests` says."""

import ipaddress
import socket
from collections.abc import Iterable

import pytest

from ambit.model.jwt import Target
from ambit.model.policy import Exact, Prefix, Presence, ServiceAccountMatch, Suffix
from ambit.model.request_policy import (
    Attribute,
    Clause,
    Condition,
    Match,
    PathTemplate,
    RequestAction,
    RequestPolicy,
    Rule,
    Value,
)
from tests.plan.dataplane.conftest import Pod
from tests.plan.dataplane.network import read_all
from tests.plan.waypoint.conftest import EMPTY, PORT, TCP_PORT, WEB, Scene
from tests.plan.waypoint.echo import connection
from tests.plan.waypoint.placements import INLINE

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

SERVICE = (Target("Service", "default", "web"),)
GATEWAY = (Target("Gateway", "default", "waypoint"),)
ALLOW, DENY = RequestAction.ALLOW, RequestAction.DENY


def one(attribute: Attribute, *values: Value, unwanted: Iterable[Value] = (), name: str = "") -> Condition:
    return Condition(attribute, values, tuple(unwanted), (name,) if name else ())


def rule(*tests: Condition) -> Rule:
    return Rule((Clause((Match(tests),)),))


def policy(
    action: RequestAction, *rules: Rule, targets: tuple[Target, ...] = SERVICE, name: str = "p"
) -> RequestPolicy:
    return RequestPolicy(name, "default", action, targets, rules)


def enforce(scene: Scene, *policies: RequestPolicy) -> None:
    scene.bind(authorization=policies)


def test_without_policies_everything_is_allowed(scene: Scene) -> None:
    assert scene.get("/a").server == "v1"


def test_a_denied_request_is_told_as_istio_tells_it(scene: Scene) -> None:
    enforce(scene, policy(ALLOW))
    answer = scene.get("/a")
    assert (answer.status, answer.body) == (403, b"RBAC: access denied")
    assert scene.echoes["v1"].seen == []


@pytest.mark.parametrize("targets", [SERVICE, GATEWAY, ()])
def test_policies_are_for_a_service_a_waypoint_or_all(scene: Scene, targets: tuple[Target, ...]) -> None:
    targets = targets or (Target("GatewayClass", "", scene.of_class),)
    enforce(scene, policy(DENY, rule(one(Attribute.PATH, Exact("/a"))), targets=targets))
    assert [scene.get(each).status for each in ("/a", "/b")] == [403, 200]
    # The other service has no endpoints, so where those decide nobody does.
    is_undecided = targets == SERVICE or scene.placement == INLINE
    assert scene.get("/a", to=EMPTY).status == (503 if is_undecided else 403)


def test_policies_of_others_do_not_count(scene: Scene) -> None:
    others = (
        Target("Service", "default", "empty"),
        Target("ServiceEntry", "default", "web"),
        Target("Service", "other", "web"),
        Target("Gateway", "other", "waypoint"),
        Target("GatewayClass", "", "istio"),
    )
    enforce(scene, policy(DENY, Rule(), targets=others))
    assert scene.get("/a").status == 200


def test_who_calls_is_who_opened_the_tunnel(scene: Scene) -> None:
    client, other = (scene.mesh.pods[each] for each in ("client", "other"))
    enforce(scene, policy(ALLOW, rule(one(Attribute.PRINCIPAL, Exact("cluster.local/ns/default/sa/client")))))
    said = "By=x;URI=spiffe://cluster.local/ns/default/sa/client"
    assert scene.get("/a", source=client).status == 200
    assert scene.get("/a", source=other).status == 403
    assert scene.get("/a", source=other, x_forwarded_client_cert=said).status == 403


DEFAULT = ipaddress.ip_network("10.96.1.1/32")
CASES = [
    (one(Attribute.PRINCIPAL, Prefix("cluster.local/ns/default/")), True),
    (one(Attribute.PRINCIPAL, Suffix("/sa/client")), True),
    (one(Attribute.PRINCIPAL, Presence()), True),
    (one(Attribute.PRINCIPAL, Suffix("/sa/clien")), False),
    (one(Attribute.PRINCIPAL, unwanted=[Presence()]), False),
    (one(Attribute.NAMESPACE, Exact("default")), True),
    (one(Attribute.NAMESPACE, Exact("defaul")), False),
    (one(Attribute.NAMESPACE, Prefix("def")), True),
    (one(Attribute.TRUST_DOMAIN, Exact("cluster.local")), True),
    (one(Attribute.TRUST_DOMAIN, Suffix(".local")), True),
    (one(Attribute.TRUST_DOMAIN, Exact("cluster")), False),
    (one(Attribute.SERVICE_ACCOUNT, ServiceAccountMatch("default", "client")), True),
    (one(Attribute.SERVICE_ACCOUNT, ServiceAccountMatch("default", "other")), False),
    (one(Attribute.DESTINATION_IP, DEFAULT), True),
    (one(Attribute.DESTINATION_IP, ipaddress.ip_network("10.96.1.2/32")), False),
    (one(Attribute.PORT, PORT), True),
    (one(Attribute.PORT, unwanted=[PORT]), False),
    (one(Attribute.METHOD, Exact("GET")), True),
    (one(Attribute.METHOD, Exact("POST")), False),
    (one(Attribute.METHOD, unwanted=[Exact("POST")]), True),
    (one(Attribute.HOST, Exact("web")), True),
    (one(Attribute.HOST, Exact("we")), False),
    (one(Attribute.HOST, Suffix("eb")), True),
    (one(Attribute.HOST, Presence()), True),
    (one(Attribute.PATH, Exact("/a/b")), True),
    (one(Attribute.PATH, Prefix("/a/")), True),
    (one(Attribute.PATH, Suffix("/b")), True),
    (one(Attribute.PATH, Presence()), True),
    (one(Attribute.PATH, PathTemplate("/{*}/b")), True),
    (one(Attribute.PATH, PathTemplate("/a/{**}")), True),
    (one(Attribute.PATH, PathTemplate("/{*}")), False),
    (one(Attribute.HEADER, Exact("1"), name="x-a"), True),
    (one(Attribute.HEADER, Exact("2"), name="x-a"), False),
    (one(Attribute.HEADER, Presence(), name="x-a"), True),
    (one(Attribute.HEADER, Presence(), name="x-none"), False),
    (one(Attribute.HEADER, unwanted=[Presence()], name="x-none"), True),
    (one(Attribute.REMOTE_IP, ipaddress.ip_network("192.0.2.7/32")), True),
    (one(Attribute.REMOTE_IP, ipaddress.ip_network("192.0.2.8/32")), False),
    (one(Attribute.SOURCE_IP, ipaddress.ip_network("192.0.2.7/32")), False),
    (one(Attribute.CLAIM, Presence(), name="iss"), False),
    (one(Attribute.REQUEST_PRINCIPAL, Presence()), False),
    (one(Attribute.REQUEST_PRINCIPAL, unwanted=[Presence()]), True),
]


@pytest.mark.parametrize(("condition", "hit"), CASES, ids=[f"{each}".replace("'", "") for each, _ in CASES])
def test_what_is_looked_at(scene: Scene, condition: Condition, hit: bool) -> None:
    for action, status in ((ALLOW, 200 if hit else 403), (DENY, 403 if hit else 200)):
        enforce(scene, policy(action, rule(condition)))
        answer = scene.get("/a/b?c=/d", x_a="1", x_forwarded_for="192.0.2.7")
        assert answer.status == status, action


def test_the_clients_address_is_the_callers(scene: Scene) -> None:
    own = next(each for each in scene.client.workload.addresses if each.version == 4)
    enforce(scene, policy(ALLOW, rule(one(Attribute.SOURCE_IP, ipaddress.ip_network(own)))))
    assert scene.get("/a", x_forwarded_for="192.0.2.7").status == 200
    assert scene.get("/a", source=scene.mesh.pods["other"], x_forwarded_for=str(own)).status == 403


def test_what_nobody_sees_counts_as_it_is_stricter(scene: Scene) -> None:
    for action in (ALLOW, DENY):
        enforce(scene, policy(action, rule(one(Attribute.UNSEEN, Exact("a"), name="connection.sni"))))
        assert scene.get("/a").status == 403
        enforce(
            scene, policy(action, rule(one(Attribute.UNSEEN, unwanted=[Exact("a")], name="connection.sni")))
        )
        assert scene.get("/a").status == 403


SPELLINGS = [
    *("/admin", "//admin", "/%61dmin", "/a/../admin", "/./admin", "/%2Fadmin", "/%2561dmin", "/admin;x=1"),
    *("/x/..;/admin", "/x%2f..%2fadmin", "\\admin", "/x\\..\\admin", "/admin?q", "/adm%69n?q=/b", "/;/admin"),
    *("/x%5c..%5cadmin", "/%2e%2e/admin", "/%252e%252e/admin", "/admin?\xff", "/admin\xff/../../admin"),
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_passes_a_denial(scene: Scene, path: str) -> None:
    enforce(scene, policy(DENY, rule(one(Attribute.PATH, Exact("/admin")))))
    status = raw(scene, f"GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n")
    assert status in (400, 403)
    assert scene.echoes["v1"].seen == []


@pytest.mark.parametrize(
    "path", ["/public/..;/admin", "/public/..%2fadmin", "/public%2f..%2fadmin", "/public/../a"]
)
def test_no_spelling_of_a_path_widens_an_allowance(scene: Scene, path: str) -> None:
    enforce(scene, policy(ALLOW, rule(one(Attribute.PATH, Prefix("/public/")))))
    assert scene.get("/public/a%2Fb;c").status == 200
    assert raw(scene, f"GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n") == 403


HEADS = [
    ("GET /a HTTP/1.1\r\nhost: ADMIN", Attribute.HOST, Exact("admin"), ""),
    ("GET /a HTTP/1.1\r\nhost: admin:80", Attribute.HOST, Exact("admin"), ""),
    ("GET /a HTTP/1.1\r\nhost: admin.", Attribute.HOST, Exact("Admin"), ""),
    ("GET http://admin/a HTTP/1.1\r\nhost: web", Attribute.HOST, Exact("admin"), ""),
    (
        "GET /a HTTP/1.1\r\nhost: web\r\nX-Role: user\r\nx-role: admin",
        Attribute.HEADER,
        Exact("admin"),
        "x-role",
    ),
    ("GET /a HTTP/1.1\r\nhost: web\r\nx-role: admin , user", Attribute.HEADER, Exact("admin"), "x-role"),
    ("GET /a HTTP/1.1\r\nhost: web\r\nx-role: admin\xff", Attribute.HEADER, Prefix("adm"), "x-role"),
    ("get /a HTTP/1.1\r\nhost: web", Attribute.METHOD, Exact("GET"), ""),
]


@pytest.mark.parametrize(("head", "attribute", "value", "name"), HEADS)
def test_no_spelling_of_a_head_passes_a_denial(
    scene: Scene, head: str, attribute: Attribute, value: Value, name: str
) -> None:
    enforce(scene, policy(DENY, rule(one(attribute, value, name=name))))
    assert raw(scene, f"{head}\r\nconnection: close\r\n\r\n") in (400, 403)
    assert scene.echoes["v1"].seen == []


def test_bytes_are_judged_by_what_is_seen_of_them(scene: Scene) -> None:
    client = scene.mesh.pods["client"]
    addresses = [ipaddress.ip_network(each) for each in client.workload.addresses]
    mine = one(Attribute.NAMESPACE, Exact("default"))
    account = one(Attribute.SERVICE_ACCOUNT, ServiceAccountMatch("default", "client"))
    for given, reaches in (
        ((), {"client", "other"}),
        ((policy(ALLOW, rule(account)),), {"client"}),
        ((policy(DENY, rule(account)),), {"other"}),
        ((policy(ALLOW, rule(mine, one(Attribute.METHOD, Exact("GET")))),), set()),
        ((policy(DENY, rule(account, one(Attribute.METHOD, Exact("GET")))),), {"other"}),
        ((policy(ALLOW, rule(one(Attribute.SOURCE_IP, *addresses))),), {"client"}),
        ((policy(DENY, rule(one(Attribute.SOURCE_IP, *addresses))),), {"other"}),
        ((policy(ALLOW, rule(one(Attribute.PORT, TCP_PORT))),), {"client", "other"}),
        ((policy(ALLOW, rule(one(Attribute.PORT, PORT))),), set()),
    ):
        enforce(scene, *given)
        assert {each for each in ("client", "other") if is_served(scene.mesh.pods[each])} == reaches, given


def test_a_change_ends_no_connection_and_counts_at_once(scene: Scene) -> None:
    address = WEB.addresses[0].address
    requests = scene.client.connect(address, PORT)
    with connection(requests, "web") as http, scene.client.connect(address, TCP_PORT) as plain:
        plain.sendall(b"123")
        for given, status in (((), 200), ((policy(DENY, Rule()),), 403), ((), 200)):
            enforce(scene, *given)
            http.request("GET", "/a")
            answer = http.getresponse()
            answer.read()
            assert (answer.status, http.sock) == (status, requests)
        plain.shutdown(socket.SHUT_WR)
        assert read_all(plain).endswith(b" 3")


def raw(scene: Scene, text: str) -> int:
    """The status of the answer to these characters, each a byte."""
    with scene.client.connect(WEB.addresses[0].address, PORT) as client:
        client.sendall(text.encode("latin-1"))
        return int(read_all(client).split()[1])


def is_served(pod: Pod) -> bool:
    try:
        return pod.ask(WEB.addresses[0].address, TCP_PORT, b"123").endswith(" 3")
    except OSError:
        return False
