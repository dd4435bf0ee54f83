"""A strategy that rarely decides tests nothing: each field and operator must change enough answers."""

from collections import Counter
from random import Random

from ambit.policy.decide import decide
from tests.policy import strategies
from tests.policy.deciding import CHANGES, ENOUGH, deciding

EXAMPLES = 3000


def test_every_field_and_operator_decides() -> None:
    decided: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()

    random = Random(1)
    for _ in range(EXAMPLES):
        policies, facts = strategies.random_policies(random), strategies.random_facts(random)
        outcomes[decide(policies, facts).reason] += 1
        decided.update(deciding(policies, facts))
    assert {name for name in CHANGES if decided[name] < ENOUGH * EXAMPLES} == set(), (decided, outcomes)
    assert all(outcomes[reason] > 0.05 * EXAMPLES for reason in outcomes) and len(outcomes) == 4, outcomes
