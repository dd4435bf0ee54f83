"""A strategy that rarely decides tests nothing: each field and operator must change enough answers."""

from collections import Counter
from collections.abc import Callable
from random import Random

import msgspec

from ambit.model.policy import Authorization, Clause, Exact, Match, Prefix, Presence, Rule, Suffix
from ambit.policy.decide import decide
from tests.policy import strategies

OPERATORS = (Exact, Prefix, Suffix, Presence)
EXAMPLES = 3000
ENOUGH = 0.02


def rewritten(policy: Authorization, change: Callable[[Match], Match]) -> Authorization:
    rules = tuple(
        Rule(tuple(Clause(tuple(change(match) for match in clause.matches)) for clause in rule.clauses))
        for rule in policy.rules
    )
    return msgspec.structs.replace(policy, rules=rules)


def without_field(name: str) -> Callable[[Match], Match]:
    return lambda match: msgspec.structs.replace(match, **{name: ()})


def without_operator(operator: type) -> Callable[[Match], Match]:
    names = ("namespaces", "not_namespaces", "principals", "not_principals")
    return lambda match: msgspec.structs.replace(
        match, **{n: tuple(v for v in getattr(match, n) if not isinstance(v, operator)) for n in names}
    )


def test_every_field_and_operator_decides() -> None:
    changes = {name: without_field(name) for name in strategies.FIELDS}
    changes |= {operator.__name__: without_operator(operator) for operator in OPERATORS}
    decided: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()

    random = Random(1)
    for _ in range(EXAMPLES):
        policies, facts = strategies.random_policies(random), strategies.random_facts(random)
        answer = decide(policies, facts)
        outcomes[answer.reason] += 1
        for name, change in changes.items():
            other = [rewritten(policy, change) for policy in policies]
            decided[name] += decide(other, facts).allowed != answer.allowed
    total = sum(outcomes.values())
    assert {name for name in changes if decided[name] < ENOUGH * total} == set(), (decided, outcomes)
    assert all(outcomes[reason] > 0.05 * total for reason in outcomes) and len(outcomes) == 4, outcomes
