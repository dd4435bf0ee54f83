"""What becomes of a request: waypoint, route, endpoints, from configuration alone."""

from typing import Any

import pytest
import yaml

from ambit.cli.confirmation import AGREES, DIFFERS, NONE, UNCLEAR, confirm_request
from ambit.cli.render.answer import request_lines
from ambit.core.errors import BadInput
from ambit.ingest.settings import MeshSettings
from ambit.insight.leading import RequestAnswer
from ambit.insight.manifests import Compiled, compile_objects
from ambit.insight.why import why
from ambit.insight.why_request import why_request
from ambit.model.provider import Authorizer, ProviderService
from tests.insight.test_why import ALLOW, PODS, pod

SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: %s, labels: {%s}}
spec: {clusterIP: 10.96.0.%d, selector: {app: %s}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""
WAYPOINT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
"""
BOUND = SERVICES % ("web", "istio.io/use-waypoint: way", 7, "web")
OTHER = SERVICES % ("second", "", 8, "second")
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web, port: 80}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /v1}, headers: [{name: x-tester, value: "yes"}]}]
    backendRefs: [{name: web, port: 80, weight: 3}, {name: second, port: 80, weight: 1}]
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, scheme: https}}]
  - matches: [{path: {type: Exact, value: /gone}}]
    backendRefs: [{name: nobody, port: 80}]
"""


def mesh(*texts: str, more: tuple[dict[str, Any], ...] = ()) -> Compiled:
    objects = [*PODS, pod("second-1", "10.244.1.9"), *more, *map(yaml.safe_load, texts)]
    authorizer = Authorizer("authz", ProviderService("second.default.svc.cluster.local", 80))
    settings = MeshSettings(authorizers=(authorizer,))
    return compile_objects((("test", each) for each in objects), settings)


ALL = (BOUND, OTHER, WAYPOINT, ROUTE)


def asked(
    url: str, *texts: str, source: str = "client", method: str = "GET", **headers: str
) -> RequestAnswer:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return why_request(source, method, url, mesh(*(texts or ALL)), headers=named)


def test_the_rule_that_it_meets_and_where_that_leads() -> None:
    answer = asked("http://web/v1/items?x=y", x_tester="yes")
    assert (answer.waypoint, answer.verdict) == ("default/way", "allowed")
    assert answer.route == "default/web/0"
    assert answer.met == "path below /v1, header x-tester=yes"
    assert "HTTPRoute" in answer.origin
    assert [(each.backend, each.percent) for each in answer.shares] == [
        ("default/web:80", 75.0),
        ("default/second:80", 25.0),
    ]
    (ruling,) = answer.shares[1].rulings
    assert (ruling.pod, ruling.port) == ("default/second-1", 8080)
    assert ruling.identity == "spiffe://cluster.local/ns/default/sa/way", "endpoints see the waypoint"


def test_endpoints_decide_about_the_waypoint_not_about_the_caller() -> None:
    answer = asked("http://web/v1", *ALL, ALLOW, x_tester="yes")
    assert [each.verdict for each in answer.shares] == ["denied", "allowed"]
    assert answer.verdict == "mixed"
    connection = why("client", "web:80", mesh(*ALL, ALLOW))
    assert (connection.verdict, connection.waypoint) == ("denied", "default/way")


def test_what_the_waypoint_answers_itself() -> None:
    none = asked("http://web/other")
    assert (none.verdict, none.route) == ("answered", "")
    assert none.reason == (
        "none of its rules matches: 404. They are default/web/2 (path /gone); default/web/1 (path /old); "
        "default/web/0 (path below /v1, header x-tester=yes)"
    )
    assert asked("http://web/old").reason == "redirected with 301"
    gone = asked("http://web/gone")
    (share,) = gone.shares
    assert (share.backend, share.reason) == (
        "nobody",
        "500; the status of its route: Service default/nobody does not exist, or is an ExternalName (BackendNotFound)",
    )


def test_without_a_route_the_services_own_endpoints_answer() -> None:
    answer = asked("http://web/", BOUND, WAYPOINT)
    assert (answer.verdict, answer.route) == ("allowed", "")
    assert [each.backend for each in answer.shares] == ["default/web:80"]


def test_without_a_waypoint_the_connection_is_what_is_decided_about() -> None:
    answer = asked("http://second/", *ALL, source="other")
    assert (answer.waypoint, answer.verdict) == ("", "allowed")
    assert answer.connection is not None
    assert answer.connection.rulings[0].identity.endswith("/sa/other")


def test_who_is_not_in_the_mesh_is_led_to_no_waypoint() -> None:
    assert asked("http://web/", source="stranger").waypoint == ""


def test_a_waypoint_that_is_not_there_refuses() -> None:
    answer = asked("http://web/", BOUND)
    assert (answer.verdict, answer.reason) == (
        "refused",
        "waypoint default/way is not there, and nobody is let past it",
    )


def test_why_a_waypoint_refuses_is_what_its_condition_says() -> None:
    """One of another namespace lets nobody in that its listener does not; somebody else's needs a Service."""
    there = {"name": "way", "namespace": "there"}
    bound = BOUND.replace("way}", "way, istio.io/use-waypoint-namespace: there}")
    closed = {**yaml.safe_load(WAYPOINT), "metadata": there}
    binding = {"ambient.istio.io/waypoint-inbound-binding": "PROXY/15088"}
    foreign = {**closed, "metadata": {**there, "annotations": binding}}
    foreign["spec"] = {**closed["spec"], "gatewayClassName": "acme"}
    for gateway, words in ((closed, "lets nobody of namespace default in"), (foreign, "no Service carries")):
        answer = asked("http://web/", bound, yaml.safe_dump(gateway))
        assert answer.verdict == "refused"
        assert answer.reason.startswith("waypoint there/way ") and words in answer.reason


def test_a_service_without_endpoints() -> None:
    empty = SERVICES % ("empty", "istio.io/use-waypoint: way", 9, "empty")
    answer = asked("http://empty/", empty, WAYPOINT)
    assert (answer.verdict, answer.shares[0].reason) == ("refused", "no healthy endpoint for port 80: 503")


@pytest.mark.parametrize("url", ["web/x", "http:///x", "ftp://web/", "http://web:99999/", "http://web:x/"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="URL"):
        asked(url)


def test_as_people_read_it() -> None:
    lines = list(request_lines(asked("http://web/v1", x_tester="yes")))
    assert "read by waypoint default/way" in lines
    assert any(each.startswith("meets rule default/web/0 of HTTPRoute") for each in lines)
    assert "75 % to default/web:80: allowed" in lines


def record(**more: Any) -> dict[str, Any]:
    request = {"method": "GET", "path": "/v1", "code": 200, "route": "default/web/0"}
    return {
        "time": 5.0,
        "proxy": "default/way",
        "source": {"address": "10.244.1.3:4", "namespace": "default", "workloadName": "client"},
        "request": request,
        **more,
    }


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([record()], AGREES),
        ([record(request={**record()["request"], "route": "default/web/0#1"})], AGREES),
        ([record(time=9.0, request={**record()["request"], "route": "default/web/2"}), record()], AGREES),
        ([record(request={**record()["request"], "route": "default/web/2"})], UNCLEAR),
        ([record(decision="deny", policy="default/p[0]")], UNCLEAR),
        ([record(destination={"service": "default/web.default.svc.cluster.local"})], AGREES),
        ([record(destination={"service": "default/second.default.svc.cluster.local"})], NONE),
        ([record(proxy="other/way")], NONE),
        ([record(source={"address": "10.0.0.9:1", "namespace": "shop", "workloadName": "client"})], NONE),
        ([record(request={**record()["request"], "method": "PUT"})], NONE),
    ],
)
def test_records_confirm_it(records: list[dict[str, Any]], found: str) -> None:
    assert confirm_request(asked("http://web/v1", x_tester="yes"), "/v1", records).records == found


def test_records_are_compared_where_no_header_counts() -> None:
    answer = asked("http://web/v1", *PLAIN)
    assert not answer.by_headers and asked("http://web/v1").by_headers
    other = record(time=9.0, decision="deny", policy="default/p[0]")
    assert confirm_request(answer, "/v1", [other, record()]).records == DIFFERS


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"error": "upstream connection termination"}, AGREES),
        ({}, DIFFERS),
        ({"decision": "deny", "policy": "default/p[0]"}, DIFFERS),
    ],
)
def test_what_endpoints_deny_the_waypoint_is_recorded_as_unanswered(more: dict[str, Any], found: str) -> None:
    """With 503, and without the policy, which the pod's node knows."""
    answer = asked("http://web/v1", BOUND, WAYPOINT, ALLOW)
    assert (answer.verdict, answer.waypoint) == ("denied", "default/way")
    unanswered = record(request={"method": "GET", "path": "/v1", "code": 503}, **more)
    assert confirm_request(answer, "/v1", [unanswered]).records == found


def test_a_host_that_was_given_is_compared() -> None:
    answer = asked("http://web/v1", x_tester="yes")
    named = record(request={**record()["request"], "host": "shop.example"})
    assert confirm_request(answer, "/v1", [named], "Shop.Example").records == AGREES
    assert confirm_request(answer, "/v1", [named], "web").records == NONE


def test_that_it_is_unclear_is_said() -> None:
    answer = asked("http://web/v1", x_tester="yes")
    unclear = confirm_request(
        answer, "/v1", [record(request={**record()["request"], "route": "default/web/2"})]
    )
    (line,) = (each for each in request_lines(answer, [unclear]) if each.startswith("records"))
    assert "records have no headers" in line and "DIFFERENT" not in line


INLINE = WAYPOINT.replace("ambit-waypoint", "ambit-inline")


def test_the_clients_own_node_proxy_reads_it() -> None:
    """Endpoints are asked as the client then."""
    answer = asked("http://web/v1", BOUND, OTHER, INLINE, ROUTE, x_tester="yes")
    assert (answer.waypoint, answer.connection, answer.verdict) == ("", None, "allowed")
    assert answer.route == "default/web/0"
    assert [(each.backend, each.percent) for each in answer.shares] == [
        ("default/web:80", 75.0),
        ("default/second:80", 25.0),
    ]
    identities = {ruling.identity for share in answer.shares for ruling in share.rulings}
    assert identities == {"spiffe://cluster.local/ns/default/sa/client"}
    assert any("own node proxy" in line for line in request_lines(answer))


def of_node(**more: Any) -> dict[str, Any]:
    """A record of the client's node."""
    source = {"address": "10.0.0.5:1", "namespace": "default", "workload": "client", "workloadName": "cli"}
    found = {**record(reporter="source", node="node1", source=source), **more}
    del found["proxy"]
    return found


@pytest.mark.parametrize(
    ("records", "found"),
    [
        ([of_node()], AGREES),
        ([of_node(reporter="destination")], NONE),
        ([record(reporter="waypoint")], NONE),
        ([of_node(source={**of_node()["source"], "workload": "client-2"})], NONE),
        ([of_node(request={**of_node()["request"], "route": "default/web/2"})], UNCLEAR),
    ],
)
def test_records_of_nodes_confirm_what_they_read(records: list[dict[str, Any]], found: str) -> None:
    answer = asked("http://web/v1", BOUND, OTHER, INLINE, ROUTE, x_tester="yes")
    assert confirm_request(answer, "/v1", records).records == found


@pytest.mark.parametrize("way", [WAYPOINT, INLINE])
def test_tls_is_no_request_where_requests_are_read(way: str) -> None:
    answer = asked("https://web:80/v1", BOUND, OTHER, way, ROUTE, x_tester="yes")
    assert (answer.verdict, answer.shares) == ("refused", ())
    first, *others = request_lines(answer)
    assert "REFUSED" in first
    assert any("speaks TLS (https) is not understood: port 80 speaks HTTP" in line for line in others)


def test_who_is_not_in_the_mesh_is_not_routed() -> None:
    answer = asked("http://web/v1", BOUND, OTHER, INLINE, ROUTE, source="10.9.9.9")
    assert answer.connection is not None and not answer.route


POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s}
spec: {action: %s, targetRefs: [{group: "%s", kind: %s, name: %s}], rules: [%s]}
"""
GATEWAYS = "gateway.networking.k8s.io"


def policy(
    action: str, *rules: str, name: str = "p", to: tuple[str, str, str] = ("", "Service", "web")
) -> str:
    return POLICY % (name, action, *to, ", ".join(rules))


CLIENT = "{from: [{source: {serviceAccounts: [client]}}]}"
POSTS = "{to: [{operation: {methods: [POST]}}]}"
TOKEN = '{from: [{source: {requestPrincipals: ["*"]}}], to: [{operation: {methods: [GET]}}]}'
NO_TOKEN = '{from: [{source: {notRequestPrincipals: ["*"]}}]}'
PLAIN = (BOUND, OTHER, WAYPOINT)


def ruled(
    *texts: str, url: str = "http://web/v1", method: str = "GET", **headers: str
) -> tuple[str, str, str]:
    answer = asked(url, *PLAIN, *texts, method=method, **headers)
    assert answer.policy is not None
    assert (answer.verdict == "denied") is (answer.policy.verdict == "denied") is not answer.shares
    return answer.policy.verdict, answer.policy.rule, answer.policy.token


def test_a_request_that_a_policy_of_its_waypoint_denies_goes_nowhere() -> None:
    answer = asked("http://web/v1", *ALL, policy("DENY", POSTS), method="POST", x_tester="yes")
    assert (answer.verdict, answer.waypoint, answer.route, answer.shares) == ("denied", "default/way", "", ())
    assert answer.policy is not None
    assert (answer.policy.rule, answer.policy.policies) == ("default/p[0]", ("default/p",))
    assert answer.policy.without == "allowed, no allow policy applies"
    assert answer.policy.identity.endswith("/sa/client"), "the waypoint sees who called"
    lines = list(request_lines(answer))
    assert lines[2:] == [
        "  asked as cluster.local/ns/default/sa/client",
        "  denied by default/p[0]",
        "  without that rule it would be allowed, no allow policy applies",
        "  policies that apply: default/p",
    ]


def test_the_rule_that_came_nearest_is_told_with_what_it_lacks() -> None:
    """Of a request that is denied the ALLOW rule, of one that is allowed the DENY rule."""
    other = "{to: [{operation: {methods: [GET], paths: [/v2], hosts: [other]}}]}"
    denied = asked("http://web/v1", *ALL, policy("ALLOW", other, POSTS))
    assert denied.policy is not None
    assert "  nearest ALLOW rule: default/p[1], but methods must be POST, here GET" in request_lines(denied)
    allowed = asked("http://web/v1", *ALL, policy("DENY", "{to: [{operation: {notPaths: [/v1]}}]}"))
    lines = list(request_lines(allowed))
    assert "  nearest DENY rule: default/p[0], but it is for all but /v1 (notPaths), here is /v1" in lines
    both = asked("http://web/v1", *ALL, policy("DENY", "{}"), policy("ALLOW", "{}", name="q"))
    assert "  nearest ALLOW rule: default/q[0], which holds, but DENY goes first" in request_lines(both)
    bare = asked("http://web/v1", *ALL)
    assert bare.policy is None or bare.policy.nearest is None


@pytest.mark.parametrize(
    ("rules", "asking", "found"),
    [
        (("ALLOW", CLIENT), {}, ("allowed", "default/p[0]", "")),
        (("ALLOW", CLIENT.replace("client", "other")), {}, ("denied", "default/p", "")),
        (("ALLOW", "{to: [{operation: {paths: [/v1]}}]}"), {}, ("allowed", "default/p[0]", "")),
        (("ALLOW", '{to: [{operation: {paths: ["/v2/*"]}}]}'), {}, ("denied", "default/p", "")),
        (("ALLOW", "{to: [{operation: {hosts: [web]}}]}"), {}, ("allowed", "default/p[0]", "")),
        (
            ("DENY", "{to: [{operation: {hosts: [other]}}]}"),
            {"host": "other"},
            ("denied", "default/p[0]", ""),
        ),
        (
            ("DENY", '{when: [{key: "request.headers[x-a]", values: [b]}]}'),
            {"x_a": "b"},
            ("denied", "default/p[0]", ""),
        ),
        (("DENY", '{to: [{operation: {ports: ["80"]}}]}'), {}, ("denied", "default/p[0]", "")),
        (("DENY", "{from: [{source: {ipBlocks: [10.244.1.3]}}]}"), {}, ("denied", "default/p[0]", "")),
        (
            ("DENY", "{from: [{source: {remoteIpBlocks: [192.0.2.7]}}]}"),
            {"x_forwarded_for": "192.0.2.9, 192.0.2.7"},
            ("denied", "default/p[0]", ""),
        ),
        (
            ("DENY", "{when: [{key: destination.ip, values: [10.96.0.7]}]}"),
            {},
            ("denied", "default/p[0]", ""),
        ),
        (("ALLOW", TOKEN), {}, ("denied", "default/p", "default/p[0] needs a valid token")),
        (("ALLOW", POSTS, TOKEN), {"method": "PUT"}, ("denied", "default/p", "")),
        (("DENY", NO_TOKEN), {}, ("denied", "default/p[0]", "default/p[0] needs a valid token")),
        (
            ("DENY", '{when: [{key: "request.auth.claims[group]", values: [guests]}]}'),
            {},
            ("allowed", "", "default/p[0] may deny it with a valid token"),
        ),
    ],
)
def test_policies_see_all_of_the_request(
    rules: tuple[str, ...], asking: dict[str, str], found: tuple[str, str, str]
) -> None:
    assert ruled(policy(*rules), **asking) == found


def test_only_policies_of_what_is_asked_for_count() -> None:
    assert ruled(policy("DENY", "{}", to=("", "Service", "second"))) == ("allowed", "", "")
    assert ruled(policy("DENY", "{}", to=(GATEWAYS, "Gateway", "way")))[0] == "denied"
    assert ruled(policy("AUDIT", "{}"))[0] == "allowed"


def test_a_dry_run_is_told() -> None:
    dry = policy("DENY", "{}").replace("name: p}", 'name: p, annotations: {istio.io/dry-run: "true"}}', 1)
    answer = asked("http://web/v1", *PLAIN, dry)
    assert (answer.verdict, answer.policy and answer.policy.dry_run) == ("allowed", "denied by default/p[0]")


def custom(*rules: str, provider: str = "authz", to: tuple[str, str, str] = ("", "Service", "web")) -> str:
    given = policy("CUSTOM", *rules, to=to)
    return given.replace("spec: {", f"spec: {{provider: {{name: {provider}}}, ", 1)


@pytest.mark.parametrize("to", [("", "Service", "web"), (GATEWAYS, "Gateway", "way")])
def test_custom_asks_somebody_rather_than_to_decide(to: tuple[str, str, str]) -> None:
    posts = custom(POSTS, to=to)
    answer = asked("http://web/v1", *PLAIN, posts, method="POST")
    assert answer.policy is not None
    assert (answer.verdict, answer.policy.asks) == ("asked", ("provider authz by default/p[0]",))
    assert list(request_lines(answer))[3:5] == [
        "  asks provider authz by default/p[0]",
        "  if it may: allowed: no allow policy applies",
    ]
    assert ruled(posts) == ("allowed", "", "")
    denied = policy("DENY", POSTS, name="d")
    assert ruled(posts, denied, method="POST") == ("denied", "default/d[0]", "")


def test_so_do_pods_where_there_is_no_proxy_between() -> None:
    for url in ("http://web/v1", "http://10.244.1.2:8080/v1"):
        answer = asked(url, BOUND, OTHER, INLINE, custom(POSTS), method="POST")
        [ruling] = [*answer.shares[0].rulings] if answer.shares else answer.connection.rulings  # type: ignore[union-attr]
        assert (answer.verdict, ruling.asks) == ("asked", ("provider authz by default/p[0]",)), url
        assert "asks provider authz by default/p[0]" in [each.strip() for each in request_lines(answer)]


def test_nobody_to_ask_denies() -> None:
    answer = asked("http://web/v1", *PLAIN, custom("{}", provider="nobody"))
    assert answer.policy is not None
    assert (answer.verdict, answer.policy.rule, answer.policy.asks) == ("denied", "default/p[0]", ())
    assert any("nobody can be" in line for line in request_lines(answer))


def test_what_is_audited() -> None:
    answer = asked("http://web/v1", *PLAIN, policy("AUDIT", "{}"))
    assert (answer.verdict, answer.policy and answer.policy.audited) == ("allowed", ("default/p[0]",))


def test_a_policy_closes_a_service_without_waypoint() -> None:
    bare = asked("http://second/", *PLAIN, policy("DENY", POSTS, to=("", "Service", "second")))
    assert (bare.verdict, bare.reason) == (
        "refused",
        "it is closed: default/p is for it, and it has no waypoint",
    )


def test_pods_decide_where_there_is_no_proxy_between() -> None:
    given = (BOUND, OTHER, INLINE, policy("DENY", POSTS))
    for url in ("http://web/v1", "http://10.244.1.2:8080/v1"):
        read, written = asked(url, *given), asked(url, *given, method="POST")
        assert (read.verdict, written.verdict) == ("allowed", "denied"), url
        rulings = [*written.shares[0].rulings] if written.shares else []
        [ruling] = rulings or (written.connection.rulings if written.connection else ())
        assert (ruling.pod, ruling.rule) == ("default/web-1", "default/p[0]")
        said = [each.strip() for each in request_lines(written)]
        assert "denied by default/p[0]" in said
        assert "no rule would decide otherwise" not in said, "no policy allows anything"
        said = [each.strip() for each in request_lines(read)]
        assert "nearest DENY rule: default/p[0], but methods must be POST, here GET" in said


def test_what_routes_change_before_pods_see_it_closes_the_service() -> None:
    rewrites = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rewrites}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-role]}}]
    backendRefs: [{name: web, port: 80}]
"""
    rule = "{when: [{key: 'request.headers[x-role]', values: [admin]}]}"
    answer = asked("http://web/v1", BOUND, OTHER, INLINE, rewrites, policy("DENY", rule))
    assert answer.verdict == "refused"
    assert answer.reason == (
        "it is closed: default/p looks at x-role, which a route of the service changes before pods see it"
    )


def test_tokens_that_cannot_be_read_let_no_request_in() -> None:
    broken = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: broken}
spec: {targetRefs: [{group: "", kind: Service, name: web}], jwtRules: 5}
"""
    answer = asked("http://web/v1", *PLAIN, broken)
    assert answer.verdict == "denied"
    assert answer.policy is not None and "default/broken" in answer.policy.reason


BYTES = BOUND.replace("name: http, port: 80", "name: tcp, port: 80")


def test_connections_of_bytes_meet_policies_when_they_are_opened() -> None:
    """What is for requests counts there as it harms most."""
    answer = asked("http://web/v1", BYTES, WAYPOINT, policy("DENY", POSTS))
    assert (answer.verdict, answer.waypoint) == ("denied", "default/way")
    assert answer.connection is not None
    assert [each.rule for each in answer.connection.rulings] == ["default/p[0]"]
    assert why("client", "web:80", mesh(BYTES, WAYPOINT, policy("ALLOW", CLIENT))).verdict == "allowed"


TAKES_PODS = WAYPOINT.replace("name: way}", "name: way, labels: {istio.io/waypoint-for: all}}", 1)
BOUND_POD = pod("pod-1", "10.244.1.20", labels={"app": "pod", "istio.io/use-waypoint": "way"})
OF_POD = SERVICES % ("pods", "", 20, "pod")


def test_a_pod_behind_a_waypoint_is_asked_the_same() -> None:
    def verdict(port: int, *texts: str) -> tuple[str, str]:
        compiled = mesh(TAKES_PODS, OF_POD, *texts, more=(BOUND_POD,))
        answer = why_request("client", "POST", f"http://10.244.1.20:{port}/", compiled)
        return answer.verdict, answer.policy.rule if answer.policy else ""

    to_way = policy("DENY", POSTS, to=(GATEWAYS, "Gateway", "way"))
    assert verdict(8080) == ("allowed", "")
    assert verdict(8080, to_way) == ("denied", "default/p[0]")
    assert verdict(8080, policy("DENY", CLIENT.replace("client", "other"), to=(GATEWAYS, "Gateway", "way")))[
        0
    ] == ("allowed")
    assert verdict(9090, to_way) == ("denied", ""), "nobody reads it there, so the method is not seen"


def test_a_record_of_a_denial_names_the_same_rule() -> None:
    answer = asked("http://web/v1", *PLAIN, policy("DENY", "{}"))
    denials = [record(decision="deny", policy=f"default/{name}[0]") for name in ("p", "q")]
    assert [confirm_request(answer, "/v1", [each]).records for each in denials] == [AGREES, DIFFERS]


def test_so_does_one_of_a_denial_where_pods_are() -> None:
    answer = asked("http://web/v1", BOUND, OTHER, INLINE, policy("DENY", "{}"))
    denials = [of_node(decision="deny", policy=f"default/{name}[0]") for name in ("p", "q")]
    assert confirm_request(answer, "/v1", denials[:1]).node == "node1"
    assert [confirm_request(answer, "/v1", [each]).records for each in denials] == [AGREES, DIFFERS]
