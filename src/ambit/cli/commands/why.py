"""`ambit why`: what decides about a connection or request, from configuration, confirmed by decision records."""

import asyncio
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
import msgspec

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.confirmation import Confirmation, confirm, confirm_request
from ambit.cli.live_objects import compile_cluster
from ambit.cli.manifests import read_manifests
from ambit.cli.mesh import read_flows
from ambit.cli.mesh_config import mesh_config_option, read_mesh_config
from ambit.cli.proxies import gateway_of, proxy_flows, proxy_pods
from ambit.cli.render.answer import answer_lines, request_lines
from ambit.cli.render.output import emit_data, output_option
from ambit.core.errors import AmbitError, BadInput
from ambit.core.names import DEFAULT_TRUST_DOMAIN, ROOT_NAMESPACE
from ambit.ingest.settings import MeshSettings
from ambit.insight.manifests import Compiled, compile_objects
from ambit.insight.ruling import ALLOWED
from ambit.insight.why import Answer, why
from ambit.insight.why_request import RequestAnswer, why_at_gateway, why_request
from ambit.kube.client import Client

NEWEST = 1000
"""Records of each node that are looked at, of those to this port."""
PATIENCE = 10.0
"""Seconds for the nodes to hand out records: the answer does not depend on them."""


@click.command("why")
@click.argument("source", metavar="SRC")
@click.argument("asked", metavar="DST:PORT | METHOD URL", nargs=-1, required=True)
@cluster_options
@click.option(
    "-n", "--namespace", default="default", show_default=True, metavar="NAME", help="Of names without one."
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="NAME:VALUE",
    help="A header of the request; may be repeated.",
)
@click.option(
    "--gateway",
    metavar="NAME",
    default="",
    help="The request comes to this gateway at the edge, with the URL that its client writes.",
)
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE",
    help="Ask files of API objects (see `ambit compile`) instead of a cluster; may be repeated.",
)
@click.option(
    "--trust-domain", default=DEFAULT_TRUST_DOMAIN, show_default=True, help="With -f: of all identities."
)
@click.option(
    "--trust-domain-alias",
    "trust_domain_aliases",
    multiple=True,
    metavar="NAME",
    help="With -f: another trust domain that means the same; may be repeated.",
)
@click.option(
    "--root-namespace",
    default=ROOT_NAMESPACE,
    show_default=True,
    help="With -f: namespace whose policies hold for the whole mesh.",
)
@mesh_config_option
@output_option
def command(
    source: str,
    asked: tuple[str, ...],
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str,
    headers: tuple[str, ...],
    gateway: str,
    files: tuple[str, ...],
    trust_domain: str,
    trust_domain_aliases: tuple[str, ...],
    root_namespace: str,
    mesh_config_file: Path | None,
    output: str,
) -> None:
    """Why a connection from SRC to DST:PORT, or a request, is allowed or denied.

    SRC is a pod, a workload or an address; DST a service (name, DNS name or address), else a pod. Says which rule
    decides, the nearest rule that would have decided otherwise and what it lacks, and whether the newest record of
    such a connection says the same. Exits with 0 when it is allowed at every endpoint, with 1 when not.

    With METHOD and URL (http://web/path): which waypoint reads the request, what policies say of it there, which rule
    of which route it meets, and where that leads. With --gateway the same of a request from outside.
    """
    _check(asked, headers, gateway)
    destination, given = asked[-1], _headers(headers)
    confirmations: list[Confirmation] = []

    def answered(compiled: Compiled) -> Answer | RequestAnswer:
        if len(asked) == 1:
            return why(source, destination, compiled, namespace)
        if gateway:
            return why_at_gateway(source, asked[0].upper(), destination, compiled, gateway, namespace, given)
        return why_request(source, asked[0].upper(), destination, compiled, namespace, given)

    answer: Answer | RequestAnswer
    if files:
        settings = MeshSettings(
            trust_domain=trust_domain,
            trust_domain_aliases=trust_domain_aliases,
            root_namespace=root_namespace,
        )
        settings = read_mesh_config(mesh_config_file).applied(settings)
        compiled = compile_objects(read_manifests(files), settings, namespace)
        answer = answered(compiled)
    else:

        async def work(client: Client) -> tuple[Answer | RequestAnswer, list[Confirmation]]:
            answer = answered(await compile_cluster(client))
            if isinstance(answer, RequestAnswer):
                return answer, await _confirmation(client, answer, given.get("host", ""))
            return answer, await _confirmations(client, answer)

        answer, confirmations = run(with_client(open_client(name, kubeconfig, context), work))
    if output == "table":
        lines = (
            request_lines(answer, confirmations)
            if isinstance(answer, RequestAnswer)
            else answer_lines(answer, confirmations)
        )
        for line in lines:
            click.echo(line)
    else:
        emit_data(_data(answer, confirmations), output)
    if answer.verdict != ALLOWED:
        sys.exit(1)


async def _confirmations(client: Client, answer: Answer) -> list[Confirmation]:
    """None, with a note, when the nodes cannot be asked."""
    ports = {ruling.port for ruling in answer.rulings if ruling.pod}
    try:
        async with asyncio.timeout(PATIENCE):
            flows = [
                flow
                for port in sorted(ports)
                for flow in await read_flows(client, NEWEST, choice="&" + urlencode({"port": port}))
            ]
    except TimeoutError:
        click.echo("note: no records: the nodes did not answer in time", err=True)
        return []
    except AmbitError as problem:
        click.echo(f"note: no records: {problem.message}", err=True)
        return []
    return [confirm(answer.source, ruling, flows) for ruling in answer.rulings if ruling.pod]


async def _confirmation(client: Client, answer: RequestAnswer, host: str) -> list[Confirmation]:
    """What the newest record of such a request says; none, with a note, when the waypoint cannot be asked."""
    if not answer.reader or answer.connection is not None:
        return []
    url = urlsplit(answer.request.partition(" ")[2])
    path = url.path or "/"
    if answer.gateway and not host:
        host = url.netloc  # many hosts are served by one gateway
    try:
        async with asyncio.timeout(PATIENCE):
            pods = [pod for pod in await proxy_pods(client) if gateway_of(pod) == answer.reader]
            flows = await proxy_flows(client, pods, NEWEST, "&" + urlencode({"path": path}))
    except TimeoutError:
        click.echo("note: no records: the proxy did not answer in time", err=True)
        return []
    return [confirm_request(answer, path, flows, host)]


def _check(asked: tuple[str, ...], headers: tuple[str, ...], gateway: str) -> None:
    if len(asked) > 2:
        raise BadInput(f"{len(asked) + 1} words are too many", "give SRC DST:PORT, or SRC METHOD URL")
    if headers and len(asked) == 1:
        raise BadInput("a connection has no headers", "give SRC METHOD URL with -H")
    if gateway and len(asked) == 1:
        raise BadInput("of connections to gateways nothing is known", "give SRC METHOD URL with --gateway")


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise BadInput(f"{each!r} is no header", "give it as -H name:value")
        found[name.strip().lower()] = value.strip()
    return found


def _data(answer: Answer | RequestAnswer, confirmations: list[Confirmation]) -> Any:
    data = msgspec.to_builtins(answer)
    if isinstance(answer, RequestAnswer):
        return data | ({"confirmation": msgspec.to_builtins(confirmations[0])} if confirmations else {})
    for ruling, confirmation in zip(data["rulings"], confirmations, strict=False):
        ruling["confirmation"] = msgspec.to_builtins(confirmation)
    return data
