"""A gateway shows requests to whom a policy with the action CUSTOM names."""

import pytest

from ambit.model.jwt import Target
from ambit.model.policy import Exact, Prefix
from ambit.model.provider import Authorizer, OverHttp, ProviderService
from ambit.model.request_policy import (
    Asked,
    Attribute,
    Clause,
    Condition,
    Match,
    RequestAction,
    RequestPolicy,
    Rule,
)
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import listener, to, to_edge
from tests.plan.gateway.conftest import Edge

pytestmark = [pytest.mark.envoy, pytest.mark.netns, pytest.mark.feature("N29")]

HOST = "two.default.svc.cluster.local"
WHOM = Asked(
    Authorizer("a", ProviderService(HOST, 80), http=OverHttp("/check", check=(Exact("x-want-status"),))),
    f"default/{HOST}",
)


def test_what_the_rules_match_is_shown_and_nothing_else(edge: Edge) -> None:
    secret = Condition(Attribute.PATH, (Prefix("/secret"),))
    rules = (Rule((Clause((Match((secret,)),)),)),)
    targets = (Target("Gateway", "default", "edge"),)
    custom = RequestPolicy("c", "default", RequestAction.CUSTOM, targets, rules, provider="a", asked=WHOM)
    routed = to_edge({"backendRefs": [to("one")]}, hostnames=["shop.example.com"])
    edge.apply(gateway(listener()), routed, authorization=(custom,))
    asked = edge.echoes["two"].seen
    asked.clear()
    assert (edge.get(path="/open").server, asked) == ("one", [])
    assert (edge.get(path="/secret").server, asked) == ("one", ["/check/secret"])
    assert edge.get(path="/secret", x_want_status="401").status == 401


def test_so_it_does_where_a_route_says_so(edge: Edge) -> None:
    http = {"path": "/check", "allowedHeaders": ["x-want-status"]}
    whom = {"protocol": "HTTP", "backendRef": to("two"), "http": http}
    filters = [{"type": "ExternalAuth", "externalAuth": whom}]
    secret = {"matches": [{"path": {"value": "/secret"}}], "filters": filters, "backendRefs": [to("one")]}
    routed = to_edge(secret, {"backendRefs": [to("one")]}, hostnames=["shop.example.com"])
    edge.apply(gateway(listener()), routed)
    asked = edge.echoes["two"].seen
    asked.clear()
    assert (edge.get(path="/open").server, asked) == ("one", [])
    assert (edge.get(path="/secret").server, asked) == ("one", ["/check/secret"])
    assert edge.get(path="/secret", x_want_status="401").status == 401
