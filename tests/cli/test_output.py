"""Tables, JSON and YAML on stdout."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ambit.cli.render.output import emit, printable, table

words = st.text(st.characters(codec="utf-8"), max_size=12)


def test_columns_are_aligned_and_lines_have_no_trailing_blanks() -> None:
    text = table(["NAME", "NODE"], [["a", "node1"], ["longer", ""]])
    assert text == "NAME     NODE\na        node1\nlonger   -\n"


def test_a_table_without_rows_is_its_header() -> None:
    assert table(["NAME", "NODE"], []) == "NAME   NODE\n"


@given(words)
def test_text_of_others_cannot_drive_the_terminal(text: str) -> None:
    shown = printable(text)
    assert shown
    assert all(character.isprintable() for character in shown)
    if text.isprintable() and text:
        assert shown == text


@given(st.lists(st.tuples(words, words), max_size=4))
def test_every_row_is_one_line(rows: list[tuple[str, str]]) -> None:
    assert len(table(["A", "B"], rows).splitlines()) == 1 + len(rows)


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_machine_formats_carry_the_data(output: str, read: type, capsys: pytest.CaptureFixture[str]) -> None:
    data = [{"name": "ü", "n": 1, "list": [True, None]}]
    emit(["NAME"], [["ü"]], data, output)
    printed = capsys.readouterr().out
    assert read(printed) == data
    assert "ü" in printed
