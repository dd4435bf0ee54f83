"""`ambit why`: what decides about a connection or request, from configuration, confirmed by decision records."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import click
import msgspec
from cryptography import x509

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
from ambit.insight.at_tokens import Shown
from ambit.insight.leading import RequestAnswer
from ambit.insight.manifests import Compiled, compile_objects
from ambit.insight.ruling import ALLOWED
from ambit.insight.why import Answer, why
from ambit.insight.why_request import why_at_gateway, why_request
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
    "-n",
    "--namespace",
    default=None,
    metavar="NAME",
    help="Of names without one; else the context's, with -f default.",
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
    "--token",
    default="",
    metavar="TOKEN",
    help="A token (JWT) that it has in `Authorization: Bearer`; `@FILE` reads it from a file.",
)
@click.option(
    "--cert",
    "certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --gateway: the certificate (PEM) that the client shows.",
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
    namespace: str | None,
    headers: tuple[str, ...],
    token: str,
    certificate: Path | None,
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

    With METHOD and URL (http://web/path): which waypoint reads the request, what policies say of it there and which
    rule came nearest to saying otherwise, which rule of which route it meets, and where that leads. With --gateway the
    same of a request from outside. Where a second waypoint takes a part of a service's connections each part has its
    own answer. Signatures of tokens and certificates are not tried.
    """
    _check(asked, bool(headers or token), gateway, certificate)
    destination, given = asked[-1], _headers(headers) | _bearing(token)
    shown = Shown(_names(certificate) if certificate is not None else None, now=time.time())
    confirmations: list[Confirmation] = []
    method = asked[0].upper()

    def answered(compiled: Compiled, place: str) -> Answer | RequestAnswer:
        if len(asked) == 1:
            return why(source, destination, compiled, place)
        if gateway:
            return why_at_gateway(source, method, destination, compiled, gateway, place, given, shown)
        return why_request(source, method, destination, compiled, place, given, shown)

    answer: Answer | RequestAnswer
    if files:
        settings = MeshSettings(
            trust_domain=trust_domain,
            trust_domain_aliases=trust_domain_aliases,
            root_namespace=root_namespace,
        )
        settings = read_mesh_config(mesh_config_file).applied(settings)
        place = namespace or "default"
        answer = answered(compile_objects(read_manifests(files), settings, place), place)
    else:

        async def work(client: Client) -> tuple[Answer | RequestAnswer, list[Confirmation]]:
            answer = answered(await compile_cluster(client), namespace or client.namespace)
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
    ports = {ruling.port for ruling in answer.all_rulings if ruling.pod}
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
    return [confirm(answer.source, ruling, flows) for ruling in answer.all_rulings if ruling.pod]


async def _confirmation(client: Client, answer: RequestAnswer, host: str) -> list[Confirmation]:
    """What the newest record of such a request says, of each part; none, with a note, when who reads it cannot be
    asked."""
    if answer.parts:
        several = [await _confirmation(client, each.answer, host) for each in answer.parts]
        return [each for found in several for each in found] if all(several) else []
    if answer.connection is not None:
        return []
    url = urlsplit(answer.request.partition(" ")[2])
    path = url.path or "/"
    if answer.gateway and not host:
        host = url.netloc  # many hosts are served by one gateway
    try:
        async with asyncio.timeout(PATIENCE):
            if answer.is_inline:
                # Where the server is, the path may be another.
                flows = await read_flows(client, NEWEST, choice="&" + urlencode({"requests": 1}))
            else:
                pods = [pod for pod in await proxy_pods(client) if gateway_of(pod) == answer.reader]
                flows = await proxy_flows(client, pods, NEWEST, "&" + urlencode({"path": path}))
    except TimeoutError:
        click.echo("note: no records: the proxy did not answer in time", err=True)
        return []
    except AmbitError as problem:
        click.echo(f"note: no records: {problem.message}", err=True)
        return []
    return [confirm_request(answer, path, flows, host)]


def _check(asked: tuple[str, ...], bears: bool, gateway: str, certificate: Path | None) -> None:
    if len(asked) > 2:
        raise BadInput(f"{len(asked) + 1} words are too many", "give SRC DST:PORT, or SRC METHOD URL")
    if len(asked) == 1 and "://" in asked[0]:
        raise BadInput(f"the method of the request to {asked[0]} is missing", f"give SRC GET {asked[0]}")
    if bears and len(asked) == 1:
        raise BadInput("a connection has no headers or tokens", "give SRC METHOD URL with -H and --token")
    if gateway and len(asked) == 1:
        raise BadInput("of connections to gateways nothing is known", "give SRC METHOD URL with --gateway")
    if certificate is not None and not gateway:
        raise BadInput("--cert is for requests to a gateway", "waypoints know callers by their pods")


def _bearing(token: str) -> dict[str, str]:
    """The header of a token. Raises BadInput for a file that cannot be read."""
    if not token:
        return {}
    if token.startswith("@"):
        try:
            token = Path(token[1:]).read_text().strip()
        except (OSError, ValueError) as problem:
            raise BadInput(f"--token {token}: {problem}") from problem
    return {"authorization": f"Bearer {token}"}


def _names(certificate: Path) -> tuple[str, ...]:
    """The URIs in a certificate. Raises BadInput."""
    try:
        leaf = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (OSError, ValueError) as problem:
        raise BadInput(f"--cert {certificate} is no certificate: {problem}") from problem
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


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
        told = [each["answer"] for each in data.get("parts", ())] or [data]
        for each, confirmation in zip(told, confirmations, strict=False):
            each["confirmation"] = msgspec.to_builtins(confirmation)
        return data
    parts = (each["answer"]["rulings"] for each in data.get("parts", ()))
    rulings = data["rulings"] or [ruling for part in parts for ruling in part]
    for ruling, confirmation in zip(rulings, confirmations, strict=False):
        ruling["confirmation"] = msgspec.to_builtins(confirmation)
    return data
