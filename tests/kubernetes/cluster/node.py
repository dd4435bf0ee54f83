"""One node: process 1 of its own process namespace, which runs containerd, kubelet and kube-proxy.

It has its own mounts, host name and network too. Whatever a node usually writes lies in its own folder below
the cluster's, and killing process 1 ends everything that runs on the node.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.kubernetes.cluster import processes
from tests.kubernetes.cluster.programs import PLUGINS
from tests.kubernetes.cluster.settings import CLUSTER_DOMAIN, DNS_SERVICE, PAUSE_IMAGE, PODS, Cluster, Node

OWN_PLACES = [
    "/var/lib/kubelet",
    "/var/lib/containerd",
    "/var/lib/cni",
    "/var/lib/ambit",
    "/var/log",
    "/etc/cni",
    "/opt/cni",
    "/opt/containerd",
]
CGROUPS = Path("/sys/fs/cgroup")
CONTAINERD_START = 60.0


def start(cluster: Cluster, node: Node) -> None:
    """Starts the node in new namespaces."""
    node.home.mkdir()
    command = [
        "nsenter", f"--net=/run/netns/{node.key}",
        "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--uts", "--kill-child", "--propagation", "slave",
        sys.executable, "-m", "tests.kubernetes.cluster", "--state", str(cluster.state), "node", str(node.number),
    ]  # fmt: skip
    process = processes.start(cluster.state, node.name, command)
    processes.record(cluster.state, node.name, process.pid)


def run(cluster: Cluster, node: Node, programs: Path, images: list[Path]) -> None:
    """Sets the node up and runs it; called as process 1, returns when all its programs have ended."""
    socket.sethostname(node.name)
    _mounts(node)
    for folder in cgroups(node):
        folder.mkdir(exist_ok=True)
    _write_settings(cluster, node)
    processes.start(
        cluster.state, f"{node.name}-containerd", ["containerd", "--config", node.home / "containerd.toml"]
    )
    processes.wait_for("containerd", lambda: _containerd_answers(node), CONTAINERD_START)
    for image in images:
        load(node, image)
    kubelet = [
        str(programs / "kubelet"),  # under its own name, by which Istio's CNI agent looks for it
        f"--config={node.home}/kubelet.json",
        f"--kubeconfig={cluster.kubeconfig(node.name)}",
        "--node-ip", node.address,
        "--hostname-override", node.name,
    ]  # fmt: skip
    processes.start(cluster.state, f"{node.name}-kubelet", kubelet)
    proxy = [
        str(programs / "kube"), "kube-proxy",
        f"--kubeconfig={cluster.kubeconfig('kube-proxy')}",
        "--proxy-mode=nftables",
        f"--cluster-cidr={PODS}",
        "--hostname-override", node.name,
        # The limits are the whole machine's: zero leaves them alone.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    ]  # fmt: skip
    processes.start(cluster.state, f"{node.name}-kube-proxy", proxy)
    while True:  # process 1 reaps what containers leave behind
        try:
            os.wait()
        except ChildProcessError:
            return


def load(node: Node, archive: Path) -> None:
    """Imports an image archive into the node's container runtime."""
    subprocess.run(
        ["ctr", "-a", node.containerd, "-n", "k8s.io", "images", "import", archive],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def cgroups(node: Node) -> list[Path]:
    """The node's folder in the unified tree, or in the tree of every controller of version 1."""
    unified = (CGROUPS / "cgroup.controllers").exists()
    trees = [CGROUPS] if unified else sorted(CGROUPS.iterdir())
    return [tree / node.key for tree in trees if (tree / "cgroup.procs").exists()]


def remove_cgroups(node: Node) -> None:
    """Removes the node's cgroups, the innermost first; no process may be left in them."""
    for tree in cgroups(node):
        for folder, _, _ in os.walk(tree, topdown=False):
            Path(folder).rmdir()


def _mounts(node: Node) -> None:
    _sh("mount", "--make-rshared", "/")
    _sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    _make_places()
    for place in OWN_PLACES:
        own = node.home / place.strip("/").replace("/", "-")
        own.mkdir(parents=True)
        _sh("mount", "--bind", str(own), place)
    plugins = Path("/opt/cni/bin")
    plugins.mkdir()
    for plugin in PLUGINS.iterdir():
        (plugins / plugin.name).symlink_to(plugin)


def _make_places() -> None:
    """Makes missing folders for this node only: their parents get a layer that lies in the node's own /run."""
    missing = [place for place in map(Path, OWN_PLACES) if not place.exists()]
    for parent in {place.parent for place in missing}:
        layer = Path("/run/places") / parent.name
        for part in ("upper", "work"):
            (layer / part).mkdir(parents=True)
        options = f"lowerdir={parent},upperdir={layer}/upper,workdir={layer}/work"
        _sh("mount", "-t", "overlay", "overlay", "-o", options, str(parent))
    for place in missing:
        place.mkdir()


def _write_settings(cluster: Cluster, node: Node) -> None:
    networks = Path("/etc/cni/net.d")
    networks.mkdir()
    (networks / "10-pods.conflist").write_text(json.dumps(_network(node)))
    (node.home / "containerd.toml").write_text(_containerd(node))
    (node.home / "kubelet.json").write_text(json.dumps(_kubelet(cluster, node)))


def _network(node: Node) -> dict[str, object]:
    """Pods keep their own addresses on the way to other nodes; there is no way out of the cluster."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": node.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def _containerd(node: Node) -> str:
    # A root without CAP_SYS_RESOURCE may not lower a score, and runc would fail trying.
    return f"""version = 2
[grpc]
  address = "{node.containerd}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
"""


def _kubelet(cluster: Cluster, node: Node) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{node.containerd}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.key}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "authentication": {"x509": {"clientCAFile": str(cluster.pki / "ca.crt")}},
        "clusterDomain": CLUSTER_DOMAIN,
        "clusterDNS": [DNS_SERVICE],
        "resolvConf": "",  # there is no world outside to resolve
        "imageGCHighThresholdPercent": 100,  # images come from archives: what is collected cannot be pulled again
        "evictionHard": {"memory.available": "100Mi"},
        "maxPods": 200,
    }


def _containerd_answers(node: Node) -> bool:
    return subprocess.run(["ctr", "-a", node.containerd, "version"], capture_output=True).returncode == 0


def _sh(*command: str) -> None:
    subprocess.run(command, check=True)
