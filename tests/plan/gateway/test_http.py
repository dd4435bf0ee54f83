"""Requests in plain text at a gateway: which listener and which route answers, and what backends see."""

import pytest

from ambit.envoy.http import taken_headers
from ambit.envoy.refusals import HEADER
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import grpc_route, listener, to, to_edge
from tests.plan.gateway.conftest import Edge
from tests.plan.waypoint.echo import ask

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

ONE, TWO = {"backendRefs": [to("one")]}, {"backendRefs": [to("two")]}


def test_a_route_leads_to_its_backend(edge: Edge) -> None:
    edge.apply(gateway(), to_edge(ONE))
    answer = edge.get("any.host", "/a?b=c")
    assert (answer.server, answer.echo["path"], answer.echo["headers"]["host"]) == (
        "one",
        "/a?b=c",
        ["any.host"],
    )


def test_a_listener_without_routes_answers_with_404(edge: Edge) -> None:
    edge.apply(gateway())
    assert edge.said("any.host") == "404"


def test_nobody_tells_a_backend_who_he_is(edge: Edge) -> None:
    """What clients say of their way, and of certificates, is not passed on as if it were seen."""
    edge.apply(gateway(), to_edge(ONE))
    answer = edge.get(
        x_forwarded_client_cert="URI=spiffe://cluster.local/ns/a/sa/b",
        x_forwarded_proto="https",
        x_envoy_retry_on="5xx",
    )
    headers = answer.echo["headers"]
    assert "x-forwarded-client-cert" not in headers and "x-envoy-retry-on" not in headers
    assert headers["x-forwarded-proto"] == ["http"]
    assert headers["x-forwarded-for"] == [str(edge.client.four)]


@pytest.mark.parametrize(
    "header",
    [
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-envoy-external-address",
        "x-envoy-internal",
    ],
)
def test_nor_by_a_header_that_only_reads_the_same(edge: Edge, header: str) -> None:
    """What Envoy itself says of them is said once, to servers that read `_` for `-` as well."""
    edge.apply(gateway(), to_edge(ONE))
    lies = dict.fromkeys(taken_headers.lookalikes(header), "said by the client")
    got = ask(edge.client.connect(edge.host.four, 80), host="any", headers=lies | {"x_own": "1"}).echo[
        "headers"
    ]
    assert got["x_own"] == ["1"]
    assert "said by the client" not in str(got)


def test_what_proxies_say_to_each_other_is_no_clients_to_say(edge: Edge) -> None:
    edge.apply(gateway(), to_edge(ONE))
    got = edge.get(x_ambit_question="1", x_ambit_reason="denied", x_ambit_own="1").echo["headers"]
    assert [each for each in got if each.startswith("x-ambit")] == ["x-ambit-own"]


def test_why_a_proxy_behind_it_refused_is_nobodys_business(edge: Edge) -> None:
    """The header of waypoints is in no answer, whoever gave it, whatever its route adds."""
    added = {"set": [{"name": HEADER, "value": "x"}]}
    adding = {"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": added}]}
    edge.apply(gateway(), to_edge({"matches": [{"path": {"value": "/added"}}], **ONE, **adding}, ONE))
    for path in ("/", "/added"):
        answer = edge.get(path=path, x_want_header=HEADER)
        assert (answer.server, answer.header(HEADER)) == ("one", None)
    assert edge.get(x_want_header="x-other").header("x-other") == "said"
    assert edge.get(path="/", x_want_status="403", x_want_header=HEADER).header(HEADER) is None


def test_the_most_specific_listener_alone_answers(edge: Edge) -> None:
    """GatewayHTTPListenerIsolation of the conformance suite, in small: of listeners on one port, whatever host names
    routes on the others have."""
    hosts = {
        "any": "",
        "wide": "*.example.com",
        "narrow": "*.foo.example.com",
        "exact": "abc.foo.example.com",
    }
    listeners = [
        listener(name, **({"hostname": hostname} if hostname else {})) for name, hostname in hosts.items()
    ]
    routes = [
        to_edge(
            {"matches": [{"path": {"value": f"/{name}"}}], **ONE},
            name=name,
            parents=({"sectionName": name},),
            hostnames=[
                "bar.com",
                "a.example.com",
                "b.foo.example.com",
                "abc.foo.example.com",
                "*.example.com",
            ],
        )
        for name in hosts
    ]
    edge.apply(gateway(*listeners), *routes)
    for host, own in {
        "bar.com": "any",
        "a.example.com": "wide",
        "z.example.com": "wide",
        "b.foo.example.com": "narrow",
        "abc.foo.example.com": "exact",
    }.items():
        answers = {name: edge.said(host, f"/{name}") for name in hosts}
        assert answers == {name: "one" if name == own else "404" for name in hosts}, host


def test_the_port_of_the_host_header_means_nothing(edge: Edge) -> None:
    edge.apply(gateway(listener(hostname="shop.example.com")), to_edge(ONE))
    assert edge.said("shop.example.com:8080") == "one"
    assert edge.said("other.example.com") == "404"


def test_rules_of_the_more_specific_host_go_first_and_those_of_others_still_count(edge: Edge) -> None:
    wide = to_edge(
        {"matches": [{"path": {"type": "Exact", "value": "/a"}}], **ONE}, ONE, hostnames=["*.x.com"]
    )
    exact = to_edge({"matches": [{"path": {"value": "/a"}}], **TWO}, name="z", hostnames=["a.x.com"])
    edge.apply(gateway(), wide, exact)
    assert [edge.said("a.x.com", path) for path in ("/a", "/b")] == ["two", "one"]
    assert edge.said("b.x.com", "/a") == "one"


def test_ports_have_routes_of_their_own(edge: Edge) -> None:
    listeners = (listener(), listener("other", 8080))
    edge.apply(
        gateway(*listeners),
        to_edge(ONE, parents=({"port": 80},)),
        to_edge(TWO, name="second", parents=({"port": 8080},)),
    )
    assert (edge.said("a", port=80), edge.said("a", port=8080)) == ("one", "two")


def test_a_redirect_names_the_listeners_port(edge: Edge) -> None:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "new.example.com"}}
    edge.apply(gateway(listener(port=8080)), to_edge({"filters": [redirect]}))
    assert edge.get(port=8080).header("location") == "http://new.example.com:8080/"


def test_a_call_that_no_route_has_is_unimplemented(edge: Edge) -> None:
    edge.apply(gateway(), grpc_route(ONE, parents=({"name": "edge"},), hostnames=["other.com"]))
    answer = edge.get(content_type="application/grpc", te="trailers")
    assert (answer.status, answer.header("grpc-status")) == (200, "12")


def test_a_gateway_that_a_policy_is_for_lets_nobody_in(edge: Edge) -> None:
    """Until gateways enforce policies."""
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    policy = (
        "authorizationpolicies.security.istio.io",
        {
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"action": "DENY", "targetRefs": [target], "rules": [{}]},
        },
    )
    edge.apply(gateway(), to_edge(ONE), policy)
    assert edge.said("any.host") == "403"
    edge.apply(gateway(), to_edge(ONE))
    assert edge.said("any.host") == "one"


def test_both_families_are_served(edge: Edge) -> None:
    edge.apply(gateway(), to_edge(ONE))
    with edge.client.connect(edge.host.six, 80) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
