"""The disk of a running instance fills up: what runs goes on, writes are refused, killed parts come back, nothing is
lost."""

import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ambit.local.instance.processes import instance_processes
from ambit.local.instance.record import read_record
from ambit.testing.laptop import LaptopMesh
from ambit.testing.plugin import start_mesh
from tests.mesh.traffic import attempts, start_traffic

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("fills the disk of an instance of its own, and limits its agents' files"),
]

DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: late, namespace: full-disk}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [default]}}]}]
"""


@pytest.fixture
def small(kubectl_program: str | None) -> Iterator[tuple[LaptopMesh, Path]]:
    """An instance on a disk of its own, and a file that can be made to fill it."""
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", root], check=True)
        try:
            mesh = start_mesh(Path(root), kubectl_program, "--nodes", "1")
            try:
                yield mesh, Path(root, "filling")
            finally:
                mesh.ambit("down")
        finally:
            subprocess.run(["umount", root], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as content:
        try:
            while True:
                content.write(bytes(4096))
        except OSError:
            return


def kill(mesh: LaptopMesh, part: str) -> None:
    record = read_record(mesh.state)
    assert record is not None
    for process in instance_processes(record):
        if process.part == part:
            os.kill(process.pid, signal.SIGKILL)


def create(mesh: LaptopMesh, name: str) -> subprocess.CompletedProcess[str]:
    """A large object: small ones may still fit into the last page."""
    return mesh.kubectl("create", "configmap", name, f"--from-literal=content={'x' * 100_000}", check=False)


def reads(mesh: LaptopMesh) -> bool:
    return mesh.kubectl("get", "configmap", "before", check=False).returncode == 0


def agent_ready(mesh: LaptopMesh) -> bool:
    words = ("get", "daemonset", "ambit-node", "-n", "ambit-system", "-o", "jsonpath={.status.numberReady}")
    return mesh.kubectl(*words, check=False).stdout == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small disk")
def test_full_disk(small: tuple[LaptopMesh, Path]) -> None:
    mesh, filling = small
    assert create(mesh, "before").returncode == 0
    fill(filling)
    refused = create(mesh, "while")
    assert refused.returncode != 0
    assert "database or disk is full" in refused.stderr
    kill(mesh, "cluster")
    mesh.wait("the API server is back on the full disk", lambda: reads(mesh))
    assert create(mesh, "while").returncode != 0
    kill(mesh, "node agent")
    filling.unlink()
    mesh.wait("writes are accepted", lambda: create(mesh, "after").returncode == 0)
    mesh.wait("the node agent is ready", lambda: agent_ready(mesh))
    assert reads(mesh)


@contextmanager
def storing_nothing(pid: int) -> Iterator[None]:
    """No file of this process takes a byte: its writes fail as on a full disk."""
    former = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, former[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, former)


def failing(mesh: LaptopMesh) -> dict[str, str]:
    """Checks of the mesh that fail, with their text."""
    found = mesh.ambit("check", "-o", "json", check=False)
    failed = {
        each["id"]: each["error"] for each in json.loads(found.stdout)["checks"] if each["result"] == "error"
    }
    assert (found.returncode == 1) == bool(failed.keys() - {"objects-in-force"})
    return failed


def test_a_policy_is_in_force_though_the_node_cannot_store_it(mesh: LaptopMesh) -> None:
    mesh.create_namespace("full-disk", {"istio.io/dataplane-mode": "ambient"})
    try:
        start_traffic(mesh, "full-disk")
        node = mesh.nodes[1]
        (agent,) = mesh.processes("node agent", node)
        with storing_nothing(agent):
            mesh.apply(DENY)
            condition = "--for=condition=ambit.io/Acknowledged=False"
            mesh.kubectl("wait", condition, "authorizationpolicy/late", "-n", "full-disk", "--timeout=60s")
            denied = time.time()
            path = "jsonpath={.status.conditions[?(@.type=='ambit.io/Acknowledged')].message}"
            said = mesh.kubectl("get", "authorizationpolicy/late", "-n", "full-disk", "-o", path).stdout
            assert f"{node} (in force from memory only" in said
            found = failing(mesh)
            assert f"node {node} keeps changes in memory only" in found["states-stored"]
            assert "istio.security.Authorization full-disk/late: in force" in found["proxies-in-sync"]
            mesh.wait("several were denied", lambda: len(attempts(mesh, "full-disk", since=denied)) > 20)
            passed = [each for each in attempts(mesh, "full-disk", since=denied) if each.result == 200]
            assert passed == []
        mesh.kubectl(
            "wait",
            "--for=condition=ambit.io/Acknowledged",
            "authorizationpolicy/late",
            "-n",
            "full-disk",
            "--timeout=60s",
        )
        mesh.wait("the checks hold", lambda: not failing(mesh))
    finally:
        mesh.kubectl("delete", "namespace", "full-disk", "--wait=false")
