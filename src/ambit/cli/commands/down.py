"""`ambit down`."""

import click

from ambit.cli.access import DEFAULT_NAME, instance_state, name_option
from ambit.local.instance.stop import stop_instance


@click.command("down")
@name_option
def command(name: str | None) -> None:
    """Stop a laptop cluster and remove everything it made."""
    if stop_instance(instance_state(name)):
        click.echo(f"Instance {name or DEFAULT_NAME!r} is gone", err=True)
    else:
        click.echo(f"No instance {name or DEFAULT_NAME!r}: nothing to do", err=True)
