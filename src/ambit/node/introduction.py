"""How a node introduces itself to the control plane, and where it is."""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Collection

from ambit.core.address import Network, sorted_networks
from ambit.core.errors import AmbitError, BadInput
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import NODES, SERVICE_CIDRS
from ambit.node.settings import SERVICE_RANGES, AgentSettings
from ambit.node.state.mesh import MeshState
from ambit.xds.frames import Node

_log = logging.getLogger("ambit.node")
_NODE_TIMEOUT = 2.0
"""Seconds to learn the node's zone and the Services' ranges at start; without an answer the zone is unknown until the
next start, and the ranges are the last known ones."""
_RANGES = "service-ranges"
"""Of the state file's values of our own: the Services' ranges, parted by blanks."""
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


async def service_ranges(client: Client, given: Collection[str]) -> tuple[str, ...] | None:
    """CIDRs of the ServiceCIDR objects, if SERVICE_RANGES is among what is `given`; None when they cannot be read in
    time. A cluster before Kubernetes 1.33 has no such objects."""
    if SERVICE_RANGES not in given:
        return ()
    try:
        async with asyncio.timeout(_NODE_TIMEOUT):
            found = await client.list(SERVICE_CIDRS)
    except NotFound:
        _log.info("the cluster has no ServiceCIDR objects: the ranges of its Services are not known")
        return ()
    except (AmbitError, TimeoutError) as problem:
        _log.warning("the ServiceCIDR objects cannot be read, the last known ones count: %s", problem)
        return None
    return tuple(cidr for each in found for cidr in each.get("spec", {}).get("cidrs") or ())


def cluster_ranges(
    given: Collection[str], services: Collection[str] | None, state: MeshState
) -> tuple[Network, ...]:
    """The ranges that are `given` and those of Services, which the state file remembers when they were read."""
    if services is None:
        services = (state.kept(_RANGES) or b"").decode().split() if SERVICE_RANGES in given else ()
    else:
        with contextlib.suppress(AmbitError):
            state.keep(_RANGES, " ".join(services).encode())
    fixed = (each for each in given if each not in ("", SERVICE_RANGES))
    return sorted_networks({ipaddress.ip_network(each) for each in (*fixed, *services)})


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
