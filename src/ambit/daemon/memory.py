"""Memory that a process used once and does not need any more, given back to the system.

The C library raises its threshold for blocks that it can give back singly to the size of the largest one that was
freed, so after one message with all of a large mesh everything else of that size stays with the process. And what it
does not give back singly it gives back only from the end. Both are changed for glibc; elsewhere nothing is done.
"""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""
PAGE = os.sysconf("SC_PAGE_SIZE")
THRESHOLD = 128 << 10
"""Bytes: the C library's own first values, which stay when they are set."""


def keep_thresholds() -> bool:
    """Blocks of this size are always given back when they are freed. Whether the C library can do so."""
    library = ctypes.CDLL(None)
    try:
        set_option = library.mallopt
    except AttributeError:
        return False
    return all(set_option(option, THRESHOLD) == 1 for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))


def give_back() -> None:
    """Whole pages that are free, wherever they lie. Takes a millisecond for each some ten MB that are in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def measure_resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as text:
        return int(text.read().split()[1]) * PAGE
