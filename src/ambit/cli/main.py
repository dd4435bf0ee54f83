"""The `ambit` command: subcommands are imported only when they are used."""

import importlib
import signal
import sys

import click

from ambit import __version__
from ambit.core.errors import AmbitError

COMMANDS = {
    "up": "ambit.cli.commands.up:command",
    "down": "ambit.cli.commands.down:command",
    "demo": "ambit.cli.commands.demo:command",
    "check": "ambit.cli.commands.check:command",
    "explain": "ambit.cli.commands.explain:command",
    "ps": "ambit.cli.commands.ps:command",
    "workloads": "ambit.cli.commands.proxy_state:workloads",
    "services": "ambit.cli.commands.proxy_state:services",
    "policies": "ambit.cli.commands.proxy_state:policies",
    "certs": "ambit.cli.commands.proxy_state:certs",
    "connections": "ambit.cli.commands.proxy_state:connections",
    "flows": "ambit.cli.commands.flows:command",
    "control": "ambit.cli.commands.control:command",
    "node": "ambit.cli.commands.node:command",
    "local": "ambit.cli.commands.local:command",
    "version": "ambit.cli.commands.version:command",
}
"""Command name to `module:attribute`."""


class LazyGroup(click.Group):
    """Imports a command's module when it is called; `--help` imports them all."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def ambit() -> None:
    """A sidecar-less service mesh: Python decides, stock Envoy carries."""


def main() -> None:
    """Entry point. An AmbitError becomes a sentence, a hint and an exit code; SIGTERM acts as Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ambit.main(standalone_mode=False, prog_name="ambit")
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except click.Abort:
        sys.exit(130)
    except AmbitError as problem:
        click.echo(f"error: {problem.message}", err=True)
        if problem.hint:
            click.echo(f"\nhint: {problem.hint}", err=True)
        sys.exit(problem.exit_code)
