"""A peer whose identity is not known any more gets the strictest answer (`ambit.policy.unidentified`)."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given

from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Exact,
    Match,
    Presence,
    Rule,
    Scope,
    ServiceAccountMatch,
    Suffix,
)
from ambit.policy.decide import ConnectionFacts, Reason, decide
from ambit.policy.unidentified import decide_unidentified
from tests.policy import strategies
from tests.policy.test_decide import FACTS, policy


def rule(**fields: object) -> Rule:
    return Rule((Clause((Match(**fields),)),))  # type: ignore[arg-type]


@given(strategies.policy_sets, strategies.facts)
def test_it_is_never_milder_than_the_answer_for_any_identity(
    policies: Sequence[Authorization], facts: ConnectionFacts
) -> None:
    answer = decide_unidentified(policies, facts)
    for identity in strategies.IDENTITIES:
        known = decide(policies, msgspec.structs.replace(facts, identity=identity))
        assert known.allowed or not answer.allowed, identity


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"namespaces": (Exact("a"),)}, False),
        ({"principals": (Suffix("/sa/a"),)}, False),
        ({"service_accounts": (ServiceAccountMatch("a", "b"),)}, False),
        ({"not_namespaces": (Exact("a"),)}, False),
        ({"not_service_accounts": (ServiceAccountMatch("a", "b"),)}, False),
        ({"namespaces": (Presence(),)}, False),
        ({"not_principals": (Presence(),)}, True),
        ({"namespaces": (Exact("a"),), "destination_ports": (1,)}, True),
        ({"destination_ports": (8080,)}, False),
        ({}, True),
    ],
)
def test_a_deny_counts_if_somebody_may_match_it(fields: dict[str, object], allowed: bool) -> None:
    assert decide_unidentified([policy(Action.DENY, rule(**fields))], FACTS).allowed == allowed


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"namespaces": (Exact("a"),)}, False),
        ({"not_namespaces": (Exact("a"),)}, False),
        ({"principals": (Presence(),)}, True),
        ({"principals": (Exact("a"), Presence())}, True),
        ({"destination_ports": (8080,)}, True),
        ({"destination_ports": (1,)}, False),
    ],
)
def test_an_allow_counts_if_everybody_matches_it(fields: dict[str, object], allowed: bool) -> None:
    assert decide_unidentified([policy(Action.ALLOW, rule(**fields))], FACTS).allowed == allowed


def test_it_names_the_rule() -> None:
    found = decide_unidentified([policy(Action.DENY, rule(), rule(namespaces=(Exact("a"),)))], FACTS)
    assert (found.reason, found.policy, found.rule) == (Reason.DENIED_BY_RULE, "ns/p", 1)
    assert decide_unidentified([], FACTS, ["ns/gone"]).policy == "ns/gone"
    assert decide_unidentified([], FACTS).allowed
    trial = Authorization("t", "ns", Scope.NAMESPACE, Action.DENY, (Rule(),), dry_run=True)
    assert decide_unidentified([trial], FACTS).allowed
