"""`ambit ps`: proxies, their versions, and whether they have what the control plane sent."""

import asyncio
from typing import Any

import click

from ambit.cli.access import cluster_options, open_client, run, with_client
from ambit.cli.mesh import CONTROL_PLANES, Pod, ask, node_of, node_pods, system_pods
from ambit.cli.proxies import connected_proxies, gateway_of, kind_of, proxy_pods
from ambit.cli.render.output import emit, output_option
from ambit.core.errors import AmbitError
from ambit.core.names import CONTROL_DEBUG_PORT
from ambit.kube.client import Client


@click.command("ps")
@cluster_options
@output_option
def command(name: str | None, kubeconfig: str | None, context: str | None, output: str) -> None:
    """List proxies, their versions and their sync state."""

    async def work(client: Client) -> list[dict[str, Any]]:
        pods, connected, l7, connected_l7 = await asyncio.gather(
            node_pods(client), _connected(client), proxy_pods(client), connected_proxies(client)
        )
        nodes = [_describe(client, pod, "node", connected.get(node_of(pod))) for pod in pods]
        proxies = [_describe(client, pod, kind_of(pod), connected_l7.get(_key(pod))) for pod in l7]
        return await asyncio.gather(*nodes, *proxies)

    found = run(with_client(open_client(name, kubeconfig, context), work))
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


async def _connected(client: Client) -> dict[str, dict[str, Any]]:
    """What control planes report of each node; empty when none answers (the proxies go on without)."""
    entries: dict[str, dict[str, Any]] = {}
    for pod in await system_pods(client, CONTROL_PLANES):
        try:
            for entry in await ask(client, pod, "/debug/syncz", CONTROL_DEBUG_PORT):
                entries[entry["node"]] = {**entry, "control": pod["metadata"]["name"]}
        except AmbitError:
            continue
    return entries


def _key(pod: Pod) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


async def _describe(client: Client, pod: Pod, kind: str, entry: dict[str, Any] | None) -> dict[str, Any]:
    proxy = {
        "name": f"{pod['metadata']['name']}.{pod['metadata']['namespace']}",
        "node": node_of(pod),
        "type": kind,
        "gateway": gateway_of(pod) if kind != "node" else "",
        "control": entry["control"] if entry else "",
        "types": entry["types"] if entry else {},
        "sync": sync_word(entry),
    }
    try:
        version = await ask(client, pod, "/version")
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
