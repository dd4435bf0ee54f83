"""`ambit ps`: proxies, their versions, and whether they have what the control plane sent."""

import asyncio
from typing import Any

import click

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.mesh import Pod, ask, node_of
from ambit.cli.proxies import connected_proxies, gateway_of, kind_of, proxy_pods
from ambit.cli.render.output import emit, output_option
from ambit.cli.ztunnels import connected_nodes, is_agent, node_proxies, versions_of
from ambit.core.errors import AmbitError
from ambit.kube.client import Client

NODE_TYPES = ("node", "ztunnel")
"""Node proxies: ours, and stock ztunnels."""


@click.command("ps")
@cluster_options
@output_option
def command(name: str | None, kubeconfig: str | None, context: str | None, output: str) -> None:
    """List proxies, their versions and their sync state."""

    found = run(with_client(open_client(name, kubeconfig, context), proxies))
    rows = [
        [
            proxy["name"],
            proxy["node"],
            proxy["type"],
            proxy["gateway"],
            proxy["version"],
            proxy["envoy"],
            proxy["sync"],
            proxy["control"],
        ]
        for proxy in found
    ]
    emit(
        ["NAME", "NODE", "TYPE", "GATEWAY", "VERSION", "ENVOY", "SYNC", "CONTROL PLANE"], rows, found, output
    )


async def proxies(client: Client) -> list[dict[str, Any]]:
    """Every proxy with its versions, and where it stands with the control plane that serves it."""
    pods, entries, l7, connected_l7 = await asyncio.gather(
        node_proxies(client), connected_nodes(client), proxy_pods(client), connected_proxies(client)
    )
    connected = {entry["node"]: entry for entry in entries}
    nodes = [
        _describe(client, pod, "node" if is_agent(pod) else "ztunnel", connected.get(node_of(pod)))
        for pod in pods
    ]
    waypoints = [_describe(client, pod, kind_of(pod), connected_l7.get(_key(pod))) for pod in l7]
    return await asyncio.gather(*nodes, *waypoints)


def _key(pod: Pod) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


async def _describe(client: Client, pod: Pod, kind: str, entry: dict[str, Any] | None) -> dict[str, Any]:
    proxy = {
        "name": f"{pod['metadata']['name']}.{pod['metadata']['namespace']}",
        "node": node_of(pod),
        "type": kind,
        "gateway": gateway_of(pod) if kind not in NODE_TYPES else "",
        "control": entry["control"] if entry else "",
        "types": entry["types"] if entry else {},
        "sync": sync_word(entry),
    }
    try:
        version = await (versions_of(client, pod) if kind in NODE_TYPES else ask(client, pod, "/version"))
    except AmbitError as problem:
        return {**proxy, "version": "", "envoy": "", "error": problem.message}
    return {**proxy, "version": version.get("version", ""), "envoy": version.get("envoy", "")}


def sync_word(entry: dict[str, Any] | None) -> str:
    """SYNCED, STALE (sent but not acknowledged), REJECTED, or DISCONNECTED: istioctl's words where it has them."""
    if entry is None:
        return "DISCONNECTED"
    states = entry["types"].values()
    if any(state.get("error") for state in states):
        return "REJECTED"
    return "SYNCED" if all(state.get("sent") == state.get("acked") for state in states) else "STALE"
