"""The objects of a cluster of a given size, as an API server stores them."""

import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from ambit.core.names import ROOT_NAMESPACE, SYSTEM_NAMESPACE

SERVICES_PER_NAMESPACE = 20
AGENT = "ztunnel"
"""Service account and name of the node agents' pods, in the root namespace: istiod's own rule, and one of ours."""
SINCE = "2026-11-20T00:00:00Z"
Json = dict[str, Any]


class Size(msgspec.Struct, frozen=True):
    services: int
    pods: int
    nodes: int


def space_of(service: int) -> str:
    return f"app-{service // SERVICES_PER_NAMESPACE}"


def pod_name(size: Size, number: int) -> tuple[str, str]:
    """Namespace and name of a pod."""
    service = number % size.services
    return space_of(service), f"svc-{service}-6d5f7c9b8-{number:06d}"


def agent_name(node: int) -> str:
    return f"{AGENT}-{node}"


def objects(size: Size) -> Iterator[tuple[str, Iterator[Json]]]:
    """Everything, by the name of its storage."""
    spaces = -(-size.services // SERVICES_PER_NAMESPACE)
    yield "namespaces", (_namespace(name) for name in (SYSTEM_NAMESPACE, ROOT_NAMESPACE))
    yield "namespaces", (_namespace(f"app-{number}", ambient=True) for number in range(spaces))
    yield "serviceaccounts", iter([_object("v1", "ServiceAccount", ROOT_NAMESPACE, AGENT)])
    yield "nodes", (_node(number) for number in range(size.nodes))
    yield "services", (_service(number) for number in range(size.services))
    yield "endpointslices.discovery.k8s.io", (_slice(size, number) for number in range(size.services))
    yield "pods", (_pod(size, number) for number in range(size.pods))
    yield "pods", (_agent(size, number) for number in range(size.nodes))


def _object(version: str, kind: str, namespace: str, name: str, **more: Any) -> Json:
    metadata: Json = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": SINCE}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata | more.pop("metadata", {}), **more}


def _namespace(name: str, *, ambient: bool = False) -> Json:
    labels = {"kubernetes.io/metadata.name": name} | (
        {"istio.io/dataplane-mode": "ambient"} if ambient else {}
    )
    return _object("v1", "Namespace", "", name, metadata={"labels": labels}, status={"phase": "Active"})


def _node(number: int) -> Json:
    labels = {
        "kubernetes.io/hostname": f"node-{number}",
        "topology.kubernetes.io/region": "r1",
        "topology.kubernetes.io/zone": _zone(number),
    }
    status = {"addresses": [{"type": "InternalIP", "address": _address(200, number)}]}
    return _object("v1", "Node", "", f"node-{number}", metadata={"labels": labels}, status=status)


def _zone(node: int) -> str:
    return f"r1-{'abc'[node % 3]}"


def _address(first: int, number: int) -> str:
    return f"10.{first + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _service(number: int) -> Json:
    address = f"10.96.{number >> 8 & 255}.{number & 255}"
    spec = {
        "selector": {"app": f"svc-{number}"},
        "clusterIP": address,
        "clusterIPs": [address],
        "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "http"}],
    }
    return _object("v1", "Service", space_of(number), f"svc-{number}", spec=spec)


def _slice(size: Size, service: int) -> Json:
    labels = {"kubernetes.io/service-name": f"svc-{service}"}
    endpoints = []
    for number in range(service, size.pods, size.services):
        node = number % size.nodes
        space, name = pod_name(size, number)
        endpoints.append(
            {
                "addresses": [_address(100, number)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"node-{node}",
                "zone": _zone(node),
                "targetRef": {"kind": "Pod", "name": name, "namespace": space},
            }
        )
    return _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        space_of(service),
        f"svc-{service}-x",
        metadata={"labels": labels},
        addressType="IPv4",
        ports=[{"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
        endpoints=endpoints,
    )


def _pod(size: Size, number: int) -> Json:
    service = number % size.services
    space, name = pod_name(size, number)
    labels = {"app": f"svc-{service}", "version": "v1", "pod-template-hash": "6d5f7c9b8"}
    owner = ("ReplicaSet", f"svc-{service}-6d5f7c9b8")
    return _running(space, name, f"svc-{service}", number % size.nodes, _address(100, number), labels, owner)


def _agent(size: Size, node: int) -> Json:
    address = _address(100, size.pods + node)
    owner = ("DaemonSet", AGENT)
    return _running(ROOT_NAMESPACE, agent_name(node), AGENT, node, address, {"app": AGENT}, owner)


def _running(
    space: str,
    name: str,
    account: str,
    node: int,
    address: str,
    labels: dict[str, str],
    owner: tuple[str, str],
) -> Json:
    """A pod with about what a pod has that a kubelet has started."""
    reference = {"apiVersion": "apps/v1", "kind": owner[0], "name": owner[1], "uid": str(uuid.uuid4())}
    host = _address(200, node)
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    container = {
        "name": "app",
        "image": "registry.example/app:1",
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
        "env": [{"name": "A", "value": "b"}, {"name": "LOG_LEVEL", "value": "info"}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}},
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    }
    state = {
        "name": "app",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "image": "registry.example/app:1",
        "imageID": "sha256:" + "a" * 64,
        "containerID": "containerd://" + "b" * 64,
        "state": {"running": {"startedAt": SINCE}},
    }
    return _object(
        "v1",
        "Pod",
        space,
        name,
        metadata={
            "labels": labels,
            "annotations": {"ambient.istio.io/redirection": "enabled"},
            "ownerReferences": [reference | {"controller": True, "blockOwnerDeletion": True}],
        },
        spec={
            "nodeName": f"node-{node}",
            "serviceAccountName": account,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "token", "emptyDir": {}}],
        },
        status={
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": host,
            "hostIPs": [{"ip": host}],
            "startTime": SINCE,
            "conditions": [
                {"type": each, "status": "True", "lastTransitionTime": SINCE} for each in conditions
            ],
            "containerStatuses": [state],
        },
    )
