"""What a rule about requests lacks, against `decide_request` and in words."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.model.policy import Exact, Prefix, ServiceAccountMatch
from ambit.model.request_policy import (
    NEVER,
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
from ambit.policy.nearest import Miss
from ambit.policy.nearest_request import NearRequestRule, misses, nearest_request
from ambit.policy.requests import Request, RequestFacts, matching_rule

ALLOW, DENY = RequestAction.ALLOW, RequestAction.DENY
ADDRESS, OTHER = ipaddress.ip_address("10.0.0.5"), ipaddress.ip_network("10.0.0.9")
REQUEST = Request(
    "POST",
    "web:80",
    "/admin?q",
    {"x-a": "b"},
    {"iss": "https://i", "sub": "ann", "groups": ["one", "two"]},
)
FACTS = RequestFacts(
    ADDRESS, 80, None, Identity("cluster.local", "shop", "web"), request=REQUEST, server_name="web"
)
BYTES = RequestFacts(ADDRESS, 80)

_VALUES: dict[Attribute, tuple[Value, ...]] = {
    Attribute.PRINCIPAL: (Exact("cluster.local/ns/shop/sa/web"), Prefix("other")),
    Attribute.NAMESPACE: (Exact("shop"), Exact("other")),
    Attribute.SERVICE_ACCOUNT: (ServiceAccountMatch("shop", "web"), ServiceAccountMatch("shop", "other")),
    Attribute.TRUST_DOMAIN: (Exact("cluster.local"), Exact("other")),
    Attribute.SOURCE_IP: (ipaddress.ip_network("10.0.0.0/24"), OTHER),
    Attribute.REMOTE_IP: (ipaddress.ip_network("10.0.0.0/24"), OTHER),
    Attribute.DESTINATION_IP: (OTHER,),
    Attribute.PORT: (80, 81),
    Attribute.HOST: (Exact("web"), Exact("other")),
    Attribute.METHOD: (Exact("POST"), Exact("post"), Exact("GET")),
    Attribute.PATH: (Exact("/admin"), PathTemplate("/{*}"), Exact("/other")),
    Attribute.HEADER: (Exact("b"), Exact("c")),
    Attribute.REQUEST_PRINCIPAL: (Exact("https://i/ann"), Exact("other")),
    Attribute.CLAIM: (Exact("two"), Exact("three")),
    Attribute.SNI: (Exact("web"), Exact("other")),
    Attribute.UNSEEN: (Exact("x"),),
}
_NAMES = {Attribute.HEADER: ("x-a",), Attribute.CLAIM: ("groups",)}


def condition(attribute: Attribute, *values: Value, unwanted: tuple[Value, ...] = ()) -> Condition:
    return Condition(attribute, values, unwanted, _NAMES.get(attribute, ()))


def _some(attribute: Attribute) -> st.SearchStrategy[Condition]:
    values = st.lists(st.sampled_from(_VALUES[attribute]), max_size=2).map(tuple)
    return st.builds(lambda some, none: condition(attribute, *some, unwanted=none), values, values)


conditions = st.sampled_from(list(Attribute)).flatmap(_some)
matches = st.lists(conditions, max_size=3).map(lambda each: Match(tuple(each)))
clauses = st.lists(matches, max_size=2).map(lambda each: Clause(tuple(each)))
rules = st.lists(clauses, max_size=3).map(lambda each: Rule(tuple(each)))


def policy(
    *given: Rule, action: RequestAction = ALLOW, name: str = "p", dry_run: bool = False
) -> RequestPolicy:
    return RequestPolicy(name, "shop", action, (), given, dry_run)


@given(rules, st.sampled_from([ALLOW, DENY]), st.sampled_from([FACTS, BYTES]))
def test_a_rule_lacks_nothing_exactly_when_it_holds(
    rule: Rule, action: RequestAction, facts: RequestFacts
) -> None:
    holds = matching_rule(policy(rule, action=action), facts) == 0
    assert (not misses(rule, action, facts)) == holds


def one(*given: Condition) -> Rule:
    return Rule((Clause((Match(given),)),))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (condition(Attribute.METHOD, Exact("GET")), Miss("methods", ("GET",), "POST")),
        (condition(Attribute.METHOD, unwanted=(Exact("POST"),)), Miss("notMethods", ("POST",), "POST")),
        (condition(Attribute.PATH, Prefix("/v1")), Miss("paths", ("/v1*",), "/admin")),
        (condition(Attribute.PATH, PathTemplate("/a/{*}")), Miss("paths", ("/a/{*}",), "/admin")),
        (condition(Attribute.HOST, Exact("a"), Exact("b")), Miss("hosts", ("a", "b"), "web:80")),
        (condition(Attribute.HEADER, Exact("c")), Miss("request.headers[x-a]", ("c",), "b")),
        (
            condition(Attribute.HEADER, unwanted=(Exact("b"),)),
            Miss("not request.headers[x-a]", ("b",), "b"),
        ),
        (
            condition(Attribute.CLAIM, Exact("three")),
            Miss("request.auth.claims[groups]", ("three",), "one, two"),
        ),
        (
            condition(Attribute.REQUEST_PRINCIPAL, Exact("x")),
            Miss("requestPrincipals", ("x",), "https://i/ann"),
        ),
        (condition(Attribute.PORT, 81), Miss("ports", ("81",), "80")),
        (condition(Attribute.SOURCE_IP, OTHER), Miss("ipBlocks", ("10.0.0.9/32",), "10.0.0.5")),
        (condition(Attribute.REMOTE_IP, OTHER), Miss("remoteIpBlocks", ("10.0.0.9/32",), "10.0.0.5")),
        (condition(Attribute.DESTINATION_IP, OTHER), Miss("destination.ip", ("10.0.0.9/32",), "")),
        (
            condition(Attribute.PRINCIPAL, Exact("x")),
            Miss("principals", ("x",), "cluster.local/ns/shop/sa/web"),
        ),
        (
            condition(Attribute.SERVICE_ACCOUNT, ServiceAccountMatch("shop", "x")),
            Miss("serviceAccounts", ("shop/x",), "shop/web"),
        ),
        (condition(Attribute.NAMESPACE, Exact("x")), Miss("namespaces", ("x",), "shop")),
        (condition(Attribute.TRUST_DOMAIN, Exact("x")), Miss("trustDomains", ("x",), "cluster.local")),
        (condition(Attribute.SNI, Exact("x")), Miss("connection.sni", ("x",), "web")),
        (condition(Attribute.UNSEEN, Exact("x")), Miss("what nobody here can see", ("x",), "")),
    ],
)
def test_what_fails_is_named_as_in_the_policy(given: Condition, told: Miss) -> None:
    assert misses(one(given), ALLOW, FACTS) == (told,)


def test_what_nothing_meets_has_no_field() -> None:
    assert misses(NEVER, ALLOW, FACTS) == (Miss("", (), ""),)


def test_who_has_no_identity_and_asks_for_nothing_has_nothing_to_compare() -> None:
    rule = one(condition(Attribute.PRINCIPAL, Exact("x")), condition(Attribute.METHOD, Exact("GET")))
    assert misses(rule, ALLOW, BYTES) == (Miss("principals", ("x",), ""), Miss("methods", ("GET",), ""))


def test_the_rule_that_lacks_least_is_nearest() -> None:
    far = one(condition(Attribute.METHOD, Exact("GET")), condition(Attribute.PORT, 81))
    near = one(condition(Attribute.PATH, Exact("/other")))
    lacking = (Miss("paths", ("/other",), "/admin"),)
    given = [policy(far, near, name="b"), policy(near, name="c"), policy(near, name="a", dry_run=True)]
    assert nearest_request(given, ALLOW, FACTS) == NearRequestRule("shop/b[1]", ALLOW, lacking)
    assert nearest_request(given, DENY, FACTS) is None
