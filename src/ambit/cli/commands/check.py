"""`ambit check`."""

import asyncio
import sys
import time

import click

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.checks import Outcome, run_checks
from ambit.cli.render.output import emit_data, printable
from ambit.kube.client import Client

SIGNS = {"success": ("√", "green"), "warning": ("‼", "yellow"), "error": ("×", "red")}
LOOK_AGAIN = 0.5


@click.command("check")
@cluster_options
@click.option("--wait", default=0.0, metavar="SECONDS", help="Try again this long until everything holds.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "short", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Output format.",
)
def command(name: str | None, kubeconfig: str | None, context: str | None, wait: float, output: str) -> None:
    """Is everything healthy, and what to type if not. Exits with 1 when something is not."""

    async def work(client: Client) -> list[Outcome]:
        deadline = time.monotonic() + wait
        while True:
            outcomes = await run_checks(client)
            if time.monotonic() >= deadline or all(outcome.result == "success" for outcome in outcomes):
                return outcomes
            await asyncio.sleep(LOOK_AGAIN)

    outcomes = run(with_client(open_client(name, kubeconfig, context), work))
    has_failed = any(outcome.result == "error" for outcome in outcomes)
    if output in ("json", "yaml"):
        emit_data({"success": not has_failed, "checks": outcomes}, output)
    else:
        _print(outcomes, only_trouble=output == "short")
        click.echo(f"\nStatus check results are {'×' if has_failed else '√'}")
    sys.exit(1 if has_failed else 0)


def _print(outcomes: list[Outcome], *, only_trouble: bool) -> None:
    category = ""
    for outcome in outcomes:
        if only_trouble and outcome.result == "success":
            continue
        if outcome.category != category:
            category = outcome.category
            click.echo(f"{category}\n{'-' * len(category)}")
        sign, colour = SIGNS[outcome.result]
        click.echo(f"{click.style(sign, fg=colour)} {outcome.description}")
        if outcome.error:
            for line in outcome.error.splitlines():
                click.echo(f"    {printable(line)}")
            click.echo(f"    hint: {outcome.hint}  [{outcome.id}]")
