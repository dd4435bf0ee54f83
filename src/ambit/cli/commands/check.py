"""`ambit check`."""

import asyncio
import sys
import time
from collections.abc import Iterable

import click

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.checks import CHECKS, Check, Outcome, run_checks
from ambit.cli.render.outcomes import print_outcomes
from ambit.cli.render.output import emit_data
from ambit.kube.client import Client

LOOK_AGAIN = 0.5


@click.command("check")
@cluster_options
@click.option("--pre", is_flag=True, help="Can the mesh be installed into this cluster?")
@click.option(
    "--wait",
    default=0.0,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Try again this long until nothing fails; warnings are not waited for.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "short", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Output format; short: only what does not hold.",
)
def command(
    name: str | None, kubeconfig: str | None, context: str | None, pre: bool, wait: float, output: str
) -> None:
    """Is everything healthy, and what to type if not. Exits with 1 when something is not."""
    checks: tuple[Check, ...] = CHECKS
    if pre:
        from ambit.cli.helm import kubeconfig_file
        from ambit.cli.preflight import PRE_CHECKS

        checks = PRE_CHECKS
        if name is None:
            kubeconfig = kubeconfig_file(kubeconfig)

    async def work(client: Client) -> list[Outcome]:
        deadline = time.monotonic() + wait
        while True:
            outcomes = await run_checks(client, checks)
            if time.monotonic() >= deadline or not failed(outcomes):
                return outcomes
            await asyncio.sleep(LOOK_AGAIN)

    outcomes = run(with_client(open_client(name, kubeconfig, context), work))
    has_failed = failed(outcomes)
    if output in ("json", "yaml"):
        emit_data({"success": not has_failed, "checks": outcomes}, output)
    else:
        print_outcomes(outcomes, only_trouble=output == "short")
        click.echo(f"\nStatus check results are {'×' if has_failed else '√'}")
    sys.exit(1 if has_failed else 0)


def failed(outcomes: Iterable[Outcome]) -> bool:
    """Whether something does not hold; a warning may last, so it neither fails nor is waited for."""
    return any(outcome.result == "error" for outcome in outcomes)
