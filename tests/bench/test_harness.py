"""Numbers, targets and percentiles."""

import pytest
from bench.harness import Number, markdown, percentile, summary, table
from hypothesis import given
from hypothesis import strategies as st


def test_a_target_has_a_direction() -> None:
    assert Number("time", 4.0, "s", 5.0).holds
    assert not Number("rate", 4.0, "/s", 5.0, at_most=False).holds
    assert Number("context", 4.0, "s").holds is None


def test_repetitions_are_given_as_median_and_extremes() -> None:
    number = summary("time", [3.0, 1.0, 2.0], "s", 4.0)
    assert (number.value, number.low, number.high, number.distance) == (2.0, 1.0, 3.0, 0.5)


def test_the_table_tells_missed_from_held() -> None:
    shown = table("subject", [Number("fast", 1.0, "s", 2.0), Number("slow", 3.0, "s", 2.0)]).splitlines()
    assert "√ 0.50×" in shown[1]
    assert "× 1.50×" in shown[2]


def test_a_target_of_zero_is_held_or_missed_without_a_distance() -> None:
    shown = table("subject", [Number("none", 0.0, "", 0.0), Number("some", 2.0, "", 0.0)]).splitlines()
    assert shown[1].endswith("= 0  √")
    assert shown[2].endswith("= 0  ×")


def test_markdown_has_a_row_for_each_number() -> None:
    rows = markdown("subject", [Number("slow", 3.0, "s", 2.0, low=2.5, high=4.0)]).splitlines()
    assert rows[2] == "| slow | 3 s [2.5 - 4] | < 2 | × 1.50× of the target |"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_reached_by_its_share_and_by_no_smaller_value(
    values: list[float], share: float
) -> None:
    found = percentile(values, share)
    assert sum(value <= found for value in values) >= len(values) * share - 1e-6
    assert sum(value < found for value in values) < len(values) * share + 1e-6


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_percentiles_of_a_hundred(share: float, expected: float) -> None:
    assert percentile([float(number) for number in range(1, 101)], share) == expected
