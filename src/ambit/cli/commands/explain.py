"""`ambit explain`."""

import difflib

import click

from ambit.cli.render.output import emit_data
from ambit.core.codes import CODES
from ambit.core.errors import BadInput


@click.command("explain")
@click.argument("code", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "yaml"]),
    default="text",
    show_default=True,
    help="Output format.",
)
def command(code: str | None, output: str) -> None:
    """What a finding's code means and what to do. Without CODE, lists all."""
    if code is None:
        if output == "text":
            click.echo("\n".join(f"{each.code}  {each.title}" for each in CODES.values()))
        else:
            emit_data(list(CODES.values()), output)
        return
    asked = f"AMB{int(code):04}" if code.isdecimal() else code.upper()
    found = CODES.get(asked)
    if found is None:
        family = [each for each in CODES if each[:5] == asked[:5]]
        near = difflib.get_close_matches(asked, family or CODES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadInput(f"{code!r} is no finding of this version", f"{hint}`ambit explain` lists all")
    if output == "text":
        example = "\n".join(f"    {line}" for line in found.example.splitlines())
        click.echo(f"{found.code}: {found.title}\n\n{found.meaning}\n\n{example}\n\n{found.repair}")
    else:
        emit_data(found, output)
