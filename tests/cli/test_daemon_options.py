"""Types of daemons' options: what is written and what it means."""

import click
import pytest

from ambit.cli.daemon_options import Threads


@pytest.mark.feature("N62")
@pytest.mark.parametrize(("written", "meant"), [("1", 1), ("16", 16), ("auto", 0)])
def test_threads(written: str, meant: int) -> None:
    assert Threads().convert(written, None, None) == meant


@pytest.mark.parametrize("written", ["0", "-1", "", "many", "1.5", "50%"])
def test_what_is_no_number_of_threads_is_refused(written: str) -> None:
    with pytest.raises(click.BadParameter, match="auto"):
        Threads().convert(written, None, None)
