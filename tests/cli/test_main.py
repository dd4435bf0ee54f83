"""What is typed wrong is answered with what to type."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ambit.cli.access import running_state
from ambit.cli.main import COMMANDS, ambit
from ambit.core.errors import AmbitError, BadInput, EnvironmentProblem, NotRunning
from ambit.local.instance.record import InstanceRecord, ProcessId, boot_id, write_record
from ambit.local.instance.start import instance_lock
from ambit.local.layout import StateDirectory


@pytest.mark.parametrize(("typed", "meant"), [("flow", "flows"), ("polices", "policies")])
def test_a_misspelt_command_is_guessed(typed: str, meant: str) -> None:
    result = CliRunner().invoke(ambit, [typed])
    assert result.exit_code == click.UsageError.exit_code
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in result.output


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("logs", "kubectl -n ambit-system logs -l app=ztunnel"),
        ("inject", "kubectl label namespace NAME istio.io/dataplane-mode=ambient"),
        ("completion", "_AMBIT_COMPLETE=bash_source ambit"),
    ],
)
def test_what_is_no_command_is_answered_with_what_to_type(typed: str, words: str) -> None:
    result = CliRunner().invoke(ambit, [typed])
    assert result.exit_code == click.UsageError.exit_code
    assert words in result.output
    assert typed not in COMMANDS


def test_the_shell_completes_commands_and_options() -> None:
    program = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'ambit'; from ambit.cli.entry import main; main()",
    ]
    for line, word, offered in (("ambit fl", "1", "flows"), ("ambit flows --den", "2", "--denied")):
        given = {**os.environ, "_AMBIT_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": word}
        said = subprocess.run(program, env=given, check=False, capture_output=True, text=True)
        assert f"plain,{offered}" in said.stdout.splitlines(), said


@pytest.mark.parametrize(
    ("typed", "here"),
    [
        ("proxy-status", "ambit ps"),
        ("help", "ambit --help"),
        ("analyze", "ambit check`, for files `ambit compile -f FILE"),
        ("pc", "ambit compile -o envoy"),
        ("bug-report", "ambit check -o json`, `ps -o json` and `node status -o json"),
        ("stat", "ambit flows` or `ambit connections"),
    ],
)
def test_what_other_tools_call_it_is_answered_with_ours(typed: str, here: str) -> None:
    result = CliRunner().invoke(ambit, [typed])
    assert result.exit_code == click.UsageError.exit_code
    assert f"No such command '{typed}'. Here it is `{here}`." in result.output
    assert typed not in COMMANDS


SCOPES = Path(__file__).parents[1] / "golden/compile/policy_scopes/in.yaml"
MUCH = ("compile", "-f", str(SCOPES), "-f", str(SCOPES.parents[1] / "enrolled_deployment/in.yaml"))


@pytest.mark.parametrize("words", [("--help",), ("certs", "--help"), MUCH])
def test_output_that_cannot_be_written_is_one_sentence(words: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "ambit", *words],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.stderr.splitlines()[-1] == (
        "error: standard output cannot be written: No space left on device"
    )
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 1


@pytest.mark.parametrize("words", [("--help",), MUCH])
def test_a_reader_who_has_seen_enough_is_no_failure(words: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "ambit", *words],
            check=False,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--region", "eu west"), "--region 'eu west' cannot be a node's label"),
        (("--zone", "a", "--zone", "-b"), "--zone '-b' cannot be a node's label"),
        (("--nodes", "1", "--region", "a", "--region", "b"), "--region is given 2 times for 1 node"),
    ],
)
def test_places_that_nodes_cannot_have_are_refused_first(words: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(ambit, ["up", "--name", "nobody", *words])
    assert isinstance(result.exception, BadInput)
    assert result.exception.message == message
    assert result.exception.hint


def test_a_state_directory_that_cannot_be_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMBIT_STATE", "/proc/nothing-here")
    with (
        pytest.raises(EnvironmentProblem, match="cannot write the state directory") as caught,
        instance_lock(StateDirectory.of("nobody")),
    ):
        pass
    assert "AMBIT_STATE" in caught.value.hint


@pytest.mark.parametrize("seconds", ["0", "-1"])
def test_up_wants_some_time(seconds: str) -> None:
    result = CliRunner().invoke(ambit, ["up", "--name", "nobody", "--timeout", seconds])
    assert result.exit_code == click.UsageError.exit_code


def test_outcomes_that_exclude_each_other() -> None:
    result = CliRunner().invoke(ambit, ["flows", "--denied", "--verdict", "allowed"])
    assert isinstance(result.exception, BadInput)


def test_an_empty_pattern_fits_no_image() -> None:
    result = CliRunner().invoke(ambit, ["local", "image", "add", "", "--", "true"])
    assert isinstance(result.exception, BadInput)


def test_down_with_a_wrong_name_says_which_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMBIT_STATE", os.fspath(tmp_path))
    two = StateDirectory.of("two")
    two.root.mkdir()
    write_record(two, InstanceRecord("two", "0", ProcessId.of(os.getpid()), boot_id(), 1, 1, False))
    result = CliRunner().invoke(ambit, ["down", "--name", "tow"])
    assert (
        "No instance 'tow': nothing to do; running: two (choose one with --name, or --all)" in result.output
    )


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


@pytest.mark.parametrize("words", ["workloads", "services", "policies", "connections", "certs", "flows"])
def test_all_namespaces_may_be_said_as_to_kubectl(words: str) -> None:
    result = CliRunner().invoke(ambit, [words, "-A", "--kubeconfig", "/nowhere"])
    assert isinstance(result.exception, AmbitError), result.output
    assert "/nowhere" in result.exception.message


INTERRUPTING = """
import os, runpy, signal, sys

place = sys.argv.pop(1)

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == place:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
runpy.run_module("ambit", run_name="__main__")
"""


@pytest.mark.parametrize(
    "place", ["click", "ambit.core.errors", "ambit.cli.main", "ambit.cli.commands.check", "ambit.kube.client"]
)
def test_an_interrupt_ends_quietly_wherever_it_hits(place: str) -> None:
    """The program interrupts itself while it imports `place`."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTING, place, "check", "--name", "nobody"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


@pytest.mark.parametrize(("value", "is_coloured"), [("", True), ("1", False)])
def test_no_color_turns_colours_off(value: str, is_coloured: bool) -> None:
    """Output is as on a terminal; an empty variable does not count (no-color.org)."""
    scopes = Path(__file__).parents[1] / "golden" / "compile" / "policy_scopes" / "in.yaml"
    words = ["why", "-f", str(scopes), "db", "web:8080"]
    result = CliRunner().invoke(ambit, words, color=True, env={"NO_COLOR": value})
    assert "web" in result.output
    assert ("\x1b[" in result.output) is is_coloured


_FOLLOWS = """
import asyncio
from ambit.cli import main
from ambit.cli.access import run

async def work():
    try:
        print("begun", flush=True)
        await asyncio.Event().wait()
    finally:
        print("cancelled", flush=True)

main.ambit.main = lambda **_: run(work())
from ambit.cli.entry import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_cancels_the_work_and_ends_with_130(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _FOLLOWS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        printed, errors = process.communicate(timeout=30)
    assert (process.returncode, printed, errors) == (130, "cancelled\n", "")


def test_install_refuses_a_revision_with_what_to_type() -> None:
    result = CliRunner().invoke(ambit, ["install", "--revision", "canary"])
    assert isinstance(result.exception, BadInput)
    assert "--revision canary: ambit has one control plane and no revisions" in result.exception.message
    assert "leave out --revision" in result.exception.hint
