"""Memory that is not needed any more leaves the process."""

import platform
import subprocess
import sys

import pytest

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what only glibc can be told")
ANONYMOUS = """
def anonymous():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("Anonymous:"))
"""
ONCE_LARGE = """
bytearray(8 << 20)  # when it is freed, blocks as large are not given back singly any more
before, some, kept = anonymous(), [], []
for _ in range(40):
    some.append(bytearray(b"x") * (1 << 20))
    kept.append(bytearray(1000))
del some
print(anonymous() - before)
"""
SCATTERED = """
before, some, kept = anonymous(), [], []
for _ in range(20_000):
    some.append(bytearray(b"x") * 2000)
    kept.append(bytearray(600))
del some, kept[:-1]
held = anonymous() - before
give_back()
print(held, anonymous() - before)
"""


def said(script: str) -> list[int]:
    """The numbers that a Python of its own prints: what a C library is told, it is told for good."""
    words = "from ambit.daemon.memory import give_back, keep_thresholds\n" + ANONYMOUS + script
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.split()]


@GLIBC
def test_large_blocks_leave_singly_after_a_larger_one_was_freed() -> None:
    (usually,), (told,) = said(ONCE_LARGE), said("assert keep_thresholds()\n" + ONCE_LARGE)
    assert usually > 30 << 20
    assert told < 2 << 20


@GLIBC
def test_free_pages_in_the_middle_leave() -> None:
    held, rest = said(SCATTERED)
    assert held > 30 << 20
    assert rest < 5 << 20
