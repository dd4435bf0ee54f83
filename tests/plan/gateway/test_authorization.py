"""A gateway's Envoy allows and denies what its policies say: requests in plain text and by TLS."""

from pathlib import Path
from typing import Any

import pytest

from ambit.agent.record import Flow
from tests.ingest.build import Given, authorization_policy
from tests.ingest.gateway.build import GROUP, listener, roots, to, to_edge
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.plan.dataplane.network import read_all
from tests.plan.gateway.conftest import Edge
from tests.plan.gateway.test_clients import believing
from tests.plan.gateway.test_https import AUTHORITY, ask, client_context, connect
from tests.plan.gateway.test_seen import told
from tests.plan.waypoint.echo import connection
from tests.tokens import Issuer

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

OWN = {"gateway.networking.k8s.io/gateway-name": "edge"}
NAME = "shop.example.com"


def policy(action: str, *rules: dict[str, Any], name: str = "p", **more: Any) -> Given:
    return authorization_policy(name, **{"action": action, "rules": list(rules), "selector": OWN, **more})


def operation(**fields: list[str]) -> dict[str, Any]:
    return {"to": [{"operation": fields}]}


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


def when(key: str, *values: str) -> dict[str, Any]:
    return {"when": [{"key": key, "values": list(values)}]}


def serve(edge: Edge, *policies: Given, **spec: Any) -> None:
    rule = {"backendRefs": [to("one")]}
    away = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/away"}}],
        "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "other.example.com"}}],
    }
    nowhere = {"matches": [{"path": {"type": "PathPrefix", "value": "/empty"}}]}
    routed = to_edge(away, nowhere, rule, hostnames=[NAME])
    edge.apply(gateway(listener(), listener("other", 8080), **spec), routed, *policies)


def test_a_denied_request_is_told_as_istio_tells_it(edge: Edge) -> None:
    serve(edge, policy("ALLOW"))
    answer = edge.get(NAME)
    assert (answer.status, answer.body) == (403, b"RBAC: access denied")


@pytest.mark.parametrize(
    "where",
    [
        {"selector": OWN},
        {"selector": {}},
        {"selector": {}, "namespace": "istio-system"},
        {"selector": None, "targetRefs": [{"group": GROUP, "kind": "Gateway", "name": "edge"}]},
    ],
)
def test_it_is_for_the_gateway_in_every_way(edge: Edge, where: dict[str, Any]) -> None:
    serve(edge, policy("DENY", operation(paths=["/a*"]), **where))
    assert [edge.get(NAME, each).status for each in ("/a", "/b")] == [403, 200]


def test_what_the_gateway_answers_itself_is_judged_as_well(edge: Edge) -> None:
    def seen(host: str) -> list[int]:
        return [edge.get(host, each).status for each in ("/away", "/empty", "/")]

    serve(edge)
    assert (seen(NAME), seen("unknown.example.com")) == ([302, 500, 200], [404] * 3)
    serve(edge, policy("DENY", {}))
    assert seen(NAME) == seen("unknown.example.com") == [403] * 3


@pytest.mark.parametrize(
    "path",
    [
        "/admin",
        "/%61dmin",
        "/x/../admin",
        "/./admin",
        "//admin",
        "/x%2f..%2fadmin",
        "/admin;x",
        "/x\\..\\admin",
    ],
)
def test_no_spelling_of_a_path_passes(edge: Edge, path: str) -> None:
    serve(edge, policy("DENY", operation(paths=["/admin*"])))
    assert raw(edge, f"GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n") in (400, 403)
    assert edge.get(NAME, "/public").status == 200


def test_ports_are_those_of_listeners(edge: Edge) -> None:
    serve(edge, policy("DENY", operation(ports=["8080"])))
    assert [edge.get(NAME, port=each).status for each in (80, 8080)] == [200, 403]


def test_who_connects_is_nobody_else_by_saying_so(edge: Edge) -> None:
    """Without a trusted proxy before it, headers say nothing."""
    own = f"{edge.client.four}/32"
    lie = {
        "x_forwarded_for": "203.0.113.9",
        "x_real_ip": "203.0.113.9",
        "x_envoy_external_address": "203.0.113.9",
    }
    for key in ("ipBlocks", "remoteIpBlocks"):
        serve(edge, policy("ALLOW", source(**{key: ["203.0.113.0/24"]})))
        assert edge.get(NAME, **lie).status == 403
        serve(edge, policy("DENY", source(**{key: [own]})))
        assert edge.get(NAME, **lie).status == 403
        serve(edge, policy("ALLOW", source(**{key: [own]})))
        assert edge.get(NAME, **lie).status == 200
    spoofed = "By=spiffe://cluster.local/ns/a/sa/b;URI=spiffe://cluster.local/ns/a/sa/b"
    serve(edge, policy("ALLOW", source(principals=["cluster.local/ns/a/sa/b"])))
    assert edge.get(NAME, x_forwarded_client_cert=spoofed).status == 403


def test_proxies_in_front_are_believed_as_many_as_there_are(edge: Edge) -> None:
    """Of addresses in `x-forwarded-for` that one counts which the first of them has added, whatever is before it."""
    config = "gatewayTopology: {numTrustedProxies: 2}"
    behind = {"infrastructure": {"annotations": {"proxy.istio.io/config": config}}}
    told_of = "203.0.113.9, 198.51.100.1"

    def status(given: Given, said: str) -> int:
        serve(edge, given, **behind)
        return edge.get(NAME, x_forwarded_for=said).status

    client = policy("ALLOW", source(remoteIpBlocks=["203.0.113.9"]))
    assert status(client, told_of) == 200
    assert status(client, f"192.0.2.1, {told_of}") == 200
    assert status(policy("DENY", source(remoteIpBlocks=["203.0.113.9"])), f"192.0.2.1, {told_of}") == 403
    assert status(policy("ALLOW", source(remoteIpBlocks=["192.0.2.1"])), f"192.0.2.1, {told_of}") == 403
    # Who came past them has added too little.
    assert status(client, "203.0.113.9") == 403
    assert status(policy("ALLOW", source(ipBlocks=["203.0.113.9"])), told_of) == 403
    assert status(policy("ALLOW", source(ipBlocks=[f"{edge.client.four}"])), told_of) == 200


def test_tokens_say_who_may(edge: Edge) -> None:
    issuer = Issuer()
    tokens = (
        "requestauthentications.security.istio.io",
        {
            "metadata": {"name": "tokens", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": OWN},
                "jwtRules": [{"issuer": issuer.name, "jwks": issuer.jwks}],
            },
        },
    )
    serve(edge, tokens, policy("ALLOW", source(requestPrincipals=[f"{issuer.name}/*"])))
    bearer = {"authorization": f"Bearer {issuer.token()}"}
    other = {"authorization": f"Bearer {Issuer().token()}"}
    assert [edge.get(NAME, **each).status for each in ({}, bearer, other)] == [403, 200, 401]


def test_a_dry_run_is_told_and_forbids_nothing(edge: Edge) -> None:
    serve(edge, policy("DENY", operation(paths=["/tried"]), annotations={"istio.io/dry-run": "true"}))
    assert edge.get(NAME, "/tried").status == 200
    assert told(edge, "/tried").dry_run == "default/p[0]"


def test_records_name_the_rule(edge: Edge) -> None:
    serve(edge, policy("DENY", operation(paths=["/other"]), operation(paths=["/refused"])))
    assert edge.get(NAME, "/refused").status == 403
    flow: Flow = told(edge, "/refused")
    assert (flow.decision, flow.policy) == ("deny", "default/p[1]")


def test_a_change_ends_no_connection_and_counts_at_once(edge: Edge) -> None:
    serve(edge)
    edge.settle()
    plain = edge.client.connect(edge.host.four, 80)
    with connection(plain, NAME) as kept:
        for given, status in (((), 200), ((policy("DENY", {}),), 403), ((), 200)):
            serve(edge, *given)
            assert (ask(kept, NAME).status, kept.sock) == (status, plain)


FRIENDS = Authority("friends")
IDENTITY = "spiffe://cluster.local/ns/shop/sa/partner"


def by_tls(edge: Edge, directory: Path, *policies: Given, mode: str = "AllowValidOnly") -> Any:
    """What a client is answered that shows a certificate with these URIs; without any, one without names."""
    edge.apply(
        roots("friends", FRIENDS.root),
        secret("a", AUTHORITY.pair(NAME, "b.example.com")),
        gateway(
            https("https", "a", hostname=NAME),
            https("b", "a", hostname="b.example.com"),
            tls={"frontend": {"default": believing("friends", mode=mode)}},
        ),
        to_edge({"backendRefs": [to("one")]}),
        *policies,
    )

    def status(*uris: str, name: str = NAME, authority: Authority = FRIENDS) -> int:
        pair = authority.pair("client", uris=uris)
        (directory / "client.pem").write_text(pair.chain + pair.key)
        context = client_context()
        context.load_cert_chain(directory / "client.pem")
        return ask(connect(edge, name, context), name).status

    return status


def test_certificates_say_who_clients_are(edge: Edge, tmp_path: Path) -> None:
    partner = source(principals=["cluster.local/ns/shop/sa/partner"])
    status = by_tls(edge, tmp_path, policy("ALLOW", partner))
    assert [status(IDENTITY), status(f"{IDENTITY}2"), status()] == [200, 403, 403]
    # Others' authorities may write what they like: an ALLOW rule is not widened, a DENY rule not passed by it.
    assert status(IDENTITY, "spiffe://cluster.local/ns/shop/sa/other") == 403
    status = by_tls(edge, tmp_path, policy("DENY", partner))
    assert [status(IDENTITY), status(f"{IDENTITY}2"), status()] == [403, 200, 200]
    assert status("urn:a", IDENTITY, "urn:b") == 403
    status = by_tls(edge, tmp_path, policy("ALLOW", source(namespaces=["shop"])))
    assert [status(IDENTITY), status("spiffe://partners.example/billing"), status()] == [200, 403, 403]
    status = by_tls(edge, tmp_path, policy("ALLOW", source(principals=["partners.example/*"])))
    assert [status(IDENTITY), status("spiffe://partners.example/billing")] == [403, 200]


def test_certificates_that_nobody_verified_prove_nothing(edge: Edge, tmp_path: Path) -> None:
    partner = source(principals=["cluster.local/ns/shop/sa/partner"])
    status = by_tls(edge, tmp_path, policy("ALLOW", partner), mode="AllowInsecureFallback")
    assert status(IDENTITY, authority=Authority("strangers")) == 403


def test_the_name_in_the_hello(edge: Edge, tmp_path: Path) -> None:
    status = by_tls(edge, tmp_path, policy("DENY", when("connection.sni", "B.example.com")))
    assert [status(IDENTITY), status(IDENTITY, name="b.example.com")] == [200, 403]


def raw(edge: Edge, text: str) -> int:
    """The status of the answer to these characters, each a byte."""
    with edge.client.connect(edge.host.four, 80) as client:
        client.sendall(text.encode("latin-1"))
        return int(read_all(client).split()[1])
