"""Every command and option says what it is for."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from ambit import __version__
from ambit.cli.main import COMMANDS, ambit


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", list(commands(ambit)), ids=" ".join)
def test_help(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(ambit, [*path, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: ambit {' '.join(path)}")
    command: click.Command = ambit
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{' '.join(path)} {parameter.opts} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_they_say_themselves(name: str) -> None:
    command = ambit.get_command(click.Context(ambit), name)
    assert command is not None and command.help is not None
    assert f"{' '.join(command.help.split())} ".startswith(f"{COMMANDS[name][1]} ")
    assert f"  {name} " in CliRunner().invoke(ambit, ["--help"]).output


def test_version_option() -> None:
    assert CliRunner().invoke(ambit, ["--version"]).output == f"ambit {__version__}\n"


def test_lists_of_commands_have_whole_sentences() -> None:
    cut = []
    for path in commands(ambit):
        _, _, listed = CliRunner().invoke(ambit, [*path, "--help"]).output.partition("\nCommands:\n")
        cut += [f"{' '.join(path)}: {line}" for line in listed.splitlines() if line.endswith("...")]
    assert cut == []
