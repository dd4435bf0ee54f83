"""What is typed wrong is answered with what to type."""

import os
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ambit.cli.access import running_state
from ambit.cli.main import COMMANDS, ambit
from ambit.core.errors import NotRunning
from ambit.local.instance.record import InstanceRecord, ProcessId, boot_id, write_record
from ambit.local.layout import StateDirectory


@pytest.mark.parametrize(("typed", "meant"), [("flow", "flows"), ("polices", "policies")])
def test_a_misspelt_command_is_guessed(typed: str, meant: str) -> None:
    result = CliRunner().invoke(ambit, [typed])
    assert result.exit_code == click.UsageError.exit_code
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in result.output


@pytest.mark.parametrize(
    ("typed", "here"), [("proxy-status", "ambit ps"), ("help", "ambit --help"), ("analyze", "ambit check")]
)
def test_what_other_tools_call_it_is_answered_with_ours(typed: str, here: str) -> None:
    result = CliRunner().invoke(ambit, [typed])
    assert result.exit_code == click.UsageError.exit_code
    assert f"No such command '{typed}'. Here it is `{here}`." in result.output
    assert typed not in COMMANDS


def test_down_with_a_wrong_name_says_which_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMBIT_STATE", os.fspath(tmp_path))
    two = StateDirectory.of("two")
    two.root.mkdir()
    write_record(two, InstanceRecord("two", "0", ProcessId.of(os.getpid()), boot_id(), 1, 1, False))
    result = CliRunner().invoke(ambit, ["down", "--name", "tow"])
    assert "No instance 'tow': nothing to do; running: two (choose one with --name)" in result.output


def test_an_instance_that_does_not_run_names_those_that_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMBIT_STATE", os.fspath(tmp_path))
    with pytest.raises(NotRunning) as caught:
        running_state("one")
    assert caught.value.hint == "type `ambit up --name one`"
    two = StateDirectory.of("two", {"AMBIT_STATE": os.fspath(tmp_path)})
    two.root.mkdir()
    write_record(two, InstanceRecord("two", "0", ProcessId.of(os.getpid()), boot_id(), 1, 1, False))
    with pytest.raises(NotRunning) as caught:
        running_state("one")
    assert caught.value.hint == "type `ambit up --name one`; running: two (choose one with --name)"
