"""`ambit why`: which rule decides about a connection, from configuration, confirmed by decision records."""

import asyncio
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.confirmation import Confirmation, confirm
from ambit.cli.live_objects import compile_cluster
from ambit.cli.manifests import read_manifests
from ambit.cli.mesh import read_flows
from ambit.cli.mesh_config import mesh_config_option, read_mesh_config
from ambit.cli.render.answer import answer_lines
from ambit.cli.render.output import emit_data, output_option
from ambit.core.errors import AmbitError
from ambit.core.names import DEFAULT_TRUST_DOMAIN, ROOT_NAMESPACE
from ambit.ingest.settings import MeshSettings
from ambit.insight.manifests import compile_objects
from ambit.insight.why import ALLOWED, Answer, why
from ambit.kube.client import Client

NEWEST = 1000
"""Records of each node that are looked at, of those to this port."""
PATIENCE = 10.0
"""Seconds for the nodes to hand out records: the answer does not depend on them."""


@click.command("why")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST:PORT")
@cluster_options
@click.option(
    "-n", "--namespace", default="default", show_default=True, metavar="NAME", help="Of names without one."
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
    destination: str,
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    namespace: str,
    files: tuple[str, ...],
    trust_domain: str,
    trust_domain_aliases: tuple[str, ...],
    root_namespace: str,
    mesh_config_file: Path | None,
    output: str,
) -> None:
    """Why a connection from SRC to DST:PORT is allowed or denied.

    SRC is a pod, a workload or an address; DST a service (name, DNS name or address), else a pod. Says which rule
    decides, the nearest rule that would have decided otherwise and what it lacks, and whether the newest record of
    such a connection says the same. Exits with 0 when it is allowed at every endpoint, with 1 when not.
    """
    confirmations: list[Confirmation] = []
    if files:
        settings = MeshSettings(
            trust_domain=trust_domain,
            trust_domain_aliases=trust_domain_aliases,
            root_namespace=root_namespace,
            entry_visibility=read_mesh_config(mesh_config_file).entry_visibility,
        )
        compiled = compile_objects(read_manifests(files), settings, namespace)
        answer = why(source, destination, compiled, namespace)
    else:

        async def work(client: Client) -> tuple[Answer, list[Confirmation]]:
            answer = why(source, destination, await compile_cluster(client), namespace)
            return answer, await _confirmations(client, answer)

        answer, confirmations = run(with_client(open_client(name, kubeconfig, context), work))
    if output == "table":
        for line in answer_lines(answer, confirmations):
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


def _data(answer: Answer, confirmations: list[Confirmation]) -> Any:
    data = msgspec.to_builtins(answer)
    for ruling, confirmation in zip(data["rulings"], confirmations, strict=False):
        ruling["confirmation"] = msgspec.to_builtins(confirmation)
    return data
