"""Pytest fixtures: `mesh` is one laptop cluster for the whole session, `namespace` a fresh enrolled namespace."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.local.instance.record import read_record
from ambit.testing.leftovers import leftovers, pid_namespace
from ambit.testing.mesh import Mesh

_started: dict[Path, int] = {}
"""PID namespaces of this session's instances, by the directory above their state."""


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """At the session's end no process, mount or file of the instances that `start_mesh` started is there."""
    yield
    for root, namespace in _started.items():
        assert leftovers(root, namespace) == []
        assert not root.exists() or os.listdir(root) == []


@pytest.fixture(scope="session")
def kubectl_program() -> str | None:
    """`$KUBECTL`, or the one in PATH; None where there is none. Override it to find another one."""
    return os.environ.get("KUBECTL") or shutil.which("kubectl")


def start_mesh(root: Path, kubectl_program: str | None, *flags: str) -> Mesh:
    """A new instance with a name of its own. Whoever starts it stops it with `mesh.ambit("down")`."""
    mesh = Mesh(f"t{uuid.uuid4().hex[:8]}", root, kubectl_program)
    mesh.ambit("up", *flags, timeout=120)
    record = read_record(mesh.state)
    assert record is not None
    _started[root] = pid_namespace(record)
    return mesh


@pytest.fixture(scope="session")
def mesh(kubectl_program: str | None) -> Iterator[Mesh]:
    """Two nodes, everything ready. Socket paths are short, so the state lies directly under /tmp."""
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        started = start_mesh(Path(root), kubectl_program)
        try:
            yield started
        finally:
            started.ambit("down")


@pytest.fixture
def namespace(mesh: Mesh) -> Iterator[str]:
    """A namespace that is enrolled from its creation on; deleted afterwards without waiting for its pods."""
    name = f"n{uuid.uuid4().hex[:8]}"
    labels = {"istio.io/dataplane-mode": "ambient"}
    mesh.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=false")
