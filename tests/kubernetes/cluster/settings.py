"""Where a cluster keeps its things and which addresses it uses.

A cluster is its state folder; two clusters with different names share nothing but the cached programs.
"""

import ipaddress
import os
from pathlib import Path

import msgspec

CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
API_ADDRESS = "10.200.0.1"
BRIDGE_PREFIX = 24
SERVICES = ipaddress.ip_network("10.96.0.0/16")
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
PODS = "10.244.0.0/16"
PAUSE_IMAGE = "localhost/pause:1"
DNS_IMAGE = "localhost/coredns:1"


class Node(msgspec.Struct, frozen=True):
    """One node: its number counts from 1; `key` names its namespace and cgroup on this machine."""

    number: int
    key: str
    home: Path

    @property
    def name(self) -> str:
        """The node's name in Kubernetes."""
        return f"node{self.number}"

    @property
    def address(self) -> str:
        """The node's address on the bridge."""
        return f"10.200.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        """The network its pods get addresses of."""
        return f"10.244.{self.number}.0/24"

    @property
    def containerd(self) -> Path:
        """The socket of its container runtime, reachable from outside the node."""
        return self.home / "containerd.sock"


class Cluster(msgspec.Struct, frozen=True):
    """One cluster: its name (unique on the machine), its folder, and how many nodes it has."""

    name: str
    state: Path
    size: int

    @property
    def key(self) -> str:
        """The name of the control plane's network namespace."""
        return f"{self.name}-control"

    @property
    def nodes(self) -> list[Node]:
        """All nodes in order."""
        return [
            Node(number, f"{self.name}-node{number}", self.state / f"node{number}")
            for number in range(1, self.size + 1)
        ]

    @property
    def pki(self) -> Path:
        """Certificates and keys."""
        return self.state / "pki"

    def kubeconfig(self, user: str = "admin") -> Path:
        """The kubeconfig of one user; it works inside the control plane's network namespace."""
        return self.state / f"{user}.conf"

    def inside(self) -> list[str]:
        """The words before a command that run it where the API server, nodes, pods and Services are reached."""
        return ["nsenter", f"--net=/run/netns/{self.key}"]


def cache() -> Path:
    """The folder of built programs and images, kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "ambit" / "kubernetes"


def state_folder(name: str) -> Path:
    """The folder of the cluster called `name`; KUBE_STATE says otherwise."""
    return Path(os.environ.get("KUBE_STATE") or f"/var/tmp/ambit-kubernetes-{name}")


def save(cluster: Cluster) -> None:
    """Writes down what `load` reads."""
    cluster.state.mkdir(parents=True, mode=0o700)
    (cluster.state / "cluster.json").write_bytes(msgspec.json.encode(cluster, enc_hook=str))


def load(state: Path) -> Cluster | None:
    """The cluster in that folder, or None when there is none."""
    try:
        data = (state / "cluster.json").read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=Cluster, dec_hook=lambda kind, value: kind(value))
