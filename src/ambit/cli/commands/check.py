"""`ambit check`."""

import asyncio
import sys
import time
from collections.abc import Iterable

import click

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.checks import CHECKS, OBJECTS, Check, Outcome, Result, run_checks
from ambit.cli.render.outcomes import print_outcomes
from ambit.cli.render.output import emit_data
from ambit.kube.client import Client

LOOK_AGAIN = 0.5
BAD_OBJECTS = 79
"""As `istioctl analyze`."""


@click.command("check")
@cluster_options
@click.option("--pre", is_flag=True, help="Can the mesh be installed into this cluster?")
@click.option(
    "--wait",
    default=0.0,
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Try again this long until nothing fails; objects and warnings are not waited for.",
)
@click.option(
    "--failure-threshold",
    "threshold",
    type=click.Choice(("warning", "error"), case_sensitive=False),
    default="error",
    show_default=True,
    help="Of what is wrong with objects: from which level on the exit code is 79.",
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
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    pre: bool,
    wait: float,
    threshold: Result,
    output: str,
) -> None:
    """Is everything healthy, and what to type if not.

    Exits with 1 when something of the mesh is not. When only objects are wrong that somebody has applied it exits
    with 79, as `istioctl analyze` does.
    """
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
    code = exit_code(outcomes, threshold)
    if output in ("json", "yaml"):
        emit_data({"success": not code, "checks": outcomes}, output)
    else:
        print_outcomes(outcomes, only_trouble=output == "short")
        click.echo(f"\nStatus check results are {'×' if code else '√'}")
    sys.exit(code)


def failed(outcomes: Iterable[Outcome]) -> bool:
    """Whether something of the mesh does not hold. A warning may last and so may what is wrong with objects, so they
    are not waited for."""
    return any(outcome.result == "error" and outcome.category != OBJECTS for outcome in outcomes)


def exit_code(outcomes: Iterable[Outcome], threshold: Result = "error") -> int:
    """What the command exits with; `threshold` is for objects alone."""
    found = list(outcomes)
    if failed(found):
        return 1
    bad: tuple[Result, ...] = ("error",) if threshold == "error" else ("warning", "error")
    return BAD_OBJECTS if any(each.category == OBJECTS and each.result in bad for each in found) else 0
