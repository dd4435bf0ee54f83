"""The Service `kubernetes` in `default`: how pods find the API server. Without selector."""

import asyncio
from collections.abc import Sequence

from ambit.core.errors import AmbitError
from ambit.kube.client import Client, Object
from ambit.kube.errors import NotFound
from ambit.kube.resource import ENDPOINT_SLICES, NAMESPACES, SERVICES, Resource

NAME = "kubernetes"
NAMESPACE = "default"
MANAGER = "ambit-controllers"
RETRY = 0.2


async def publish_api_server(client: Client, addresses: Sequence[str], port: int, cluster_ip: str) -> None:
    """Make sure that the Service and its EndpointSlice exist as they should; tried until it works."""
    while True:
        try:
            await _apply(client, NAMESPACES, {"metadata": {"name": NAMESPACE}})
            for resource, value in _objects(addresses, port, cluster_ip):
                await _apply(client, resource, value)
        except AmbitError:
            await asyncio.sleep(RETRY)
            continue
        return


def _objects(addresses: Sequence[str], port: int, cluster_ip: str) -> list[tuple[Resource, Object]]:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service = {
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
            "type": "ClusterIP",
            "sessionAffinity": "None",
        },
    }
    endpoints = {
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": NAME},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": list(addresses), "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    }
    return [(SERVICES, service), (ENDPOINT_SLICES, endpoints)]


async def _apply(client: Client, resource: Resource, value: Object) -> None:
    name, namespace = value["metadata"]["name"], value["metadata"].get("namespace")
    try:
        old = await client.get(resource, name, namespace)
    except NotFound:
        await client.create(resource, value)
        return
    if resource is ENDPOINT_SLICES and any(old.get(part) != value[part] for part in ("endpoints", "ports")):
        patch = {part: value[part] for part in ("endpoints", "ports")}
        await client.patch(resource, name, patch, namespace)
