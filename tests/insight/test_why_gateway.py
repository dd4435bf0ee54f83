"""What becomes of a request from outside: gateway, listener, policies, route, endpoints, from configuration alone."""

from typing import Any

import pytest
import yaml

from ambit.cli.confirmation import AGREES, confirm_request
from ambit.cli.render.answer import request_lines
from ambit.core.errors import BadInput
from ambit.insight.manifests import Compiled
from ambit.insight.why import why
from ambit.insight.why_request import RequestAnswer, why_at_gateway, why_request
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.insight.test_why import ALLOW
from tests.insight.test_why_request import SERVICES, mesh

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


def front(trusted: int = 0) -> dict[str, Any]:
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


def test_endpoints_decide_about_the_gateway() -> None:
    answer = asked("http://shop.example.com/v1", ALLOW)
    assert (answer.verdict, answer.shares[0].verdict) == ("denied", "denied")


def test_policies_decide_before_routes() -> None:
    private = policy("DENY", to=[{"operation": {"paths": ["/v1*"]}}])
    answer = asked("http://shop.example.com/v1/a", private)
    assert answer.policy is not None
    assert (answer.verdict, answer.policy.rule, answer.route) == ("denied", "default/edge[0]", "")
    assert asked("http://shop.example.com/v2", private).verdict == "answered"


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
