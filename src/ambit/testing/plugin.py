"""Pytest fixtures: `mesh` is one laptop cluster for the whole session, `namespace` a fresh enrolled namespace."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.testing.mesh import Mesh


@pytest.fixture(scope="session")
def kubectl_program() -> str | None:
    """`$KUBECTL`, or the one in PATH; None where there is none. Override it to find another one."""
    return os.environ.get("KUBECTL") or shutil.which("kubectl")


def start_mesh(root: Path, kubectl_program: str | None, *flags: str) -> Mesh:
    """A new instance with a name of its own. Whoever starts it stops it with `mesh.ambit("down")`."""
    mesh = Mesh(f"t{uuid.uuid4().hex[:8]}", root, kubectl_program)
    mesh.ambit("up", *flags, timeout=120)
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
