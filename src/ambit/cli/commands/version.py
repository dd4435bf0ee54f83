"""`ambit version`."""

import click

from ambit import __version__


@click.command("version")
def command() -> None:
    """Print the version of this program."""
    click.echo(f"ambit {__version__}")
