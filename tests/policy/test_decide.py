"""The meaning of L4 policy, sentence by sentence (`ambit.policy.decide`)."""

import ipaddress
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Exact,
    Match,
    Prefix,
    Presence,
    Rule,
    Scope,
    ServiceAccountMatch,
    StringMatch,
    Suffix,
)
from ambit.policy.decide import ConnectionFacts, Decision, Reason, decide, matching_rule
from tests.policy import strategies

PEER = Identity("cluster.local", "team-a", "web")
FACTS = ConnectionFacts(
    source=ipaddress.ip_address("10.0.0.5"),
    destination=ipaddress.ip_address("10.1.0.2"),
    destination_port=8080,
    identity=PEER,
)
PLAIN = msgspec.structs.replace(FACTS, identity=None)
FACTS6 = msgspec.structs.replace(FACTS, source=ipaddress.ip_address("fd00::5"))
NET = ipaddress.ip_network


def policy(action: Action, *rules: Rule, name: str = "p", dry_run: bool = False) -> Authorization:
    return Authorization(name, "ns", Scope.NAMESPACE, action, rules, dry_run)


def holds(match: Match, facts: ConnectionFacts = FACTS) -> bool:
    return matching_rule(policy(Action.ALLOW, Rule((Clause((match,)),))), facts) == 0


# Each row: a field, values that hit FACTS, values that miss.
FIELDS: list[tuple[str, Any, Any]] = [
    ("principals", Exact("cluster.local/ns/team-a/sa/web"), Exact("spiffe://cluster.local/ns/team-a/sa/web")),
    ("principals", Prefix("cluster.local/ns/team-a/"), Prefix("cluster.local/ns/team-b/")),
    ("principals", Prefix(""), Prefix("luster")),
    ("principals", Suffix("/sa/web"), Suffix("/sa/we")),
    ("principals", Presence(), Exact("")),
    ("namespaces", Exact("team-a"), Exact("team")),
    ("namespaces", Prefix("team"), Prefix("eam")),
    ("namespaces", Suffix("-a"), Suffix("-b")),
    ("namespaces", Presence(), Exact("*")),
    ("service_accounts", ServiceAccountMatch("team-a", "web"), ServiceAccountMatch("team-a", "admin")),
    ("service_accounts", ServiceAccountMatch("team-a", "web"), ServiceAccountMatch("team-b", "web")),
    ("source_ips", NET("10.0.0.5/32"), NET("10.0.0.4/32")),
    ("source_ips", NET("10.0.0.0/8"), NET("11.0.0.0/8")),
    ("source_ips", NET("0.0.0.0/0"), NET("::/0")),
    ("destination_ips", NET("10.1.0.0/16"), NET("10.2.0.0/16")),
    ("destination_ports", 8080, 80),
]


@pytest.mark.parametrize(("field", "hit", "miss"), FIELDS)
def test_a_field_and_its_negation(field: str, hit: Any, miss: Any) -> None:
    assert holds(Match(**{field: (hit,)}))
    assert not holds(Match(**{field: (miss,)}))
    assert holds(Match(**{field: (miss, hit)})), "values are ORed"
    assert not holds(Match(**{f"not_{field}": (hit,)}))
    assert holds(Match(**{f"not_{field}": (miss,)}))
    assert not holds(Match(**{f"not_{field}": (miss, hit)})), "no unwanted value may hit"
    assert not holds(Match(**{field: (hit,), f"not_{field}": (hit,)}))


def test_the_table_covers_every_field() -> None:
    positive = {name for name in Match.__struct_fields__ if not name.startswith("not_")}
    assert positive == {field for field, _, _ in FIELDS} == set(strategies.FIELDS) & positive
    assert (
        {f"not_{name}" for name in positive} | positive
        == set(Match.__struct_fields__)
        == set(strategies.FIELDS)
    )


@pytest.mark.parametrize(
    ("field", "hit", "miss"),
    [row for row in FIELDS if row[0] in ("principals", "namespaces", "service_accounts")],
)
def test_without_identity_no_positive_hits_and_every_negative_passes(field: str, hit: Any, miss: Any) -> None:
    for value in (hit, miss):
        assert not holds(Match(**{field: (value,)}), PLAIN)
        assert holds(Match(**{f"not_{field}": (value,)}), PLAIN)


@pytest.mark.parametrize("value", [Exact(""), Prefix(""), Suffix(""), Presence()])
def test_nothing_hits_an_empty_text_which_is_nobody(value: StringMatch) -> None:
    assert not holds(Match(principals=(value,)), PLAIN)
    assert not holds(Match(namespaces=(value,)), PLAIN)
    assert holds(Match(not_principals=(value,), not_namespaces=(value,)), PLAIN)


def test_address_families_do_not_mix() -> None:
    assert holds(Match(source_ips=(NET("::/0"),)), FACTS6)
    assert not holds(Match(source_ips=(NET("0.0.0.0/0"),)), FACTS6)
    assert holds(Match(not_source_ips=(NET("0.0.0.0/0"),)), FACTS6)


def test_fields_of_a_match_are_anded() -> None:
    assert holds(Match(namespaces=(Exact("team-a"),), destination_ports=(8080,)))
    assert not holds(Match(namespaces=(Exact("team-a"),), destination_ports=(80,)))
    assert not holds(Match(namespaces=(Exact("team-b"),), destination_ports=(8080,)))


YES, NO = Match(destination_ports=(8080,)), Match(destination_ports=(1,))


@pytest.mark.parametrize("shape", list(itertools.product([YES, NO], repeat=4)))
def test_matches_are_ored_and_clauses_anded(shape: tuple[Match, ...]) -> None:
    first, second = shape[:2], shape[2:]
    rule = Rule((Clause(first), Clause(second)))
    expected = (YES in first) and (YES in second)
    assert (matching_rule(policy(Action.DENY, rule), FACTS) == 0) is expected


def test_rules_are_ored_and_the_first_that_holds_is_named() -> None:
    no, yes = Rule((Clause((NO,)),)), Rule((Clause((YES,)),))
    assert matching_rule(policy(Action.DENY, no, yes, yes), FACTS) == 1
    assert matching_rule(policy(Action.DENY, no, no), FACTS) is None


def test_what_is_empty() -> None:
    assert matching_rule(policy(Action.ALLOW), FACTS) is None, "no rules: never"
    assert matching_rule(policy(Action.ALLOW, Rule()), FACTS) == 0, "no clauses: always"
    assert matching_rule(policy(Action.ALLOW, Rule((Clause(),))), FACTS) == 0, "no matches: always"
    assert matching_rule(policy(Action.ALLOW, Rule((Clause((Match(),)),))), FACTS) is None, "no fields: never"
    assert matching_rule(policy(Action.ALLOW, Rule((Clause((Match(), YES)),))), FACTS) == 0


ALWAYS = Rule()


@pytest.mark.parametrize(
    ("policies", "allowed", "reason", "key"),
    [
        ([], True, Reason.NO_ALLOW_POLICY, ""),
        ([policy(Action.ALLOW)], False, Reason.NO_RULE_MATCHED, "ns/p"),
        ([policy(Action.ALLOW), policy(Action.ALLOW, name="q")], False, Reason.NO_RULE_MATCHED, ""),
        (
            [policy(Action.ALLOW), policy(Action.ALLOW, ALWAYS, name="q")],
            True,
            Reason.ALLOWED_BY_RULE,
            "ns/q",
        ),
        ([policy(Action.DENY)], True, Reason.NO_ALLOW_POLICY, ""),
        ([policy(Action.DENY, ALWAYS)], False, Reason.DENIED_BY_RULE, "ns/p"),
        (
            [policy(Action.ALLOW, ALWAYS), policy(Action.DENY, ALWAYS, name="q")],
            False,
            Reason.DENIED_BY_RULE,
            "ns/q",
        ),
        ([policy(Action.ALLOW, ALWAYS), policy(Action.DENY, name="q")], True, Reason.ALLOWED_BY_RULE, "ns/p"),
    ],
)
def test_deny_before_allow_before_default(
    policies: list[Authorization], allowed: bool, reason: Reason, key: str
) -> None:
    for order in itertools.permutations(policies):
        decision = decide(order, FACTS)
        assert (decision.allowed, decision.reason, decision.policy) == (allowed, reason, key)


def test_an_unknown_policy_denies_whatever_else_allows() -> None:
    decision = decide([policy(Action.ALLOW, ALWAYS)], FACTS, missing=("ns/z", "ns/a"))
    assert decision == Decision(False, Reason.UNKNOWN_POLICY, "ns/a")


def test_strict_mutual_tls_is_a_deny_of_who_has_no_identity() -> None:
    strict = policy(Action.DENY, Rule((Clause((Match(not_principals=(Presence(),)),)),)))
    assert decide([strict], FACTS).allowed
    assert decide([strict], PLAIN) == Decision(False, Reason.DENIED_BY_RULE, "ns/p", 0)


def test_a_dry_run_is_told_and_not_enforced() -> None:
    decision = decide([policy(Action.DENY, ALWAYS, dry_run=True)], FACTS)
    assert decision.allowed
    assert decision.dry_run == Decision(False, Reason.DENIED_BY_RULE, "ns/p", 0)
    assert decide([policy(Action.DENY, dry_run=True)], FACTS).dry_run is None


@given(strategies.policy_sets, strategies.facts, st.randoms())
def test_order_of_policies_does_not_matter(
    policies: tuple[Authorization, ...], facts: ConnectionFacts, random: Any
) -> None:
    assert decide(policies, facts) == decide(random.sample(policies, len(policies)), facts)


@given(strategies.policy_sets, strategies.policies, strategies.facts)
def test_one_more_deny_never_opens_and_one_more_rule_only_widens(
    policies: tuple[Authorization, ...], extra: Authorization, facts: ConnectionFacts
) -> None:
    denying = msgspec.structs.replace(extra, action=Action.DENY, dry_run=False)
    before = decide(policies, facts).allowed
    assert before or not decide([*policies, denying], facts).allowed
    wider = [
        msgspec.structs.replace(each, rules=(*each.rules, *extra.rules))
        if each.action is Action.ALLOW
        else each
        for each in policies
    ]
    assert decide(wider, facts).allowed or not before


@given(strategies.policy_sets, strategies.facts)
def test_the_named_rule_is_the_one_that_decided(
    policies: tuple[Authorization, ...], facts: ConnectionFacts
) -> None:
    decision = decide(policies, facts)
    if decision.rule is None:
        assert decision.reason in (Reason.NO_ALLOW_POLICY, Reason.NO_RULE_MATCHED)
        return
    [named] = [each for each in policies if each.key == decision.policy]
    assert matching_rule(named, facts) == decision.rule
    assert (named.action is Action.ALLOW) is decision.allowed
    assert not named.dry_run
