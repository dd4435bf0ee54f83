"""A whole cluster: up, down, images onto every node, and commands inside its network."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ambit.core.errors import AmbitError, NotRunning
from tests.kubernetes.cluster import balancers, control, images, network, node, pki, processes, programs
from tests.kubernetes.cluster.settings import Cluster, Node, cache, load, save

NODES_READY = 120.0
DNS_READY = "120s"
DNS = Path(__file__).parent / "dns.yaml"


def up(cluster: Cluster) -> None:
    """Builds what is missing, starts the cluster and returns when its nodes and its DNS are ready.

    Raises AmbitError when the machine lacks something, the cluster is there already or something did not come
    up in time; in the last case what has started stays for a look at its logs until `down`.
    """
    if load(cluster.state) is not None:
        raise AmbitError(
            f"there already is a cluster in {cluster.state}",
            hint="take it down first, or choose another --name",
        )
    programs.check_machine()
    built = programs.build()
    images.pack_system_images(built, cache() / "images")
    save(cluster)
    pki.make(cluster)
    network.make(cluster)
    control.start(cluster, built)
    for each in cluster.nodes:
        node.start(cluster, each)
    if cluster.nodes:
        _wait_for_nodes(cluster)
        balancers.start(cluster)
        kubectl(cluster, "apply", "--server-side", "-f", str(DNS), quiet=True)
        kubectl(
            cluster,
            "-n",
            "kube-system",
            "rollout",
            "status",
            "deployment/coredns",
            f"--timeout={DNS_READY}",
            quiet=True,
        )


def down(state: Path) -> None:
    """Ends every process of the cluster in that folder and removes whatever it made; no cluster is no error."""
    cluster = load(state)
    if cluster is None:
        return
    processes.end_recorded(state)
    network.remove(cluster)
    for each in cluster.nodes:
        _remove_when_empty(each)
    shutil.rmtree(state)


def run_node(cluster: Cluster, number: int) -> None:
    """What a node's process 1 does."""
    node.run(
        cluster, cluster.nodes[number - 1], programs.bin_folder(), sorted((cache() / "images").glob("*.tar"))
    )


def load_image(cluster: Cluster, archive: Path) -> None:
    """Imports an image archive on every node; its images can then be used without a pull."""
    for each in cluster.nodes:
        node.load(each, archive)


def kubectl(cluster: Cluster, *words: str, quiet: bool = False) -> None:
    """Runs kubectl as administrator; AmbitError with what it said when it fails and `quiet` is set."""
    command = [*cluster.inside(), str(programs.bin_folder() / "kubectl"), *words]
    done = subprocess.run(command, env=environment(cluster), capture_output=quiet, text=True)
    if done.returncode:
        raise AmbitError(f"`kubectl {' '.join(words)}` failed: {done.stderr or done.returncode}".strip())


def execute(cluster: Cluster, command: Sequence[str]) -> int:
    """Runs a command where the cluster's addresses are reached, as administrator, and returns its exit code."""
    return processes.run([*cluster.inside(), *command], environment(cluster))


def environment(cluster: Cluster) -> dict[str, str]:
    """The environment in which kubectl, helm and ambit mean this cluster."""
    return {**tools(), "KUBECONFIG": str(cluster.kubeconfig()), "KUBE_STATE": str(cluster.state)}


def tools() -> dict[str, str]:
    """The environment in which kubectl and helm are found."""
    return {**os.environ, "PATH": f"{programs.bin_folder()}:{os.environ.get('PATH', processes.PATH)}"}


def running(state: Path) -> Cluster:
    """The cluster in that folder; NotRunning when there is none."""
    cluster = load(state)
    if cluster is None:
        raise NotRunning(f"there is no cluster in {state}", hint="start one with `up`")
    return cluster


def _wait_for_nodes(cluster: Cluster) -> None:
    command = [
        *cluster.inside(), str(programs.bin_folder() / "kubectl"), "wait", "node",
        *(each.name for each in cluster.nodes), "--for=condition=Ready", "--timeout=1s",
    ]  # fmt: skip
    env = environment(cluster)
    processes.wait_for(
        "the nodes' readiness",
        lambda: subprocess.run(command, env=env, capture_output=True).returncode == 0,
        NODES_READY,
        hint=f"read {cluster.state}/node1.log and the logs beside it",
    )


def _remove_when_empty(each: Node) -> None:
    def gone() -> bool:
        try:
            node.remove_cgroups(each)
        except OSError:  # a killed process leaves its cgroup a moment after it has ended
            return False
        return True

    processes.wait_for(f"the end of {each.name}'s cgroups", gone, 20)
