"""`ambit explain`."""

import json

import pytest
from click.testing import CliRunner

from ambit.cli.commands.explain import command
from ambit.core.codes import CODES
from ambit.core.errors import BadInput


def test_every_code_can_be_explained() -> None:
    for code, each in CODES.items():
        text = CliRunner().invoke(command, [code.lower()]).output
        assert text.startswith(f"{code}: {each.title}") and each.repair in text
        assert CliRunner().invoke(command, [code.removeprefix("AMB0")]).output == text


def test_the_list_and_the_machine_formats() -> None:
    listed = CliRunner().invoke(command, []).output.splitlines()
    assert [line.split()[0] for line in listed] == list(CODES)
    assert json.loads(CliRunner().invoke(command, ["AMB0212", "-o", "json"]).output)["code"] == "AMB0212"
    assert len(json.loads(CliRunner().invoke(command, ["-o", "json"]).output)) == len(CODES)


def test_an_unknown_code_names_the_nearest() -> None:
    result = CliRunner().invoke(command, ["AMB0211"])
    assert isinstance(result.exception, BadInput) and "AMB02" in result.exception.hint
    with pytest.raises(BadInput):
        CliRunner().invoke(command, ["x"], catch_exceptions=False)
