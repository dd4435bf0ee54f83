"""Printing a file, and what is added to it."""

import sys
import time
from pathlib import Path

LOOK_AGAIN = 0.2


def tail(path: Path, *, follow: bool) -> None:
    """Copy the file to stdout; with `follow`, until interrupted or the file is gone."""
    with path.open("rb") as file:
        while True:
            if block := file.read(65536):
                sys.stdout.buffer.write(block)
                sys.stdout.buffer.flush()
            elif not follow or not path.exists():
                return
            else:
                time.sleep(LOOK_AGAIN)
