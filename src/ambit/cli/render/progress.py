"""What is ready, line by line, with the time it took. On stderr: stdout is data."""

import sys
import time

import click


class Progress:
    """Times are seconds since this was made."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def done(self, step: str) -> None:
        mark = click.style("✔" if sys.stderr.encoding.lower().startswith("utf") else "ok", fg="green")
        click.echo(f" {mark} {step:<24} {self.elapsed:5.1f} s", err=True)

    def note(self, text: str) -> None:
        click.echo(text, err=True)
