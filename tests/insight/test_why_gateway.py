"""What becomes of a request from outside: gateway, listener, policies, route, endpoints, from configuration alone."""

import time
from base64 import b64decode
from typing import Any

import pytest
import yaml

from ambit.cli.confirmation import AGREES, confirm_request
from ambit.cli.render.answer import answer_lines, request_lines
from ambit.core.errors import BadInput
from ambit.insight.at_tokens import Shown
from ambit.insight.leading import RequestAnswer
from ambit.insight.manifests import Compiled
from ambit.insight.why import why
from ambit.insight.why_request import why_at_gateway, why_request
from tests.ingest.gateway.build import roots
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.insight.test_why import ALLOW
from tests.insight.test_why_request import SERVICES, WAYPOINT, mesh
from tests.plan.gateway.test_clients import believing
from tests.tokens import Issuer

OUTSIDE = "203.0.113.9"
WEB = SERVICES % ("web", "", 7, "web")
FRONT_SERVICE = SERVICES % ("front-ambit", "", 9, "front")
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: front}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /v1}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, scheme: https}}]
"""


def front(trusted: int = 0, **spec: Any) -> dict[str, Any]:
    annotations = {"proxy.istio.io/config": f"gatewayTopology: {{numTrustedProxies: {trusted}}}"}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "front"},
        "spec": {
            "gatewayClassName": "ambit",
            "infrastructure": {"annotations": annotations},
            "listeners": [
                {"name": "http", "port": 80, "protocol": "HTTP"},
                https("https", "a", hostname="*.example.com"),
                https("b", "a", hostname="b.example.com"),
            ],
            **spec,
        },
    }


def certificate() -> dict[str, Any]:
    _, body = secret("a", Authority().pair("shop.example.com"))
    return {"apiVersion": "v1", "kind": "Secret", **body}


CERTIFICATE = certificate()


def policy(action: str, **rule: Any) -> str:
    selector = {"matchLabels": {"gateway.networking.k8s.io/gateway-name": "front"}}
    return yaml.safe_dump(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "edge"},
            "spec": {"selector": selector, "action": action, "rules": [rule]},
        }
    )


def compiled(*texts: str, trusted: int = 0) -> Compiled:
    return mesh(WEB, ROUTE, *texts, more=(front(trusted), CERTIFICATE))


def asked(url: str, *texts: str, trusted: int = 0, **headers: str) -> RequestAnswer:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return why_at_gateway(OUTSIDE, "GET", url, compiled(*texts, trusted=trusted), "front", headers=named)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_rule_that_it_meets_and_where_that_leads(scheme: str) -> None:
    answer = asked(f"{scheme}://shop.example.com/v1/items")
    assert (answer.gateway, answer.waypoint, answer.verdict) == ("default/front", "", "allowed")
    assert (answer.route, answer.met) == ("default/web/0", "path below /v1")
    (share,) = answer.shares
    (ruling,) = share.rulings
    assert ruling.identity == "spiffe://cluster.local/ns/default/sa/front-ambit", "endpoints see the gateway"
    assert asked(f"{scheme}://shop.example.com/old").reason == "redirected with 301"
    other = asked(f"{scheme}://other.example.com/v1")
    assert (other.verdict, other.shares) == ("answered", ())


def test_a_backend_that_is_not_there_is_named() -> None:
    route = ROUTE.replace("port: 80}]", "port: 81}, {name: wbe, port: 80}, {name: web, port: 80, weight: 2}]")
    answer = why_at_gateway(
        OUTSIDE, "GET", "http://shop.example.com/v1", mesh(WEB, route, more=(front(), CERTIFICATE)), "front"
    )
    told = (
        "500; the status of its route: Service default/web has no port 81; "
        "Service default/wbe does not exist, or is an ExternalName (BackendNotFound)"
    )
    assert [(each.backend, each.percent, each.reason) for each in answer.shares] == [
        ("nobody", 25.0, told),
        ("nobody", 25.0, told),
        ("default/web:80", 50.0, ""),
    ]


def test_endpoints_decide_about_the_gateway() -> None:
    answer = asked("http://shop.example.com/v1", ALLOW)
    assert (answer.verdict, answer.shares[0].verdict) == ("denied", "denied")


def test_policies_decide_before_routes() -> None:
    private = policy("DENY", to=[{"operation": {"paths": ["/v1*"]}}])
    answer = asked("http://shop.example.com/v1/a", private)
    assert answer.policy is not None
    assert (answer.verdict, answer.policy.rule, answer.route) == ("denied", "default/edge[0]", "")
    passed = asked("http://shop.example.com/v2", private)
    assert passed.verdict == "answered"
    assert passed.policy is not None and passed.policy.nearest is not None
    assert (passed.policy.nearest.rule, passed.policy.nearest.misses[0].actual) == ("default/edge[0]", "/v2")


def test_who_asks_is_who_connects_or_whom_a_trusted_proxy_names() -> None:
    mine = policy("ALLOW", **{"from": [{"source": {"remoteIpBlocks": ["198.51.100.0/24"]}}]})
    lie = {"x_forwarded_for": "192.0.2.1, 198.51.100.7"}
    verdicts = [
        asked("http://shop.example.com/v1", mine, trusted=trusted, **lie).verdict for trusted in (0, 1, 2, 3)
    ]
    assert verdicts == ["denied", "allowed", "denied", "denied"]
    direct = policy("ALLOW", **{"from": [{"source": {"ipBlocks": [f"{OUTSIDE}/32"]}}]})
    assert asked("http://shop.example.com/v1", direct, trusted=1, **lie).verdict == "allowed"


def test_the_name_in_the_hello_chooses_the_listener_and_is_judged() -> None:
    hello = policy("ALLOW", when=[{"key": "connection.sni", "values": ["shop.example.com"]}])
    assert asked("https://shop.example.com/v1", hello).verdict == "allowed"
    assert asked("http://shop.example.com/v1", hello).verdict == "denied"
    assert asked("https://b.example.com/v1").reason.startswith("none of its rules matches")


def test_the_gateways_own_service_may_be_asked_as_well() -> None:
    answer = why_request(
        OUTSIDE,
        "GET",
        "http://front-ambit/v1",
        compiled(FRONT_SERVICE),
        headers={"host": "shop.example.com"},
    )
    assert (answer.gateway, answer.verdict) == ("default/front", "allowed")


@pytest.mark.parametrize(
    ("name", "url", "said"),
    [
        ("gone", "http://shop.example.com/", "there are default/front"),
        ("front", "http://shop.example.com:8080/", "80 (HTTP), 443 (HTTPS *.example.com)"),
        ("front", "https://example.org/", "80 (HTTP)"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(name: str, url: str, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        why_at_gateway(OUTSIDE, "GET", url, compiled(), name)
    assert said in refused.value.hint


def test_the_answer_in_words_and_records_of_it() -> None:
    answer = asked("http://shop.example.com/v1", policy("DENY", to=[{"operation": {"paths": ["/v1"]}}]))
    flow = {
        "proxy": "default/front",
        "time": 1.0,
        "source": {"address": f"{OUTSIDE}:40000"},
        "decision": "deny",
        "policy": "default/edge[0]",
        "request": {"method": "GET", "path": "/v1", "code": 403},
    }
    found = confirm_request(answer, "/v1", [flow])
    assert found.records == AGREES
    text = "\n".join(request_lines(answer, [found]))
    assert "read by gateway default/front" in text
    assert "asked without identity" in text and "denied by default/edge[0]" in text


def test_connections_are_judged_where_nobody_reads_requests() -> None:
    listeners = [
        {"name": "http", "port": 80, "protocol": "HTTP"},
        {"name": "tcp", "port": 9000, "protocol": "TCP"},
    ]
    gateway = front()
    gateway["spec"]["listeners"] = listeners
    ports = "ports: [{name: http, port: 80, targetPort: 8080}]"
    service = FRONT_SERVICE.replace(ports, "ports: [{name: http, port: 80}, {name: tcp, port: 9000}]")

    def answer(port: int, *texts: str) -> tuple[str, str]:
        found = why(OUTSIDE, f"front-ambit:{port}", mesh(WEB, service, *texts, more=(gateway,)))
        return found.verdict, found.rulings[0].rule

    mine = policy("ALLOW", **{"from": [{"source": {"ipBlocks": [f"{OUTSIDE}/32"]}}]})
    private = policy("DENY", to=[{"operation": {"paths": ["/v1"]}}])
    assert answer(9000) == ("allowed", "")
    assert answer(9000, mine) == ("allowed", "default/edge[0]")
    assert answer(9000, policy("ALLOW", to=[{"operation": {"ports": ["80"]}}]))[0] == "denied"
    assert answer(9000, private) == ("denied", "default/edge[0]"), "what nobody sees counts as it is stricter"
    assert answer(80, private) == ("allowed", ""), "it is asked of each request"


TOKENS = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec:
  selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: front}}
  jwtRules: [{issuer: https://issuer.example, jwksUri: https://issuer.example/keys}]
"""
ISSUER = Issuer("https://issuer.example")
BUYERS = policy("ALLOW", when=[{"key": "request.auth.claims[group]", "values": ["buyers"]}])


def test_a_token_is_tried_but_for_its_signature() -> None:
    def ruling(text: str, now: float | None = None) -> tuple[str, str, str]:
        given = {"authorization": f"Bearer {text}"} if text else {}
        answer = why_at_gateway(
            OUTSIDE,
            "GET",
            "http://shop.example.com/v1",
            compiled(TOKENS, BUYERS),
            "front",
            headers=given,
            shown=Shown(now=now),
        )
        assert answer.policy is not None
        return answer.verdict, answer.policy.reason, answer.policy.token

    assert ruling("") == ("denied", "no allow rule matches", "default/edge[0] needs a valid token")
    said = "that of https://issuer.example is valid if its signature is, which is not tried here"
    assert ruling(ISSUER.token(group="buyers")) == ("allowed", "allowed by rule", said)
    assert ruling(ISSUER.token(group="guests")) == ("denied", "no allow rule matches", said)
    old = ISSUER.token(group="buyers", lifetime=-1000)
    assert ruling(old)[0] == "allowed"
    named = "its token is not valid by RequestAuthentication default/tokens: it has expired"
    assert ruling(old, time.time()) == ("denied", named, "")


PARTNERS = {"frontend": {"default": believing("partners")}}


def test_a_certificate_says_who_the_client_is_where_one_is_asked_for() -> None:
    resource, roots_of = roots("partners", Authority("partners").root)
    assert resource == "configmaps"
    given = {"apiVersion": "v1", "kind": "ConfigMap", **roots_of}
    billing = policy("ALLOW", **{"from": [{"source": {"principals": ["partners.example/billing"]}}]})

    def found(scheme: str, *names: str, tls: dict[str, Any] = PARTNERS) -> tuple[str, str]:
        edge = mesh(WEB, ROUTE, billing, more=(front(tls=tls), CERTIFICATE, given))
        shown = Shown(names or None)
        answer = why_at_gateway(OUTSIDE, "GET", f"{scheme}://shop.example.com/v1", edge, "front", shown=shown)
        assert answer.policy is not None
        return answer.verdict, answer.policy.identity

    name = "spiffe://partners.example/billing"
    assert found("https", name) == ("allowed", name)
    assert found("https", "spiffe://partners.example/other") == ("denied", "spiffe://partners.example/other")
    assert found("https", "https://partners.example/billing") == ("denied", "")
    assert found("https") == ("refused", ""), "nobody comes in without one"
    assert found("http", name) == ("denied", ""), "nobody asks for it"
    assert found("https", name, tls={}) == ("denied", "")
    fallback = {"frontend": {"default": believing("partners", mode="AllowInsecureFallback")}}
    assert found("https", tls=fallback) == found("https", name, tls=fallback) == ("denied", "")
    with pytest.raises(BadInput, match="several names"):
        found("https", name, "spiffe://partners.example/other")


def test_a_listener_that_asks_by_itself_asks_nobody_who_comes_by_another_name() -> None:
    pair = Authority().pair("shop.example.com")
    _, beside = secret("a", pair, **{"ca.crt": Authority("partners").root})

    def verdicts(asking: int) -> list[str]:
        given = front()
        given["spec"]["listeners"][asking]["tls"]["options"] = {
            "gateway.istio.io/tls-terminate-mode": "MUTUAL"
        }
        edge = mesh(WEB, ROUTE, more=(given, {"apiVersion": "v1", "kind": "Secret", **beside}))
        urls = (f"https://{host}.example.com/v1" for host in ("shop", "b"))
        return [why_at_gateway(OUTSIDE, "GET", url, edge, "front").verdict for url in urls]

    assert verdicts(1) == ["refused", "answered"]
    assert verdicts(2) == ["allowed", "refused"]


LABELS = "istio.io/use-waypoint: way, istio.io/use-waypoint-canary: next, istio.io/ingress-use-waypoint: '%s'"
BEHIND, PAST = (
    SERVICES % ("web, annotations: {istio.io/use-waypoint-canary-weight: '25'}", LABELS % each, 7, "web")
    for each in ("true", "false")
)
WAYPOINTS = (WAYPOINT, WAYPOINT.replace("name: way}", "name: next}"))
OLD_ONLY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: old-only}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: way}]
  rules: [{from: [{source: {serviceAccounts: [nobody]}}]}]
"""


def test_what_goes_on_by_waypoints_has_an_answer_of_each() -> None:
    given = mesh(BEHIND, *WAYPOINTS, ROUTE, OLD_ONLY, more=(front(), CERTIFICATE))
    answer = why_at_gateway(OUTSIDE, "GET", "http://shop.example.com/v1", given, "front")
    (share,) = answer.shares
    assert (answer.verdict, share.verdict, share.rulings) == ("mixed", "mixed", ())
    found = [(each.percent, each.answer.waypoint, each.answer.verdict) for each in share.parts]
    assert found == [(75.0, "default/way", "denied"), (25.0, "default/next", "allowed")]
    first, second = (each.answer for each in share.parts)
    assert first.policy is not None and first.policy.identity.endswith("/sa/front-ambit")
    assert [each.identity for each in second.shares[0].rulings] == [
        "spiffe://cluster.local/ns/default/sa/next"
    ]
    lines = list(request_lines(answer))
    assert "  75 %: denied" in lines and "    read by waypoint default/next" in lines


def test_a_service_without_the_label_is_called_past_its_waypoints() -> None:
    """Which a policy for one of them forbids."""
    for policies, verdict in (((), "allowed"), ((OLD_ONLY,), "denied")):
        given = mesh(PAST, *WAYPOINTS, ROUTE, *policies, more=(front(), CERTIFICATE))
        answer = why_at_gateway(OUTSIDE, "GET", "http://shop.example.com/v1", given, "front")
        assert (answer.verdict, answer.shares[0].parts) == (verdict, ())


def test_callers_in_the_mesh_get_an_answer_of_each_waypoint() -> None:
    given = mesh(BEHIND, *WAYPOINTS, OLD_ONLY)
    answer = why_request("client", "GET", "http://web/v1", given)
    assert (answer.verdict, answer.waypoint) == ("mixed", "")
    found = [(each.percent, each.answer.waypoint, each.answer.verdict) for each in answer.parts]
    assert found == [(75.0, "default/way", "denied"), (25.0, "default/next", "allowed")]
    lines = list(request_lines(answer))
    assert lines[1:5] == [
        "",
        "75 %: denied",
        "  read by waypoint default/way",
        "    asked as cluster.local/ns/default/sa/client",
    ]
    of_bytes = why("client", "web:80", given)
    assert (of_bytes.verdict, of_bytes.rulings) == ("allowed", ())
    assert [(each.percent, each.answer.waypoint) for each in of_bytes.parts] == [
        (75.0, "default/way"),
        (25.0, "default/next"),
    ]
    assert {each.identity.rpartition("/")[2] for each in of_bytes.all_rulings} == {"way", "next"}
    text = "\n".join(answer_lines(of_bytes))
    assert "25 %: allowed" in text and "by way of waypoint default/next" in text


def test_a_secret_of_another_type_is_no_certificate_as_for_the_control_plane() -> None:
    """`kubectl create secret generic` makes such; the control plane does not ask for them."""
    given = {**CERTIFICATE, "type": "Opaque"}
    found = mesh(WEB, ROUTE, more=(front(listeners=[https("https", "a")]), given))
    assert "AMB0408" in {each.code for each in found.findings}
    with pytest.raises(BadInput) as refused:
        why_at_gateway(OUTSIDE, "GET", "https://shop.example.com/v1", found, "front")
    assert refused.value.hint.startswith("none of its listeners can be used; `ambit check`")


def test_a_secret_in_a_file_may_be_written_in_plain_text() -> None:
    """What `kubectl apply` takes: without it, the listener would have no certificate here and one in the cluster."""
    plain = {name: b64decode(text).decode() for name, text in CERTIFICATE["data"].items()}
    given = {**{name: each for name, each in CERTIFICATE.items() if name != "data"}, "stringData": plain}
    found = mesh(WEB, ROUTE, more=(front(listeners=[https("https", "a")]), given))
    assert found.findings == ()
    with pytest.raises(BadInput, match=r"no Secret: stringData\.tls\.crt is no text"):
        mesh(WEB, ROUTE, more=({**given, "stringData": {"tls.crt": 1}},))
