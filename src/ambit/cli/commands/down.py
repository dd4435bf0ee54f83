"""`ambit down`."""

import click

from ambit.cli.access import DEFAULT_NAME, instance_state, name_option, running_names
from ambit.local.instance.stop import stop_instance


@click.command("down")
@name_option
def command(name: str | None) -> None:
    """Stop a laptop cluster and remove everything it made."""
    if stop_instance(instance_state(name)):
        click.echo(f"Instance {name or DEFAULT_NAME!r} is gone", err=True)
    else:
        others = running_names(instance_state(name))
        also = f"; running: {', '.join(others)} (choose one with --name)" if others else ""
        click.echo(f"No instance {name or DEFAULT_NAME!r}: nothing to do{also}", err=True)
