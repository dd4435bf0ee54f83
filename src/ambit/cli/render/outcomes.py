"""Checks on the terminal, by category, with what to type where one does not hold."""

from collections.abc import Iterable

import click

from ambit.cli.checks import Outcome
from ambit.cli.render.output import printable

SIGNS = {"success": ("√", "green"), "warning": ("‼", "yellow"), "error": ("×", "red")}


def print_outcomes(outcomes: Iterable[Outcome], *, only_trouble: bool = False, err: bool = False) -> None:
    """`err`: to standard error, for a command whose result is something else."""
    category = ""
    for outcome in outcomes:
        if only_trouble and outcome.result == "success":
            continue
        if outcome.category != category:
            category = outcome.category
            click.echo(f"{category}\n{'-' * len(category)}", err=err)
        sign, colour = SIGNS[outcome.result]
        click.echo(f"{click.style(sign, fg=colour)} {outcome.description}", err=err)
        if outcome.error:
            for line in outcome.error.splitlines():
                click.echo(f"    {printable(line)}", err=err)
            click.echo(f"    hint: {outcome.hint}  [{outcome.id}]", err=err)
