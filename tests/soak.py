"""Tests that have a long form: the same with other numbers. `./dev test` runs the short one, `./dev soak` the long one.

They are marked `soak`, and take their numbers from here.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")
Test = TypeVar("Test", bound=Callable[..., Any])
EXAMPLES = 100
"""How many times as many random examples the long form tries."""

_is_long = False


def begin() -> None:
    """From now on numbers are those of the long form: to be called before test files are read."""
    global _is_long
    _is_long = True


def long(short: T, long: T) -> T:
    """The number of the form that is being run."""
    return long if _is_long else short


def fuzz(examples: int = 100) -> Callable[[Test], Test]:
    """For a test over random input that others may have made: so many examples, in the long form many more. How slow a
    machine is does not count."""
    return settings(
        max_examples=long(examples, examples * EXAMPLES),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
