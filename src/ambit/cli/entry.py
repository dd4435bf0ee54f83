"""Where the `ambit` program begins: Ctrl-C ends it without a traceback, also while it is being imported."""

import os
import signal
import sys
from typing import Any, NoReturn

INTERRUPTED = 130


def _end(*_: Any) -> NoReturn:
    """Nothing has been done yet, and an exception inside an import may be swallowed or shown by others."""
    os._exit(INTERRUPTED)


def main() -> None:
    """Runs the command line."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _end)
    from ambit.cli.main import main as run

    try:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
