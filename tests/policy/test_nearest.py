"""What a rule lacks, against `decide` and against what happens when it is given what it lacks."""

import ipaddress

from hypothesis import given

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
    Suffix,
)
from ambit.policy.decide import ConnectionFacts, Reason, decide, matching_rule
from ambit.policy.nearest import Miss, decide_without, misses, nearest
from tests.policy import strategies

FACTS = ConnectionFacts(
    source=ipaddress.ip_address("10.0.0.5"),
    destination=ipaddress.ip_address("10.1.0.2"),
    destination_port=8080,
    identity=Identity("cluster.local", "team-a", "web"),
)
PLAIN = ConnectionFacts(FACTS.source, FACTS.destination, 8080)


def policy(
    *rules: Rule, action: Action = Action.ALLOW, name: str = "p", dry_run: bool = False
) -> Authorization:
    return Authorization(name, "default", Scope.NAMESPACE, action, rules, dry_run)


def rule(*matches: Match) -> Rule:
    return Rule(tuple(Clause((match,)) for match in matches))


PORT = Match(destination_ports=(80, 443))
BOTH = Match(destination_ports=(80,), principals=(Exact("cluster.local/ns/team-b/sa/web"),))
"""Both fail for FACTS; PORT fails in one field."""


@given(strategies.policy_sets, strategies.facts)
def test_a_rule_lacks_nothing_exactly_when_it_holds(
    policies: tuple[Authorization, ...], facts: ConnectionFacts
) -> None:
    for each in policies:
        for index, one in enumerate(each.rules):
            alone = Authorization("p", "n", Scope.NAMESPACE, each.action, (one,))
            assert (not misses(one, facts)) == (matching_rule(alone, facts) == 0), index


@given(strategies.policy_sets, strategies.facts)
def test_without_its_rule_a_decision_is_that_of_the_others(
    policies: tuple[Authorization, ...], facts: ConnectionFacts
) -> None:
    decision = decide(policies, facts)
    without = decide_without(policies, decision, facts)
    assert (without is None) == (decision.rule is None)
    if without is not None:
        assert (without.policy, without.rule) != (decision.policy, decision.rule)
        if decision.reason is Reason.ALLOWED_BY_RULE:
            assert without.reason in (Reason.ALLOWED_BY_RULE, Reason.NO_RULE_MATCHED)


def test_every_field_is_told_by_the_api_s_name_with_both_values() -> None:
    told = {
        Match(principals=(Suffix("/sa/job"),)): Miss(
            "principals", ("*/sa/job",), "cluster.local/ns/team-a/sa/web"
        ),
        Match(not_namespaces=(Prefix("team-"), Exact("b"))): Miss("notNamespaces", ("team-*", "b"), "team-a"),
        Match(service_accounts=(ServiceAccountMatch("team-b", "web"),)): Miss(
            "serviceAccounts", ("team-b/web",), "team-a/web"
        ),
        Match(not_source_ips=(ipaddress.ip_network("10.0.0.0/8"),)): Miss(
            "notIpBlocks", ("10.0.0.0/8",), "10.0.0.5"
        ),
        Match(destination_ips=(ipaddress.ip_network("10.2.0.0/16"),)): Miss(
            "destinationIps", ("10.2.0.0/16",), "10.1.0.2"
        ),
        Match(not_destination_ports=(8080,)): Miss("notPorts", ("8080",), "8080"),
        Match(): Miss("", (), ""),
    }
    for match, expected in told.items():
        assert misses(rule(match), FACTS) == (expected,)
    anybody = Match(principals=(Presence(),))
    assert misses(rule(anybody), PLAIN) == (Miss("principals", ("*",), ""),)


def test_of_a_clause_the_match_that_lacks_least_counts_and_all_clauses_do() -> None:
    either = Rule((Clause((BOTH, PORT)), Clause((Match(namespaces=(Exact("team-b"),)),)), Clause()))
    assert [miss.field for miss in misses(either, FACTS)] == ["ports", "namespaces"]


def test_the_nearest_rule_lacks_least_and_is_enforced() -> None:
    far, near = policy(rule(BOTH), name="a"), policy(rule(BOTH), rule(PORT), name="b")
    found = nearest([far, near], Action.ALLOW, FACTS)
    assert found is not None and (found.policy.key, found.rule) == ("default/b", 1)
    assert nearest([far, near], Action.DENY, FACTS) is None
    trial = policy(Rule(), name="trial", dry_run=True)
    still = nearest([far, trial], Action.ALLOW, FACTS)
    assert still is not None and still.policy.key == "default/a"
    assert nearest([policy()], Action.ALLOW, FACTS) is None


def test_without_the_rule_that_denies_the_next_one_decides() -> None:
    deny = policy(rule(Match(destination_ports=(8080,))), action=Action.DENY, name="deny")
    allow = policy(rule(Match(destination_ports=(8080,))), name="allow")
    first = decide([deny, allow], FACTS)
    second = decide_without([deny, allow], first, FACTS)
    assert second is not None and (second.allowed, second.policy) == (True, "default/allow")
    third = decide_without([allow], second, FACTS)
    assert third is not None and third.reason is Reason.NO_RULE_MATCHED
