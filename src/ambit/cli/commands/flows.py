"""`ambit flows`: what the proxies decided, one line each."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import urlencode

import click
import msgspec

from ambit.cli.access import all_namespaces, cluster_options, open_client, run, with_client
from ambit.cli.following import EVERYTHING, Flow, follow
from ambit.cli.mesh import Pod, flows_of, node_pods, note_missing_namespace, stream
from ambit.cli.proxies import proxy_flows, proxy_pods
from ambit.cli.render.flow_line import flow_line
from ambit.cli.render.output import FORMATS
from ambit.cli.since import Since
from ambit.core.errors import BadInput
from ambit.insight.ends import POD_KINDS, SERVICE_KINDS
from ambit.kube.client import Client
from ambit.kube.resource import NAMESPACES

VERDICTS = ("allowed", "denied", "failed")
_LAST = 20
_GATEWAY_KINDS = frozenset({"gtw", "gateway", "gateways"})
_CODE = re.compile(r"0|(?=.{3}$)[1-5]\d*x*", re.IGNORECASE)


class Code(click.ParamType[str]):
    """The status of an answer, `404`, or a class of them, `5xx`; `0`: none."""

    name = "code"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _CODE.fullmatch(value):
            self.fail(f"{value!r} is neither a status like 404 nor a class of them like 5xx")
        return value


@click.command("flows")
@cluster_options
@click.option("-f", "--follow", "follows", is_flag=True, help="Wait for more.")
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
@click.option(
    "--code", default=None, type=Code(), metavar="CODE", help="Only requests answered so: 404, 5xx."
)
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
    follows: bool,
    last: int | None,
    since: float | None,
    denied: bool,
    verdict: str | None,
    node: str | None,
    everywhere: bool,
    requests: bool,
    output: str,
    **choice: str | float | None,
) -> None:
    """Show live decisions: who talked to whom, with which identity, and what was decided by which rule."""

    if denied and verdict not in (None, "denied"):
        raise BadInput(f"--denied and --verdict {verdict} exclude each other", "give one of them")
    if everywhere:
        choice["namespace"] = None
    choice |= {"from": choice.pop("source"), "to": choice.pop("destination")}
    if requests:
        choice["requests"] = 1
    choice |= {"since": since, "verdict": "denied" if denied else verdict}
    if last is None:
        last = _LAST if since is None else EVERYTHING

    def show(flow: Flow) -> None:
        click.echo(_form(flow, output))

    async def work(client: Client) -> None:
        named = {key: await _text(client, choice[key]) for key in ("pod", "from", "to")}
        query = _query(choice | named)
        if follows:
            await _follow(client, node, last, query, show)
            return
        pods, proxies = await asyncio.gather(node_pods(client, node), proxy_pods(client, node))
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


async def _text(client: Client, value: str | float | None) -> str | float | None:
    """`deploy/curl`, as typed to kubectl, as the part of NAMESPACE/NAME that it is, of a service of its host name."""
    if not isinstance(value, str):
        return value
    kind, slash, name = value.partition("/")
    short = kind.partition(".")[0]
    if not slash or short not in POD_KINDS | SERVICE_KINDS | _GATEWAY_KINDS:
        return value
    if kind in {each["metadata"]["name"] for each in await client.list(NAMESPACES)}:
        return value
    return f"/{name}." if short in SERVICE_KINDS else f"/{name}"


async def _follow(
    client: Client, node: str | None, last: int, query: str, show: Callable[[Flow], None]
) -> None:
    is_first = True

    async def look() -> list[Pod]:
        nonlocal is_first
        proxies = proxy_pods(client, node, quietly=not is_first)
        is_first = False
        return [pod for several in await asyncio.gather(node_pods(client, node), proxies) for pod in several]

    def read(pod: Pod, limit: int) -> AsyncIterator[Flow]:
        return stream(client, pod, f"/flows?follow=1&limit={limit}{query}")

    await follow(look, read, show, lambda text: click.echo(text, err=True), last)
