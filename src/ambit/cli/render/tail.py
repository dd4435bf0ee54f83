"""Printing a file, and what is added to it."""

import io
import os
import sys
import time
from pathlib import Path
from typing import BinaryIO

LOOK_AGAIN = 0.2


_BLOCK = 65536


def tail(path: Path, *, follow: bool, last: int = -1) -> None:
    """Copy the file to stdout, its `last` lines when that is not negative; with `follow`, until interrupted or the file
    is gone."""
    with path.open("rb") as file:
        if last >= 0:
            _skip(file, last)
        while True:
            if block := file.read(_BLOCK):
                sys.stdout.buffer.write(block)
                sys.stdout.buffer.flush()
            elif not follow or not path.exists():
                return
            else:
                time.sleep(LOOK_AGAIN)


def _skip(file: BinaryIO, last: int) -> None:
    """To where the last lines begin, read from the end. A line that is not finished is one."""
    start = file.seek(0, os.SEEK_END)
    text = b""
    while start and text.count(b"\n") <= last:
        size = min(_BLOCK, start)
        start -= size
        file.seek(start)
        text = file.read(size) + text
    lines = io.BytesIO(text).readlines()
    file.seek(start + sum(map(len, lines[: max(len(lines) - last, 0)])))
