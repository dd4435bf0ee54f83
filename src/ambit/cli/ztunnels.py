"""Stock ztunnels that the control planes serve: what commands about node proxies show of them."""

from collections.abc import Iterable
from typing import Any

from ambit.cli.mesh import (
    CONTROL_PLANES,
    NODE_PROXIES,
    Pod,
    ask,
    in_charge,
    node_of,
    select_node,
    system_pods,
)
from ambit.core.errors import AmbitError
from ambit.core.names import CONTROL_DEBUG_PORT, SYSTEM_NAMESPACE
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import PODS

_AGENT = (["node", "keep"], ["node", "run"])
"""Arguments of the container in which a node agent of ours runs."""
_TYPE = "ztunnel"
"""First part of the id that a node proxy introduces itself with, as ours do too."""


def is_agent(pod: Pod) -> bool:
    """Whether our node agent runs in it."""
    return any(each.get("args", [])[:2] in _AGENT for each in pod["spec"].get("containers", ()))


async def connected_nodes(client: Client) -> list[dict[str, Any]]:
    """What control planes report of each node proxy, with the control plane's pod as `control`; those that do not
    answer are left out."""
    entries = []
    for pod in await system_pods(client, CONTROL_PLANES):
        try:
            found = await ask(client, pod, "/debug/syncz", CONTROL_DEBUG_PORT)
        except AmbitError:
            continue
        entries += [{**entry, "control": pod["metadata"]["name"]} for entry in found]
    return entries


def names_of(entries: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Namespace and name of the pods that node proxies introduce themselves as: `ztunnel~IP~POD.NAMESPACE~DOMAIN`."""
    found = set()
    for entry in entries:
        kind, _, rest = str(entry.get("proxy", "")).partition("~")
        name, _, namespace = rest.partition("~")[2].partition("~")[0].rpartition(".")
        if kind == _TYPE and name and namespace:
            found.add((namespace, name))
    return sorted(found)


async def ztunnel_pods(client: Client) -> list[Pod]:
    """Pods of stock ztunnels that are connected to a control plane, by their nodes' names, one of each node."""
    agents = {each["metadata"]["name"] for each in await system_pods(client, NODE_PROXIES) if is_agent(each)}
    found = []
    for namespace, name in names_of(await connected_nodes(client)):
        if namespace == SYSTEM_NAMESPACE and name in agents:
            continue
        try:
            pod = await client.get(PODS, name, namespace)
        except NotFound:
            continue
        if not is_agent(pod):
            found.append(pod)
    return in_charge(found)


async def node_proxies(client: Client, node: str | None = None) -> list[Pod]:
    """Pods of our node agents and of stock ztunnels by their nodes' names, of one node when named. Raises NotRunning
    when there is none."""
    ours = in_charge(filter(is_agent, await system_pods(client, NODE_PROXIES)))
    return select_node(sorted([*ours, *await ztunnel_pods(client)], key=node_of), node)


async def versions_of(client: Client, pod: Pod) -> dict[str, str]:
    """`version` and `envoy` of a node proxy; a ztunnel has no Envoy. Raises Unreachable."""
    if is_agent(pod):
        told: dict[str, str] = await ask(client, pod, "/version")
        return told
    dump = await ask(client, pod, "/config_dump")
    return {"version": str((dump.get("version") or {}).get("version") or "unknown")}
