"""The cluster's network: one namespace for the control plane and one per node, joined by a bridge.

The namespaces route between themselves only; the machine's own network is neither used nor changed.
"""

import contextlib
import subprocess

from ambit.local.layout import BALANCERS_V4
from tests.kubernetes.cluster.settings import API_ADDRESS, BRIDGE_PREFIX, SERVICES, Cluster

BRIDGE = "bridge"


def make(cluster: Cluster) -> None:
    """Makes the namespaces; every one knows the way to all nodes' pods, and the first to Services."""
    _add(cluster.key)
    _ip(cluster.key, f"link add {BRIDGE} type bridge")
    _ip(cluster.key, f"addr add {API_ADDRESS}/{BRIDGE_PREFIX} dev {BRIDGE}")
    _ip(cluster.key, f"link set {BRIDGE} up")
    for node in cluster.nodes:
        _add(node.key)
        _ip(cluster.key, f"link add to-{node.name} type veth peer name eth0 netns {node.key}")
        _ip(cluster.key, f"link set to-{node.name} master {BRIDGE} up")
        _ip(node.key, f"addr add {node.address}/{BRIDGE_PREFIX} dev eth0")
        _ip(node.key, "link set eth0 up")
        _ip(node.key, f"route add default via {API_ADDRESS}")
        for other in cluster.nodes:
            if other != node:
                _ip(node.key, f"route add {other.pods} via {other.address}")
        _ip(cluster.key, f"route add {node.pods} via {node.address}")
    if cluster.nodes:  # the first node's kube-proxy translates for whoever asks from the control plane's side
        for addresses in (SERVICES, BALANCERS_V4):
            _ip(cluster.key, f"route add {addresses} via {cluster.nodes[0].address}")


def remove(cluster: Cluster) -> None:
    """Removes the namespaces that are still there."""
    for key in [cluster.key, *(node.key for node in cluster.nodes)]:
        with contextlib.suppress(subprocess.CalledProcessError):
            _run("ip", "netns", "delete", key)


def _add(key: str) -> None:
    _run("ip", "netns", "add", key)
    _ip(key, "link set lo up")
    _run("nsenter", f"--net=/run/netns/{key}", "sysctl", "-qw", "net.ipv4.ip_forward=1")


def _ip(key: str, words: str) -> None:
    _run("ip", "-n", key, *words.split())


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
