"""`ambit dns`: why a pod gets the answer that it gets, and where mesh and nameservers disagree."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.groups import Group
from ambit.cli.live_objects import compile_cluster
from ambit.cli.mesh import ask, ask_all, node_of, node_pods
from ambit.cli.render.output import emit, emit_data, output_option, printable
from ambit.core.errors import BadInput
from ambit.insight.ends import find_source
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import PODS
from ambit.model.workload import Workload

DIFFER = "differ"
_namespace = click.option(
    "-n", "--namespace", default=None, metavar="NAME", help="Of POD without one; else the context's."
)


@click.group("dns", cls=Group)
def command() -> None:
    """Names as captured pods see them."""


@command.command("why")
@click.argument("host", metavar="NAME")
@click.option("--from", "pod", required=True, metavar="POD", help="Who asks: a pod, or what owns it.")
@_namespace
@cluster_options
@output_option
def why(
    host: str,
    pod: str,
    namespace: str | None,
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    output: str,
) -> None:
    """Why NAME is answered as it is when POD asks.

    Shows each question of the pod's resolver, with its search domains, until one has an address: who answers it, which
    object owns the name, why there is no address, and what the pod's nameservers say. Exits with 1 when there is no
    address.
    """

    async def work(client: Client) -> tuple[str, Any]:
        asker = await _captured(client, pod, namespace or client.namespace)
        return asker, await _ask(client, asker, {"name": host})

    asker, found = run(with_client(open_client(name, kubeconfig, context), work))
    if output == "table":
        for line in why_lines(found, asker):
            click.echo(printable(line) if line else "")
    else:
        emit_data(found, output)
    if not found["addresses"]:
        sys.exit(1)


@command.command("check")
@click.option(
    "--from",
    "pod",
    metavar="POD",
    help="Who asks: a pod, or what owns it.  [default: one captured pod of each node]",
)
@_namespace
@cluster_options
@output_option
def check(
    pod: str | None,
    namespace: str | None,
    name: str | None,
    kubeconfig: str | None,
    context: str | None,
    output: str,
) -> None:
    """Compare the mesh's answers with those of the pod's nameservers.

    For every name of the mesh that POD may see. A Service that both know differently is a disagreement, and the exit
    code 1; hosts of ServiceEntries are usually known to the mesh only. During changes of endpoints, headless Services
    may differ for a moment.
    """

    async def work(client: Client) -> dict[str, Any]:
        asker = [await _captured(client, pod, namespace or client.namespace)] if pod is not None else []
        pods = asker or await _one_of_each_node(client)
        answers = await asyncio.gather(*(_ask(client, each, {}) for each in pods))
        return dict(zip(pods, answers, strict=True))

    found = run(with_client(open_client(name, kubeconfig, context), work))
    rows = [
        [who, each["name"], each["owner"], each["verdict"], _joined(each["mesh"]), _said(each["nameserver"])]
        for who, several in found.items()
        for each in several
    ]
    emit(["POD", "NAME", "OWNER", "VERDICT", "MESH", "NAMESERVER"], rows, found, output)
    if any(each["verdict"] == DIFFER for several in found.values() for each in several):
        sys.exit(1)


def why_lines(found: dict[str, Any], pod: str) -> Iterator[str]:
    """An explanation as lines for people."""
    addresses = _joined(found["addresses"]) if found["addresses"] else "no address"
    yield f"{found['name']} from pod {pod}: {addresses}"
    yield f"nameservers {_joined(found['nameservers'])}, search domains {_joined(found['searches'])}"
    for step in found["steps"]:
        search = f" (with search domain {step['search']})" if step.get("search") else ""
        yield ""
        yield f"{step['question']}{search}: {_by(step)}"
        if step.get("owner"):
            as_name = f", looked up as {step['asName']}" if step.get("asName") else ""
            yield f"  owner: {step['owner']}, host {step['host']}{as_name}"
        yield f"  addresses: {_joined(step.get('addresses', ()))}"
        yield from (f"  {note}" for note in step.get("notes", ()))
        yield f"  the nameservers say: {_said(step['nameserver'])}"


def _by(step: dict[str, Any]) -> str:
    match step["by"]:
        case "mesh":
            return "answered by the mesh"
        case "nameserver":
            return "passed on to the nameservers"
        case _:
            return "passed on to the nameservers, and none answers"


def _said(said: dict[str, Any]) -> str:
    if not said["rcode"]:
        return "nothing"
    aliases = [f"alias {alias}" for alias in said.get("aliases", ())]
    return (
        _joined([*aliases, *said.get("addresses", ())])
        if said.get("addresses") or aliases
        else ("no address" if said["rcode"] == "NOERROR" else said["rcode"])
    )


def _joined(texts: Any) -> str:
    return ", ".join(texts) or "none"


async def _captured(client: Client, text: str, namespace: str) -> str:
    """The pod that is meant, as `ambit why` takes its source. Raises BadInput where there is none."""
    where, _, name = text.rpartition("/")
    with contextlib.suppress(NotFound):
        await client.get(PODS, name, where or namespace)
        return f"{where or namespace}/{name}"
    found = find_source(text, await compile_cluster(client), namespace)
    if not isinstance(found, Workload) or not found.is_pod:
        raise BadInput(f"{text} is no pod", "name one, or what owns it: `kubectl get pods -A`")
    return f"{found.namespace}/{found.name}"


async def _one_of_each_node(client: Client) -> list[str]:
    answers = await ask_all(client, await node_pods(client), "/status")
    captured = [sorted(f"{each['namespace']}/{each['name']}" for each in view["pods"]) for _, view in answers]
    chosen = [several[0] for several in captured if several]
    if not chosen:
        raise BadInput("no pod is captured", "label a namespace with istio.io/dataplane-mode=ambient")
    return chosen


async def _ask(client: Client, pod: str, query: dict[str, str]) -> Any:
    """What the agent of the pod's node says. Raises BadInput for a pod that it does not answer."""
    namespace, _, name = pod.partition("/")
    node = node_of(await client.get(PODS, name, namespace))
    (agent,) = await node_pods(client, node)
    answer = await ask(client, agent, "/dns?" + urlencode({"pod": pod, **query}))
    if isinstance(answer, dict) and "error" in answer:
        raise BadInput(str(answer["error"]), "see docs/dns.md")
    return answer
