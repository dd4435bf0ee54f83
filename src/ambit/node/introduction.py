"""How a node introduces itself to the control plane, and where it is."""

import asyncio
import logging

from ambit.core.errors import AmbitError, BadInput
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import NODES
from ambit.node.settings import AgentSettings
from ambit.xds.frames import Node

_log = logging.getLogger("ambit.node")
_NODE_TIMEOUT = 2.0
"""Seconds to learn the node's zone at start; without an answer it is unknown until the next start."""
_REGION, _ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
_SUBZONE = "topology.istio.io/subzone"


async def locality(client: Client, node: str) -> tuple[str, str, str]:
    """Region, zone and subzone from the Node's labels; empty when it cannot be read in time. Raises BadInput when there
    is no such node."""
    try:
        async with asyncio.timeout(_NODE_TIMEOUT):
            found = await client.get(NODES, node)
    except NotFound:
        raise BadInput(f"the cluster has no node {node!r}", "type `kubectl get nodes`") from None
    except (AmbitError, TimeoutError) as problem:
        _log.warning("the labels of node %s are not known: %s", node, problem)
        return "", "", ""
    labels = found.get("metadata", {}).get("labels") or {}
    return labels.get(_REGION, ""), labels.get(_ZONE, ""), labels.get(_SUBZONE, "")


def identify(settings: AgentSettings) -> Node:
    """As ztunnel introduces itself (`src/xds/client.rs`), so that a stock istiod knows the node."""
    name, namespace = settings.pod_name, settings.pod_namespace
    return Node(
        id=f"ztunnel~{settings.pod_ip or '1.1.1.1'}~{name}.{namespace}~{namespace}.svc.cluster.local",
        metadata={
            "NAME": name,
            "NAMESPACE": namespace,
            "INSTANCE_IPS": settings.pod_ip or "1.1.1.1",
            "NODE_NAME": settings.node,
            "CLUSTER_ID": settings.cluster_id,
        },
    )
