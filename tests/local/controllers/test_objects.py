"""Small questions about objects."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.controllers.objects import at, scaled, short_hash, timestamp, with_condition

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text("ab", max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("xyz", max_size=2), inner)),
    max_leaves=8,
)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        random.Random(len(items)).shuffle(items)
        return {key: shuffled(item) for key, item in items}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_a_hash_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    assert short_hash(value) == short_hash(shuffled(value))
    assert len(short_hash(value, 5)) == 5


def test_a_hash_depends_on_the_order_of_lists() -> None:
    assert short_hash([1, 2]) != short_hash([2, 1])


@pytest.mark.parametrize(
    ("value", "total", "up", "expected"),
    [
        (3, 10, True, 3),
        ("25%", 10, True, 3),
        ("25%", 10, False, 2),
        ("0%", 10, True, 0),
        ("100%", 7, False, 7),
    ],
)
def test_percentages(value: Any, total: int, up: bool, expected: int) -> None:
    assert scaled(value, total, round_up=up) == expected


@given(st.integers(0, 4_000_000_000))
def test_timestamps_come_back(seconds: int) -> None:
    assert at(timestamp(seconds)) == seconds


def test_the_transition_time_moves_with_the_status_only() -> None:
    first = with_condition([], {"type": "A", "status": "True", "reason": "x"}, 100)
    same = with_condition(first, {"type": "A", "status": "True", "reason": "y"}, 200)
    assert (same[0]["reason"], at(same[0]["lastTransitionTime"])) == ("y", 100)
    other = with_condition(same, {"type": "A", "status": "False", "reason": "z"}, 300)
    assert at(other[0]["lastTransitionTime"]) == 300
    assert len(with_condition(other, {"type": "B", "status": "True"}, 400)) == 2
