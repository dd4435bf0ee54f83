"""`ambit flows`: what the node proxies decided, one line each."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.mesh import node_of, node_pods, read_flows, stream
from ambit.cli.render.flow_line import flow_line
from ambit.cli.render.output import FORMATS
from ambit.core.errors import AmbitError
from ambit.kube.client import Client

Flow = dict[str, Any]
LOOK_AGAIN = 1.0


@click.command("flows")
@cluster_options
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@click.option(
    "--last",
    default=20,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many of the past to show first, of those that are chosen; with -f, of each node.",
)
@click.option("--denied", is_flag=True, help="Only denied ones.")
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
@click.option("--node", default=None, metavar="NODE", help="Only decisions of this node.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="Lines, JSON lines, or YAML documents.",
)
def command(
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    follow: bool,
    last: int,
    denied: bool,
    source: str | None,
    destination: str | None,
    node: str | None,
    output: str,
) -> None:
    """Show live decisions: who talked to whom, with which identity, and what was decided by which rule."""

    choice = _choice(denied, source, destination)

    def show(flow: Flow) -> None:
        click.echo(_form(flow, output))

    async def work(client: Client) -> None:
        pods = await node_pods(client, node)
        if follow:
            async with asyncio.TaskGroup() as group:
                for pod in pods:
                    group.create_task(_follow(client, pod, last, choice, show))
            return
        flows = await read_flows(client, last, node, choice)
        for flow in flows[max(len(flows) - last, 0) :]:
            show(flow)

    with contextlib.suppress(KeyboardInterrupt):
        run(with_client(open_client(name, kubeconfig, context), work))


def _form(flow: Flow, output: str) -> str:
    if output == "json":
        return msgspec.json.encode(flow).decode()
    if output == "yaml":
        import yaml

        return f"---\n{yaml.safe_dump(flow, sort_keys=False, allow_unicode=True)}".rstrip()
    return flow_line(flow)


def _choice(denied: bool, source: str | None, destination: str | None) -> str:
    """The agents choose, so that `--last` counts only what was asked for."""
    texts = {"from": source, "to": destination}
    chosen = {name: text for name, text in texts.items() if text} | ({"denied": "1"} if denied else {})
    return f"&{urlencode(chosen)}" if chosen else ""


async def _follow(
    client: Client, pod: dict[str, Any], last: int, choice: str, show: Callable[[Flow], None]
) -> None:
    """A proxy that goes away is waited for; what it says comes on when it is back."""
    path = f"/flows?follow=1&limit={last}{choice}"
    while True:
        try:
            async for flow in stream(client, pod, path):
                show(flow)
        except AmbitError as problem:
            click.echo(f"node {node_of(pod)}: {problem.message}", err=True)
        path = f"/flows?follow=1&limit=0{choice}"
        await asyncio.sleep(LOOK_AGAIN)
