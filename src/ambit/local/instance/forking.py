"""Ctrl-C held back while this process forks.

Python runs callbacks of its own around fork(2), in which a KeyboardInterrupt is printed and forgotten. Held back, the
signal arrives right after them.
"""

import contextlib
import signal
from collections.abc import Iterator

STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """SIGINT and SIGTERM wait until the context is left; a child calls `let_through` itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """For a forked child that goes its own way: every signal, from now on."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
