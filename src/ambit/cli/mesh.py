"""The mesh's own pods, and what their debug ports say. Reached by port-forward, as istioctl does."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import click
import msgspec

from ambit.cli.both_sides import agreed
from ambit.core.errors import NotRunning, Unreachable
from ambit.core.names import NODE_ADMIN_PORT, SYSTEM_NAMESPACE
from ambit.kube.client import Client
from ambit.kube.conditions import has_condition
from ambit.kube.portforward import pod_http
from ambit.kube.resource import NAMESPACES, PODS

NODE_PROXIES = "app=ztunnel"
CONTROL_PLANES = "app=istiod"
Pod = dict[str, Any]


async def system_pods(client: Client, selector: str) -> list[Pod]:
    """Pods of one of the mesh's parts, sorted by name."""
    pods = await client.list(PODS, SYSTEM_NAMESPACE, label_selector=selector)
    return sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))


async def node_pods(client: Client, node: str | None = None) -> list[Pod]:
    """Pods of the node proxies by their nodes' names, one of each node; of one node when named. Raises NotRunning when
    there is none."""
    return select_node(in_charge(await system_pods(client, NODE_PROXIES)), node)


def select_node(found: list[Pod], node: str | None) -> list[Pod]:
    """Those of one node when it is named, else all. Raises NotRunning when that leaves none."""
    if not found:
        raise NotRunning(f"no node proxy in namespace {SYSTEM_NAMESPACE}", "type `ambit check`")
    pods = [pod for pod in found if node in (None, node_of(pod))]
    if not pods:
        raise NotRunning(
            f"no node proxy on node {node!r}", f"there is one on {', '.join(map(node_of, found))}"
        )
    return pods


async def note_missing_namespace(client: Client, namespace: str | None) -> None:
    """A note on standard error when nothing was found because there is no such namespace."""
    if namespace and namespace not in {each["metadata"]["name"] for each in await client.list(NAMESPACES)}:
        click.echo(f"note: there is no namespace {namespace!r}: `kubectl get namespaces`", err=True)


def in_charge(pods: Iterable[Pod]) -> list[Pod]:
    """One pod of each node: during an upgrade there are two for a while, and the old one only keeps connections, or the
    new one does not serve yet."""
    chosen: dict[str, Pod] = {}
    for pod in sorted(pods, key=_standing):
        chosen[node_of(pod)] = pod
    return sorted(chosen.values(), key=node_of)


def _standing(pod: Pod) -> tuple[bool, bool, str]:
    metadata = pod["metadata"]
    return (
        "deletionTimestamp" not in metadata,
        has_condition(pod, "Ready"),
        str(metadata.get("creationTimestamp", "")),
    )


def node_of(pod: Pod) -> str:
    return str(pod.get("spec", {}).get("nodeName", ""))


async def ask(client: Client, pod: Pod, path: str, port: int = NODE_ADMIN_PORT, method: str = "GET") -> Any:
    """The JSON that a pod's debug port answers. Raises Unreachable."""
    metadata = pod["metadata"]
    async with pod_http(client, metadata["namespace"], metadata["name"], port) as transport:
        response = await transport.request(method, path, {})
        body = await response.read()
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as problem:
        raise Unreachable(
            f"pod {metadata['name']} answers {path} with something that is not JSON"
        ) from problem


async def ask_all(client: Client, pods: list[Pod], path: str) -> list[tuple[Pod, Any]]:
    """The same of several pods at once."""
    answers = await asyncio.gather(*(ask(client, pod, path) for pod in pods))
    return list(zip(pods, answers, strict=True))


async def read_flows(
    client: Client, last: int = 1000, node: str | None = None, choice: str = ""
) -> list[dict[str, Any]]:
    """The newest decisions of the node proxies, at most `last` of each, oldest first, with what both sides know.
    `choice` is more of the query."""
    return await flows_of(client, await node_pods(client, node), last, choice)


async def flows_of(client: Client, pods: list[Pod], last: int, choice: str = "") -> list[dict[str, Any]]:
    """The same of these pods."""
    parts = await asyncio.gather(*(_flows_of(client, pod, f"limit={last}{choice}") for pod in pods))
    return sorted(agreed(flow for part in parts for flow in part), key=lambda flow: float(flow["time"]))


async def _flows_of(client: Client, pod: Pod, query: str) -> list[dict[str, Any]]:
    return [flow async for flow in stream(client, pod, f"/flows?{query}")]


async def stream(client: Client, pod: Pod, path: str) -> AsyncIterator[Any]:
    """The JSON lines that a pod's debug port answers, as they come. Raises Unreachable."""
    metadata = pod["metadata"]
    async with pod_http(client, metadata["namespace"], metadata["name"], NODE_ADMIN_PORT) as transport:
        response = await transport.request("GET", path, {})
        if response.status != 200:
            said = (await response.read()).decode("utf-8", "replace").strip()
            raise Unreachable(f"pod {metadata['name']} refuses {path}: {said}")
        async for line in response.lines():
            yield msgspec.json.decode(line)
