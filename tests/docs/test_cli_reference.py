"""The reference of commands is complete and current."""

from pathlib import Path

import pytest

from tests.docs.cli_reference import render
from tests.docs.commands import commands, options

PAGE = Path(__file__).parents[2] / "docs/cli.md"


def test_every_command_and_option_says_what_it_is_for() -> None:
    silent = [
        f"{' '.join(words)} {each.opts[0]}"
        for words, command in commands()
        for each in options(command)
        if not (each.help or "").strip()
    ]
    assert silent == []
    assert [words for words, command in commands() if not (command.help or "").strip()] == []


def test_the_page_is_current(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(render())
    assert PAGE.read_text() == render(), "type `pytest tests/docs --update-golden`"
