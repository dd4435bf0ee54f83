"""The page about packages is current, and every package says what it is for."""

import pytest

from tests.docs.layout import ROOT, render

PAGE = ROOT / "docs/layout.md"


def test_the_page_is_current(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--update-golden"):
        PAGE.write_text(render())
    assert PAGE.read_text() == render(), "type `pytest tests/docs --update-golden`"


def test_every_package_says_what_it_is_for() -> None:
    assert [line for line in render().splitlines() if line.endswith("|  |")] == []
