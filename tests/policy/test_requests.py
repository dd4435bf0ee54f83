"""What policy for requests means: `ambit.policy.requests`."""

import ipaddress
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from ambit.core.identity import Identity
from ambit.model.policy import Exact, Prefix, Presence, ServiceAccountMatch, Suffix
from ambit.model.provider import Authorizer, ProviderService
from ambit.model.request_policy import (
    NEVER,
    Asked,
    Attribute,
    Clause,
    Condition,
    Match,
    RequestAction,
    RequestPolicy,
    Rule,
    Value,
)
from ambit.policy.decide import Decision, Reason
from ambit.policy.requests import Question, Request, RequestFacts, decide_request

CUSTOM, DENY, ALLOW, AUDIT = RequestAction
FACTS = RequestFacts(
    source=ipaddress.ip_address("10.0.0.1"),
    port=80,
    destination=ipaddress.ip_address("10.96.0.1"),
    identity=Identity("td", "ns", "sa"),
    request=Request("GET", "web:80", "/a?b", {"x-a": "1"}, {"iss": "me/x", "sub": "you", "aud": ["a", "b"]}),
)


def one(
    attribute: Attribute, *values: Value, unwanted: Iterable[Value] = (), name: tuple[str, ...] = ()
) -> Rule:
    return Rule((Clause((Match((Condition(attribute, values, tuple(unwanted), name),)),)),))


def policy(action: RequestAction, *rules: Rule, name: str = "p", dry_run: bool = False) -> RequestPolicy:
    return RequestPolicy(name, "ns", action, (), rules, dry_run)


def asking(provider: str, *rules: Rule, name: str = "c") -> RequestPolicy:
    asked = Asked(Authorizer(provider, ProviderService("x.ns", 80)), "ns/x.ns")
    return msgspec.structs.replace(policy(CUSTOM, *rules, name=name), provider=provider, asked=asked)


GET, POST = one(Attribute.METHOD, Exact("GET")), one(Attribute.METHOD, Exact("POST"))
DECISIONS: list[tuple[tuple[RequestPolicy, ...], Decision]] = [
    ((), Decision(True, Reason.NO_ALLOW_POLICY)),
    ((policy(DENY, POST, GET),), Decision(False, Reason.DENIED_BY_RULE, "ns/p", 1)),
    ((policy(DENY, POST),), Decision(True, Reason.NO_ALLOW_POLICY)),
    ((policy(ALLOW, GET),), Decision(True, Reason.ALLOWED_BY_RULE, "ns/p", 0)),
    ((policy(ALLOW, NEVER, GET),), Decision(True, Reason.ALLOWED_BY_RULE, "ns/p", 1)),
    ((policy(ALLOW),), Decision(False, Reason.NO_RULE_MATCHED, "ns/p")),
    ((policy(ALLOW, NEVER),), Decision(False, Reason.NO_RULE_MATCHED, "ns/p")),
    ((policy(ALLOW, name="a"), policy(ALLOW, name="b")), Decision(False, Reason.NO_RULE_MATCHED)),
    ((policy(ALLOW, GET), policy(DENY, Rule(), name="q")), Decision(False, Reason.DENIED_BY_RULE, "ns/q", 0)),
    ((policy(AUDIT, Rule()), asking("x", Rule())), Decision(True, Reason.NO_ALLOW_POLICY)),
    ((policy(ALLOW, GET), policy(CUSTOM, POST, GET)), Decision(False, Reason.NOBODY_TO_ASK, "ns/p", 1)),
    ((policy(ALLOW, GET), policy(CUSTOM, POST)), Decision(True, Reason.ALLOWED_BY_RULE, "ns/p", 0)),
    ((policy(DENY, GET), asking("x", GET)), Decision(False, Reason.DENIED_BY_RULE, "ns/p", 0)),
    (
        (policy(DENY, GET, dry_run=True),),
        Decision(True, Reason.NO_ALLOW_POLICY, dry_run=Decision(False, Reason.DENIED_BY_RULE, "ns/p", 0)),
    ),
]


@pytest.mark.parametrize(("policies", "decision"), DECISIONS)
def test_the_order_of_policies(policies: tuple[RequestPolicy, ...], decision: Decision) -> None:
    assert decide_request(policies, FACTS).decision == decision


def test_who_is_asked_and_what_is_only_told() -> None:
    given = (
        asking("y", GET, name="b"),
        asking("x", POST, GET, name="d"),
        asking("x", GET, name="c"),
        asking("z", POST, name="a"),
        policy(AUDIT, POST, GET, name="c"),
    )
    found = decide_request(given, FACTS)
    assert found.asked == (Question("x", "ns/c", 0), Question("y", "ns/b", 0))
    assert found.audited == (("ns/c", 1),)


def test_nobody_is_shown_bytes() -> None:
    bytes_only = msgspec.structs.replace(FACTS, request=None)
    found = decide_request((asking("x", POST),), bytes_only)
    assert found.decision == Decision(False, Reason.NOBODY_TO_ASK, "ns/c", 0)
    assert found.asked == ()
    assert decide_request((asking("x", one(Attribute.PORT, 81)),), bytes_only).decision.allowed


HITS: list[tuple[Rule, bool, bool]] = [
    # Rule; whether ALLOW allows by it, and DENY denies.
    (one(Attribute.PRINCIPAL, Exact("td/ns/ns/sa/sa")), True, True),
    (one(Attribute.TRUST_DOMAIN, Exact("td")), True, True),
    (one(Attribute.NAMESPACE, Suffix("ns")), True, True),
    (one(Attribute.SERVICE_ACCOUNT, ServiceAccountMatch("ns", "other")), False, False),
    (one(Attribute.SOURCE_IP, ipaddress.ip_network("10.0.0.0/24")), True, True),
    (one(Attribute.REMOTE_IP, ipaddress.ip_network("10.0.0.0/24")), True, True),
    (one(Attribute.DESTINATION_IP, ipaddress.ip_network("::/0")), False, False),
    (one(Attribute.PORT, 80), True, True),
    (one(Attribute.PATH, Exact("/a")), True, True),
    (one(Attribute.HOST, Exact("WEB")), True, True),
    (one(Attribute.HOST, Exact("web:80")), True, True),
    (one(Attribute.HOST, Exact("web:81")), False, False),
    (one(Attribute.METHOD, Exact("get")), False, True),
    (one(Attribute.METHOD, unwanted=[Exact("get")]), False, True),
    (one(Attribute.HEADER, Presence(), name=("x-a",)), True, True),
    (one(Attribute.HEADER, Exact("2"), name=("x-a",)), False, False),
    (one(Attribute.CLAIM, Exact("b"), name=("aud",)), True, True),
    (one(Attribute.CLAIM, Exact("c"), name=("aud",)), False, False),
    (one(Attribute.REQUEST_PRINCIPAL, Exact("me/x/you")), True, True),
    (one(Attribute.REQUEST_PRINCIPAL, Prefix("me/x")), True, True),
    (one(Attribute.UNSEEN, Exact("a")), False, True),
    (one(Attribute.UNSEEN, unwanted=[Exact("a")]), False, True),
    (NEVER, False, False),
    (Rule(), True, True),
]


@pytest.mark.parametrize(("rule", "allows", "denies"), HITS)
def test_conditions(rule: Rule, allows: bool, denies: bool) -> None:
    assert decide_request([policy(ALLOW, rule)], FACTS).decision.allowed is allows
    assert decide_request([policy(DENY, rule)], FACTS).decision.allowed is not denies


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"path": "/x/..%2fadmin"}, one(Attribute.PATH, Exact("/admin"))),
        ({"path": "//admin?x"}, one(Attribute.PATH, Exact("/admin"))),
        ({"headers": {"x-a": "user, admin"}}, one(Attribute.HEADER, Exact("admin"), name=("x-a",))),
        ({"method": "post"}, POST),
    ],
)
def test_what_can_be_read_in_several_ways_harms_who_sends_it(changed: dict[str, Any], rule: Rule) -> None:
    facts = RequestFacts(FACTS.source, 80, request=Request(**changed))
    assert not decide_request([policy(ALLOW, rule)], facts).decision.allowed
    assert not decide_request([policy(DENY, rule)], facts).decision.allowed


def test_of_bytes_nobody_knows_what_they_ask_for() -> None:
    facts = RequestFacts(FACTS.source, 80, identity=FACTS.identity)
    for rule in (
        GET,
        one(Attribute.PATH, Presence()),
        one(Attribute.HEADER, unwanted=[Exact("a")], name=("x",)),
    ):
        assert not decide_request([policy(ALLOW, rule)], facts).decision.allowed
        assert not decide_request([policy(DENY, rule)], facts).decision.allowed
    assert decide_request([policy(ALLOW, one(Attribute.PORT, 80))], facts).decision.allowed


@pytest.mark.parametrize(
    ("value", "hits"), [(Exact(""), True), (Prefix(""), True), (Suffix(""), True), (Presence(), False)]
)
def test_an_empty_text_is_a_text_that_is_not_present(value: Value, hits: bool) -> None:
    """Of connections nothing hits one (`ambit.policy.decide`): there it stands for nobody."""
    request = Request(method="", host="", headers={"x": ""})
    facts = RequestFacts(FACTS.source, 80, request=request, server_name="")
    for attribute in (Attribute.HOST, Attribute.METHOD, Attribute.SNI):
        assert decide_request([policy(ALLOW, one(attribute, value))], facts).decision.allowed is hits
    header = one(Attribute.HEADER, value, name=("x",))
    assert decide_request([policy(ALLOW, header)], facts).decision.allowed is (hits or value == Presence())


def test_nobody_hits_no_condition_on_who_he_is() -> None:
    facts = RequestFacts(FACTS.source, 80, request=Request())
    for attribute in (Attribute.PRINCIPAL, Attribute.NAMESPACE, Attribute.TRUST_DOMAIN):
        assert not decide_request([policy(ALLOW, one(attribute, Presence()))], facts).decision.allowed
        assert decide_request([policy(ALLOW, one(attribute, unwanted=[Presence()]))], facts).decision.allowed
