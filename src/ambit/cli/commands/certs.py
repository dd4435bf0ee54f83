"""`ambit certs`: certificates of workloads, and the authority they come from."""

import datetime as dt
import time
from collections.abc import Iterable
from typing import Any

import click

from ambit.cli.access import all_namespaces, cluster_options, open_client, run, with_client
from ambit.cli.authority import read_trust
from ambit.cli.groups import Group
from ambit.cli.mesh import ask_all, node_of, note_missing_namespace
from ambit.cli.render.flow_line import account
from ambit.cli.render.output import FORMATS, emit, emit_data, output_option
from ambit.cli.ztunnels import node_proxies
from ambit.core.errors import BadInput
from ambit.core.names import AUTHORITY_SECRET, DEFAULT_TRUST_DOMAIN, SYSTEM_NAMESPACE
from ambit.kube.client import Client

COLUMNS = ["NODE", "IDENTITY", "STATUS", "ENDS IN", "RENEWED IN", "ROOT"]
"""One line for each certificate in use. ROOT begins the serial number of the root that its chain ends in."""
WIDE_COLUMNS = [
    "NODE", "CERTIFICATE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE",
    "ENDS IN", "RENEWED IN", "ROOT",
]  # fmt: skip
"""Those of `istioctl ztunnel-config certificate`, then ours: a line for each certificate of a chain and each root."""


_SERIAL = 16
"""Digits of a serial number that are enough to tell two apart."""


@click.group("certs", cls=Group, invoke_without_command=True)
@cluster_options
@click.option("--node", default=None, metavar="NODE", help="Ask the proxy of this node.")
@click.option("-n", "--namespace", default=None, metavar="NAME", help="Only of this namespace.")
@all_namespaces
@click.option(
    "-o",
    "--output",
    type=click.Choice((*FORMATS, "wide")),
    default="table",
    show_default=True,
    help="Output format (wide: whole chains and names, serial numbers, dates).",
)
@click.pass_context
def command(
    context_: click.Context,
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    node: str | None,
    namespace: str | None,
    everywhere: bool,
    output: str,
) -> None:
    """Certificates of the workloads on each node, and when they end."""
    if context_.invoked_subcommand is not None:
        return

    async def work(client: Client) -> list[tuple[dict[str, Any], Any]]:
        answers = await ask_all(client, await node_proxies(client, node), "/config_dump")
        chosen = [(pod, of_namespace(dump, None if everywhere else namespace)) for pod, dump in answers]
        if not everywhere and not any(dump["certificates"] for _, dump in chosen):
            await note_missing_namespace(client, namespace)
        return chosen

    answers = run(with_client(open_client(name, kubeconfig, context), work))
    is_wide = output == "wide"
    lines = rows if is_wide else short_rows
    found = sorted([node_of(pod), *row] for pod, dump in answers for row in lines(dump, time.time()))
    data = {node_of(pod): dump["certificates"] for pod, dump in answers}
    emit(WIDE_COLUMNS if is_wide else COLUMNS, found, data, "table" if is_wide else output)


def of_namespace(dump: dict[str, Any], namespace: str | None) -> dict[str, Any]:
    """Only the certificates of identities of a namespace, when one is named."""
    if namespace is None:
        return dump
    within = f"/ns/{namespace}/sa/"
    return {"certificates": [each for each in dump["certificates"] if within in each["identity"]]}


def short_rows(dump: dict[str, Any], now: float) -> Iterable[list[str]]:
    """What matters of the certificates in use on one node."""
    for entry in dump["certificates"]:
        leaf: dict[str, Any] = next(iter(entry["certChain"]), {})
        is_valid = leaf.get("valid", entry["state"] == "Available")
        yield [
            account(entry["identity"]) or entry["identity"],
            entry["state"] if is_valid or not leaf else f"{entry['state']}, not valid",
            _span(_end(leaf), now),
            _span(entry.get("renewal"), now),
            entry.get("root", "")[:_SERIAL],
        ]


def rows(dump: dict[str, Any], now: float) -> Iterable[list[str]]:
    """The table's rows of one node. Certificates of a proxy that is not ours lack the newer fields."""
    for entry in dump["certificates"]:
        identity, state = entry["identity"], entry["state"]
        chain, roots = entry["certChain"], entry["rootCerts"]
        if not chain:
            yield [identity, "NA", state, "false", "", "", "", "", _span(entry.get("renewal"), now), ""]
        kinds = ["Leaf"] + ["Intermediate"] * (len(chain) - 1) + ["Root"] * len(roots)
        for kind, part in zip(kinds, [*chain, *roots], strict=False):
            is_leaf = kind == "Leaf"
            yield [
                identity,
                kind,
                state,
                str(part.get("valid", state == "Available")).lower(),
                part["serialNumber"],
                part["expirationTime"],
                part["validFrom"],
                _span(_end(part), now),
                _span(entry.get("renewal"), now) if is_leaf else "",
                entry.get("root", "") if is_leaf else "",
            ]


def _end(part: dict[str, Any]) -> float | None:
    """When a certificate ends; a ztunnel says it as text only."""
    ends: float | None = part.get("ends")
    text = part.get("expirationTime", "")
    if ends is not None or not text:
        return ends
    try:
        return dt.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _span(moment: float | None, now: float) -> str:
    """How far away a moment is, in its two largest units; empty when it is not known."""
    if moment is None:
        return ""
    seconds = round(moment - now)
    if seconds <= 0:
        return "now" if seconds > -5 else f"{_span(now - seconds, now)} ago"
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size}{unit}{rest}{small}" if rest else f"{seconds // size}{unit}"
    return f"{seconds}s"


@command.group("root", cls=Group, invoke_without_command=True)
@cluster_options
@output_option
@click.pass_context
def root(
    context_: click.Context, name: str | None, kubeconfig: str | None, context: str | None, output: str
) -> None:
    """The authority: its roots, who signs, and how far nodes are when one follows another."""
    if context_.invoked_subcommand is not None:
        return
    status = run(with_client(open_client(name, kubeconfig, context), read_trust))
    if output != "table":
        emit_data(status, output)
        return
    now = time.time()
    for title, text in summary(status, now):
        click.echo(f"{title + ':':<18} {text}")
    click.echo()
    columns = ["ROOT", "SERIAL NUMBER", "SIGNS", "NOT AFTER", "NOT BEFORE", "ENDS IN", "SHA-256"]
    emit(columns, [_root_row(each, now) for each in status["certificates"]], status, output)


def summary(status: dict[str, Any], now: float) -> Iterable[tuple[str, str]]:
    """Titles and sentences about the authority."""
    words = {
        "steady": "steady",
        "spreading": "a new root is spread; the former authority still signs",
        "renewing": "the new authority signs; certificates of the former one are renewed",
    }
    yield "State", words[status["phase"]]
    source, signs_from = status["source"], status["signsFrom"]
    kept = f"{AUTHORITY_SECRET}, which keeps the former authority" if source else "(deleted)"
    yield "From", f"Secret {SYSTEM_NAMESPACE}/{signs_from or kept}"
    if source and source != signs_from:
        until = "as soon as it can be followed" if status["problem"] else "after this change"
        yield "Waiting", f"Secret {SYSTEM_NAMESPACE}/{source}, {until}"
    yield "Signer", f"{status['signer'][:16]}, ends in {_span(status['signerEnds'], now)}"
    count, behind = status["nodes"], status["behind"]
    yield "Nodes", f"{count - len(behind)} of {count} have acknowledged"
    if behind:
        yield "Waiting for", ", ".join(behind)
    if status["latestEnd"] is not None:
        yield "At the latest", f"next step in {_span(status['latestEnd'], now)}"
    if status["revocationEnd"] is not None:
        yield (
            "Revocation lists",
            f"{status['revoked']} revoked; valid for {_span(status['revocationEnd'], now)}",
        )
    if status["problem"]:
        yield "Problem", status["problem"]


def _root_row(each: dict[str, Any], now: float) -> list[str]:
    return [
        each["subject"],
        each["serialNumber"],
        "yes" if each["signs"] else "no",
        each["expirationTime"],
        each["validFrom"],
        _span(each["ends"], now),
        each["fingerprint"][:16],
    ]


@root.command("rotate")
@cluster_options
@click.option(
    "--trust-domain", default=DEFAULT_TRUST_DOMAIN, show_default=True, help="Named in the new root."
)
def rotate(name: str | None, kubeconfig: str | None, context: str | None, trust_domain: str) -> None:
    """Make a new root in place of the one that ambit made. The mesh goes over to it by itself, without a break."""
    from ambit.ca.authority import Authority
    from ambit.control.identity.roots import OWN, PLUGGED_IN, own_secret
    from ambit.kube.errors import NotFound
    from ambit.kube.resource import SECRETS

    async def work(client: Client) -> None:
        try:
            await client.get(SECRETS, PLUGGED_IN, SYSTEM_NAMESPACE)
        except NotFound:
            pass
        else:
            raise BadInput(
                f"the authority is your own, in Secret {SYSTEM_NAMESPACE}/{PLUGGED_IN}",
                "put the new one there: docs/certificates.md",
            )
        status = await read_trust(client)
        if status["phase"] != "steady":
            raise BadInput("one root is already following another", "type `ambit certs root` to see how far")
        new = own_secret(Authority.create(trust_domain, dt.datetime.now(dt.UTC)), SYSTEM_NAMESPACE)
        await client.patch(SECRETS, OWN, {"data": new["data"]}, SYSTEM_NAMESPACE)

    run(with_client(open_client(name, kubeconfig, context), work))
    click.echo(
        "A new root is in place and is spread now, usually within 5 minutes; type `ambit certs root` to see how far"
    )
