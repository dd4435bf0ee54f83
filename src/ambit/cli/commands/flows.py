"""`ambit flows`: what the node proxies decided, one line each."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import click
import msgspec

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.mesh import node_of, node_pods, read_flows, stream
from ambit.cli.render.flow_line import flow_line, is_denied
from ambit.cli.render.output import FORMATS
from ambit.core.errors import AmbitError
from ambit.kube.client import Client

Flow = dict[str, Any]
LOOK_AGAIN = 1.0


@click.command("flows")
@cluster_options
@click.option("-f", "--follow", is_flag=True, help="Wait for more.")
@click.option(
    "--last", default=20, show_default=True, help="How many of the past to show first, of each node."
)
@click.option("--denied", is_flag=True, help="Only denied ones.")
@click.option(
    "--from", "source", default=None, metavar="TEXT", help="Only from a pod or namespace/pod with this in it."
)
@click.option(
    "--to",
    "destination",
    default=None,
    metavar="TEXT",
    help="Only to a pod or namespace/pod with this in it.",
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

    def is_wanted(flow: Flow) -> bool:
        return (
            (not denied or is_denied(flow))
            and _contains(flow["source"], source)
            and _contains(flow["destination"], destination)
        )

    def show(flow: Flow) -> None:
        if is_wanted(flow):
            click.echo(_form(flow, output))

    async def work(client: Client) -> None:
        pods = await node_pods(client, node)
        if follow:
            async with asyncio.TaskGroup() as group:
                for pod in pods:
                    group.create_task(_follow(client, pod, last, show))
            return
        for flow in await read_flows(client, last, node):
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


def _contains(end: dict[str, Any], text: str | None) -> bool:
    return text is None or text in f"{end.get('namespace', '')}/{end.get('workload', '')} {end['address']}"


async def _follow(client: Client, pod: dict[str, Any], last: int, show: Callable[[Flow], None]) -> None:
    """A proxy that goes away is waited for; what it says comes on when it is back."""
    path = f"/flows?follow=1&limit={last}"
    while True:
        try:
            async for flow in stream(client, pod, path):
                show(flow)
        except AmbitError as problem:
            click.echo(f"node {node_of(pod)}: {problem.message}", err=True)
        path = "/flows?follow=1&limit=0"
        await asyncio.sleep(LOOK_AGAIN)
