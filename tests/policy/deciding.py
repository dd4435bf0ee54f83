"""Which fields and operators of policies decided a case: those without which the answer would be another one."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from ambit.model.policy import Authorization, Clause, Exact, Match, Prefix, Presence, Rule, Suffix
from ambit.policy.decide import ConnectionFacts, decide
from tests.policy import strategies

ENOUGH = 0.02
"""Of all cases: a field or operator that decides fewer is not tested."""


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


OPERATORS = (Exact, Prefix, Suffix, Presence)
CHANGES = {name: without_field(name) for name in strategies.FIELDS} | {
    operator.__name__: without_operator(operator) for operator in OPERATORS
}


def deciding(policies: Sequence[Authorization], facts: ConnectionFacts) -> Iterator[str]:
    """Names of `CHANGES` that turn the answer around."""
    answer = decide(policies, facts).allowed
    for name, change in CHANGES.items():
        if decide([rewritten(policy, change) for policy in policies], facts).allowed != answer:
            yield name
