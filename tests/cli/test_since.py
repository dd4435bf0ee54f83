"""What `--since` takes."""

import time

import click
import pytest

from ambit.cli.since import Since


@pytest.mark.parametrize(
    ("text", "ago"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800)]
)
def test_durations(text: str, ago: float) -> None:
    assert abs(time.time() - ago - Since().convert(text, None, None)) < 60


def test_times() -> None:
    assert Since().convert("2026-11-20T10:00:00Z", None, None) == 1795168800.0
    assert Since().convert("2026-11-20T11:00:00+01:00", None, None) == 1795168800.0


@pytest.mark.parametrize("text", ["", "5", "m", "5x", "yesterday", "-5m"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither"):
        Since().convert(text, None, None)
