"""What a death comes to: only connections that began after it count."""

import pytest
from bench.kill import Tries, gap


def test_the_first_answer_counts_of_those_that_began_after_it() -> None:
    seen: Tries = [
        (9.9, 10.05, ""),  # began before
        (9.95, 10.0, "closed"),
        (10.1, 10.1, "ConnectionRefusedError"),
        (10.2, 10.25, ""),
        (10.0, 10.3, "silence"),
    ]
    found = gap(10.0, seen)
    assert found.answered == pytest.approx(250.0)
    assert found.failing == pytest.approx(100.0)
    assert found.failed == ("ConnectionRefusedError", "silence")


def test_without_a_failure_nothing_failed() -> None:
    found = gap(10.0, [(10.0, 10.01, "")])
    assert (found.failing, found.failed) == (0.0, ())


def test_where_nothing_is_answered_there_is_no_number() -> None:
    with pytest.raises(RuntimeError, match="no new connection"):
        gap(10.0, [(9.0, 9.1, ""), (10.1, 10.2, "closed")])
