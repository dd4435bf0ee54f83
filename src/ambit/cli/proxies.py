"""Pods of L7 proxies (waypoints and gateways), and what the control planes say of them."""

import asyncio
from typing import Any

import click

from ambit.cli.mesh import CONTROL_PLANES, Pod, ask, flows_of, node_of, system_pods
from ambit.core.errors import AmbitError
from ambit.core.names import CONTROL_DEBUG_PORT, GATEWAY_CLASS_LABEL, GATEWAY_CLASS_NAMES, GATEWAY_NAME_LABEL
from ambit.kube.client import Client
from ambit.kube.resource import PODS

_ARGUMENTS = (["proxy", "keep"], ["proxy", "run"])
"""Of the container. In pods of former releases the agent itself is its first process."""


async def proxy_pods(client: Client, node: str | None = None, *, quietly: bool = False) -> list[Pod]:
    """Those that run, on all nodes or one, by namespace and name. None, with a note unless `quietly`, for whoever may
    not list pods."""
    try:
        pods = await client.list(
            PODS, label_selector=GATEWAY_NAME_LABEL, field_selector="status.phase=Running"
        )
    except AmbitError as problem:
        if not quietly:
            click.echo(f"note: without waypoints and gateways: {problem.message}", err=True)
        return []
    found = [pod for pod in pods if is_ours(pod) and node in (None, node_of(pod))]
    return sorted(found, key=lambda pod: (str(pod["metadata"]["namespace"]), str(pod["metadata"]["name"])))


def is_ours(pod: Pod) -> bool:
    """Whether our agent runs in it: pods of other meshes' gateways have the same labels."""
    return any(each.get("args", [])[:2] in _ARGUMENTS for each in pod["spec"].get("containers", ()))


def kind_of(pod: Pod) -> str:
    """`waypoint` or `gateway`."""
    of_class = pod["metadata"]["labels"].get(GATEWAY_CLASS_LABEL, "")
    return "gateway" if of_class in GATEWAY_CLASS_NAMES else "waypoint"


def gateway_of(pod: Pod) -> str:
    """`<namespace>/<name>` of its Gateway."""
    metadata = pod["metadata"]
    return f"{metadata['namespace']}/{metadata['labels'][GATEWAY_NAME_LABEL]}"


async def proxy_flows(client: Client, pods: list[Pod], last: int, choice: str = "") -> list[dict[str, Any]]:
    """The newest records of requests, at most `last` of each proxy. One that does not answer is noted."""

    async def of(pod: Pod) -> list[dict[str, Any]]:
        try:
            return await flows_of(client, [pod], last, choice)
        except AmbitError as problem:
            click.echo(f"note: without {gateway_of(pod)}: {problem.message}", err=True)
            return []

    return [flow for part in await asyncio.gather(*map(of, pods)) for flow in part]


async def connected_proxies(client: Client) -> dict[tuple[str, str], dict[str, Any]]:
    """What control planes report of each proxy, by namespace and pod; those that do not answer are left out."""
    entries = {}
    for pod in await system_pods(client, CONTROL_PLANES):
        try:
            for entry in await ask(client, pod, "/debug/proxies", CONTROL_DEBUG_PORT):
                key = entry["gateway"].partition("/")[0], entry["pod"]
                entries[key] = {**entry, "control": pod["metadata"]["name"]}
        except AmbitError:
            continue
    return entries
