"""The disk of a running instance fills up: what runs goes on, writes are refused, killed parts come back, nothing is
lost."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.local.instance.processes import instance_processes
from ambit.local.instance.record import read_record
from ambit.testing.laptop import LaptopMesh
from ambit.testing.plugin import start_mesh

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a small disk"),
    pytest.mark.laptop_only("fills the disk of an instance of its own"),
]


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
