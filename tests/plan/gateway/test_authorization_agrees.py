"""For random policies, clients and requests a gateway's Envoy decides as `ambit.policy.requests` does."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.model.jwt import Target
from ambit.model.policy import ServiceAccountMatch
from ambit.model.request_policy import (
    Attribute,
    Clause,
    Condition,
    Match,
    RequestAction,
    RequestPolicy,
    Rule,
)
from ambit.policy.requests import Request, RequestFacts, decide_request
from tests.ingest.build import service
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import listener, roots, route, to, to_edge
from tests.ingest.gateway.pairs import Authority, https, secret
from tests.plan.dataplane.network import REFUSED
from tests.plan.gateway.conftest import TARGET, Edge
from tests.plan.gateway.test_clients import believing
from tests.plan.gateway.test_https import AUTHORITY, client_context
from tests.plan.waypoint import test_authorization_agrees as at_waypoints
from tests.plan.waypoint.echo import connection
from tests.plan.waypoint.test_authorization_agrees import HEADERS, METHODS, PATHS, REMOTES, texts
from tests.soak import fuzz, long

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

A = Attribute
FRIENDS = Authority("friends")
CLIENT, OTHER = (f"spiffe://cluster.local/ns/default/sa/{each}" for each in ("client", "other"))
PARTNER = "spiffe://partners.example/billing"
CALLERS = (CLIENT, OTHER, PARTNER, "")
HELLOS = ("web", "A.web", "")
HOSTS = ("web", "WEB", "web:81", "web.", "a.web", "other")
PLAIN, SECURE, BYTES = 80, 443, 9000
VALUES: dict[Attribute, st.SearchStrategy[Any]] = {
    **at_waypoints.VALUES,
    A.PRINCIPAL: texts(*(each.removeprefix("spiffe://") for each in (CLIENT, OTHER, PARTNER))),
    A.TRUST_DOMAIN: texts("cluster.local", "partners.example"),
    A.SERVICE_ACCOUNT: st.sampled_from(
        [ServiceAccountMatch("default", each) for each in ("client", "other")]
    ),
    A.PORT: st.sampled_from([PLAIN, SECURE, BYTES]),
    A.SNI: texts("web", "a.web", "A.web"),
}
NAMES = {**at_waypoints.NAMES, A.SNI: ("connection.sni",), A.UNSEEN: ("experimental.envoy.filters.a",)}


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    attribute = draw(st.sampled_from(list(VALUES)))
    values = st.lists(VALUES[attribute], max_size=2, unique=True).map(tuple)
    return Condition(attribute, draw(values), draw(values), NAMES.get(attribute, ()))


matches = st.lists(conditions(), max_size=2).map(lambda found: Match(tuple(found)))
clauses = st.lists(matches, max_size=2).map(lambda found: Clause(tuple(found)))
rules = st.lists(clauses, max_size=2).map(lambda found: Rule(tuple(found)))
actions = st.sampled_from([RequestAction.ALLOW, RequestAction.DENY])
policies = st.lists(
    st.tuples(actions, st.lists(rules, max_size=2), st.booleans()), min_size=1, max_size=3
).map(
    lambda given: tuple(
        RequestPolicy(f"p{i}", "default", action, (Target("Gateway", "default", "edge"),), tuple(found), dry)
        for i, (action, found, dry) in enumerate(given)
    )
)
requests = st.tuples(*map(st.sampled_from, (METHODS, HOSTS, PATHS, HEADERS, REMOTES)))
by_tls = st.tuples(st.sampled_from(CALLERS), st.sampled_from(HELLOS))


@pytest.mark.soak
@pytest.mark.timeout(long(600, 3600))
@given(
    policies=policies,
    requests=st.lists(requests, min_size=3, max_size=6, unique=True),
    callers=st.lists(by_tls | st.none(), min_size=2, max_size=3, unique=True),
)
@fuzz(8)
def test_envoy_decides_as_the_reference(
    edge: Edge,
    tmp_path: Path,
    policies: tuple[RequestPolicy, ...],
    requests: list[tuple[str, str, str, Any, Any]],
    callers: list[tuple[str, str] | None],
) -> None:
    serve(edge, policies)
    listening = edge.servers["one"].listen(BYTES, lambda client, _: client.sendall(client.recv(10)))
    try:
        is_served = edge.client.ask(edge.host.four, BYTES) != REFUSED
    finally:
        listening.close()
    assert is_served is decide_request(policies, facts(edge, BYTES)).decision.allowed
    for caller in callers:
        for asked in requests:
            method, host, path, header, remote = asked
            headers = {
                "host": host,
                **({"x-a": header} if header is not None else {}),
                **({"x-forwarded-for": remote} if remote is not None else {}),
            }
            with connection(connected(edge, tmp_path, caller), host) as client:
                client.request(method, path, headers=headers)
                status = client.getresponse().status
            request = Request(method, host, path, {"x-a": header} if header is not None else {})
            seen = facts(edge, SECURE if caller else PLAIN, caller, remote, request)
            expected = 200 if decide_request(policies, seen).decision.allowed else 403
            assert status == expected, (caller, asked)


def serve(edge: Edge, policies: tuple[RequestPolicy, ...]) -> None:
    topology = {"proxy.istio.io/config": "gatewayTopology: {numTrustedProxies: 1}"}
    edge.apply(
        roots("friends", FRIENDS.root),
        secret("a", AUTHORITY.pair("web")),
        gateway(
            listener(port=PLAIN),
            https("https", "a", port=SECURE),
            listener("bytes", BYTES, "TCP"),
            tls={"frontend": {"default": believing("friends")}},
            infrastructure={"annotations": topology},
        ),
        to_edge({"backendRefs": [to("one")]}, parents=({"sectionName": "http"}, {"sectionName": "https"})),
        service("bytes", {"app": "one"}, ip="10.96.7.98", port=BYTES, target=BYTES),
        route({"backendRefs": [to("bytes", BYTES)]}, name="b", parents=({"name": "edge"},), kind="tcproutes"),
        authorization=policies,
    )
    assert TARGET != BYTES


def connected(edge: Edge, directory: Path, caller: tuple[str, str] | None) -> Any:
    """A connection in plain text, or by TLS as who is given, with this name in the hello."""
    if caller is None:
        return edge.client.connect(edge.host.four, PLAIN)
    uri, hello = caller
    pair = FRIENDS.pair("client", uris=[uri] if uri else [])
    (directory / "client.pem").write_text(pair.chain + pair.key)
    context = client_context()
    context.load_cert_chain(directory / "client.pem")
    context.check_hostname = False
    return context.wrap_socket(edge.client.connect(edge.host.four, SECURE), server_hostname=hello or None)


def facts(
    edge: Edge,
    port: int,
    caller: tuple[str, str] | None = None,
    remote: str | None = None,
    request: Request | None = None,
) -> RequestFacts:
    uri, hello = caller or ("", "")
    is_ours = uri in (CLIENT, OTHER)
    return RequestFacts(
        source=edge.client.four,
        port=port,
        destination=edge.host.four,
        identity=Identity.parse(uri) if is_ours else None,
        principal="" if is_ours else uri.removeprefix("spiffe://"),
        remote=ipaddress.ip_address(remote) if remote is not None else None,
        request=request,
        server_name=hello,
    )
