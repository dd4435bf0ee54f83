"""Node objects: what `kubectl get nodes -o wide` and the scheduler see of a laptop's nodes."""

import os
import platform
from collections.abc import Mapping
from typing import Any

from ambit import __version__
from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.kube.errors import AlreadyExists
from ambit.local.layout import NodeAddresses
from ambit.local.pods.events import now

_PODS = "253"
"""As many addresses as the node's range has for pods."""
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
"""In the words of container images, as Kubernetes has it."""


def node_object(node: NodeAddresses, labels: Mapping[str, str]) -> dict[str, Any]:
    """The object without its status."""
    return {
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": _ARCHITECTURE,
                **labels,
            },
        },
        "spec": {
            "podCIDR": str(node.pods_v4),
            "podCIDRs": [str(node.pods_v4), str(node.pods_v6)],
            "providerID": f"ambit://{node.name}",
        },
    }


def node_status(node: NodeAddresses) -> dict[str, Any]:
    """Ready, with the machine's processors and memory as every node's capacity."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    capacity = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": _PODS}
    stamp = now()
    healthy = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "the pod runner is posting ready status"),
    ]
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": stamp,
            }
            for kind, status, reason, message in healthy
        ],
        "addresses": [
            {"type": "InternalIP", "address": str(node.v4)},
            {"type": "InternalIP", "address": str(node.v6)},
            {"type": "Hostname", "address": node.name},
        ],
        "nodeInfo": {
            "kernelVersion": platform.release(),
            "osImage": _system(),
            "containerRuntimeVersion": f"ambit://{__version__}",
            "kubeletVersion": f"v1.34.0-ambit.{__version__}",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": _ARCHITECTURE,
            "machineID": "",
            "systemUUID": "",
            "bootID": "",
        },
    }


async def register(client: Client, node: NodeAddresses, labels: Mapping[str, str]) -> None:
    """Create the node or bring its labels up to date, then write its status. Raises AmbitError."""
    wanted = node_object(node, labels)
    try:
        await client.create(kinds.NODES, wanted)
    except AlreadyExists:
        await client.patch(kinds.NODES, node.name, {"metadata": {"labels": wanted["metadata"]["labels"]}})
    await client.patch(kinds.NODES, node.name, {"status": node_status(node)}, subresource="status")


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
