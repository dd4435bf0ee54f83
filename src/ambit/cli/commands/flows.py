"""`ambit flows`: what the proxies decided, one line each."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from ambit.cli.access import all_namespaces, cluster_options, open_client, run, with_client
from ambit.cli.mesh import flows_of, node_pods, note_missing_namespace, stream
from ambit.cli.proxies import proxy_flows, proxy_pods
from ambit.cli.render.flow_line import flow_line
from ambit.cli.render.output import FORMATS
from ambit.cli.since import Since
from ambit.core.errors import AmbitError, BadInput
from ambit.kube.client import Client

Flow = dict[str, Any]
LOOK_AGAIN = 1.0
VERDICTS = ("allowed", "denied", "failed")
_LAST, _ALL = 20, 1_000_000


@click.command("flows")
@cluster_options
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@click.option(
    "--last",
    default=None,
    type=click.IntRange(min=0),
    help="How many of the past to show first, of those that are chosen; with -f, of each node."
    "  [default: 20; with --since all]",
)
@click.option(
    "--since", default=None, type=Since(), metavar="WHEN", help="Only what ended since: 5m, 1h30m, or a time."
)
@click.option("-n", "--namespace", default=None, metavar="NAME", help="Only from or to this namespace.")
@all_namespaces
@click.option(
    "--pod", default=None, metavar="TEXT", help="Only from or to a pod with this in NAMESPACE/NAME."
)
@click.option(
    "--from",
    "source",
    default=None,
    metavar="TEXT",
    help="Only from a pod or address with this in NAMESPACE/NAME.",
)
@click.option(
    "--to",
    "destination",
    default=None,
    metavar="TEXT",
    help="Only to a pod, address or service with this in NAMESPACE/NAME.",
)
@click.option("--path", default=None, metavar="TEXT", help="Only requests with this in their path.")
@click.option("--code", default=None, metavar="CODE", help="Only requests answered so: 404, 5xx.")
@click.option("--requests", is_flag=True, help="Only requests, as who has read them tells.")
@click.option("--port", default=None, type=click.IntRange(1, 65535), help="Only to this port.")
@click.option("--verdict", type=click.Choice(VERDICTS), help="Only with this outcome.")
@click.option("--denied", is_flag=True, help="The same as --verdict denied.")
@click.option("--node", default=None, metavar="NODE", help="Only decisions of this node.")
@click.option(
    "-o",
    "--output",
    type=click.Choice((*FORMATS, "wide")),
    default="table",
    show_default=True,
    help="Lines (wide: with addresses, service and whole identities), JSON lines, or YAML documents.",
)
def command(
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    follow: bool,
    last: int | None,
    since: float | None,
    denied: bool,
    verdict: str | None,
    node: str | None,
    everywhere: bool,
    requests: bool,
    output: str,
    **choice: str | int | None,
) -> None:
    """Show live decisions: who talked to whom, with which identity, and what was decided by which rule."""

    if denied and verdict not in (None, "denied"):
        raise BadInput(f"--denied and --verdict {verdict} exclude each other", "give one of them")
    if everywhere:
        choice["namespace"] = None
    choice |= {"from": choice.pop("source"), "to": choice.pop("destination")}
    if requests:
        choice["requests"] = 1
    query = _query({**choice, "since": since, "verdict": "denied" if denied else verdict})
    if last is None:
        last = _LAST if since is None else _ALL

    def show(flow: Flow) -> None:
        click.echo(_form(flow, output))

    async def work(client: Client) -> None:
        pods, proxies = await asyncio.gather(node_pods(client, node), proxy_pods(client, node))
        if follow:
            async with asyncio.TaskGroup() as group:
                for pod in (*pods, *proxies):
                    group.create_task(_follow(client, pod, last, query, show))
            return
        parts = await asyncio.gather(
            flows_of(client, pods, last, query), proxy_flows(client, proxies, last, query)
        )
        flows = sorted((flow for part in parts for flow in part), key=lambda flow: float(flow["time"]))
        for flow in flows[max(len(flows) - last, 0) :]:
            show(flow)
        if not flows and last:
            await note_missing_namespace(client, str(choice["namespace"] or ""))
            chosen = " like that" if query else ""
            what = "request" if requests else "connection"
            click.echo(f"no {what}{chosen} has ended yet; an open one: `ambit connections`", err=True)

    with contextlib.suppress(KeyboardInterrupt):
        run(with_client(open_client(name, kubeconfig, context), work))


def _form(flow: Flow, output: str) -> str:
    if output == "json":
        return msgspec.json.encode(flow).decode()
    if output == "yaml":
        import yaml

        return f"---\n{yaml.safe_dump(flow, sort_keys=False, allow_unicode=True)}".rstrip()
    return flow_line(flow, wide=output == "wide")


def _query(choice: Mapping[str, str | float | None]) -> str:
    """The agents choose, so that `--last` counts only what was asked for."""
    chosen = {key: value for key, value in choice.items() if value is not None}
    return f"&{urlencode(chosen)}" if chosen else ""


async def _follow(
    client: Client, pod: dict[str, Any], last: int, choice: str, show: Callable[[Flow], None]
) -> None:
    """A proxy that goes away is waited for; what it says comes on when it is back. What is wrong is told once."""
    told = ""
    path = f"/flows?follow=1&limit={last}{choice}"
    while True:
        try:
            async for flow in stream(client, pod, path):
                show(flow)
        except AmbitError as problem:
            if problem.message != told:
                click.echo(f"{pod['metadata']['name']}: {problem.message}", err=True)
            told = problem.message
        path = f"/flows?follow=1&limit=0{choice}"
        await asyncio.sleep(LOOK_AGAIN)
