"""Groups of commands whose help shows each command's first sentence whole, over several lines where it needs them."""

import click

_WHOLE = 1_000
"""Characters: more than any sentence of ours has."""


class Group(click.Group):
    """`@click.group(NAME, cls=Group)`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [
            (name, command.get_short_help_str(_WHOLE))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
