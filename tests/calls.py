"""What something costs, on any machine: how many functions are called."""

import cProfile
from collections.abc import Callable


def calls(made: Callable[[], object]) -> int:
    """Of Python and C, while `made` runs."""
    profile = cProfile.Profile()
    profile.runcall(made)
    return sum(each.callcount for each in profile.getstats())
