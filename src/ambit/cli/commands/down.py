"""`ambit down`."""

import click

from ambit.cli.access import DEFAULT_NAME, instance_names, instance_state, name_option, running_names
from ambit.core.errors import BadInput
from ambit.local.instance.stop import stop_instance


@click.command("down")
@name_option
@click.option(
    "--all", "every", is_flag=True, help="Every instance of this user, also what crashed ones left."
)
def command(name: str | None, every: bool) -> None:
    """Stop a laptop cluster and remove everything it made."""
    if every:
        if name is not None:
            raise BadInput("--all and --name exclude each other", "give one of them")
        _stop_all()
    elif stop_instance(instance_state(name)):
        click.echo(f"Instance {name or DEFAULT_NAME!r} is gone", err=True)
    else:
        others = running_names(instance_state(name))
        also = f"; running: {', '.join(others)} (choose one with --name, or --all)" if others else ""
        click.echo(f"No instance {name or DEFAULT_NAME!r}: nothing to do{also}", err=True)


def _stop_all() -> None:
    names = instance_names(instance_state(None))
    for each in names:
        if stop_instance(instance_state(each)):
            click.echo(f"Instance {each!r} is gone", err=True)
    if not names:
        click.echo("No instance: nothing to do", err=True)
