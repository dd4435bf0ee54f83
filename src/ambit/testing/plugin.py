"""Pytest fixtures: `mesh` is one mesh for the whole session, `namespace` a fresh enrolled namespace in it.

`--mesh laptop` starts a laptop cluster; `--mesh kubernetes` uses the cluster of $KUBECONFIG, with ambit installed.
"""

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.local.instance.record import read_record
from ambit.testing.aftermath import after_death
from ambit.testing.kubernetes import KubernetesMesh
from ambit.testing.laptop import LaptopMesh
from ambit.testing.leftovers import leftovers, pid_namespace
from ambit.testing.mesh import PATIENCE, Mesh

DRIVERS = ("laptop", "kubernetes")

_started: dict[Path, int] = {}
"""PID namespaces of this session's instances, by the directory above their state."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mesh",
        choices=DRIVERS,
        default=os.environ.get("AMBIT_TEST_MESH", "laptop"),
        help="where the mesh runs that tests use: on this laptop, or in the cluster of $KUBECONFIG",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "laptop_only(reason): not run with `--mesh kubernetes`, and why")
    if config.option.mesh not in DRIVERS:
        raise pytest.UsageError(f"AMBIT_TEST_MESH is {config.option.mesh!r}, not one of {', '.join(DRIVERS)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is said to be of the laptop only is left out elsewhere, and the reason shown. Raises UsageError where there
    is none."""
    for item in items:
        for marker in item.iter_markers("laptop_only"):
            if len(marker.args) != 1 or not isinstance(marker.args[0], str) or not marker.args[0].strip():
                raise pytest.UsageError(f"{item.nodeid}: laptop_only needs its reason in words")
            if config.option.mesh != "laptop":
                item.add_marker(pytest.mark.skip(reason=f"laptop only: {marker.args[0]}"))


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


def start_mesh(root: Path, kubectl_program: str | None, *flags: str) -> LaptopMesh:
    """A new instance with a name of its own. Whoever starts it stops it with `mesh.ambit("down")`; should this process
    be killed before, it is stopped, too."""
    mesh = LaptopMesh(f"t{uuid.uuid4().hex[:8]}", root, kubectl_program)
    after_death("rmdir", os.fspath(root))
    down = (sys.executable, "-m", "ambit", "down", "--name", mesh.name)
    after_death("env", f"AMBIT_STATE={root}", *down)
    mesh.ambit("up", *flags, f"--timeout={PATIENCE:.0f}", timeout=2 * PATIENCE)
    record = read_record(mesh.state)
    assert record is not None
    _started[root] = pid_namespace(record)
    return mesh


@pytest.fixture(scope="session")
def mesh(pytestconfig: pytest.Config, kubectl_program: str | None) -> Iterator[Mesh]:
    """Two nodes, everything ready. Socket paths are short, so a laptop cluster's state lies directly under /tmp."""
    if pytestconfig.option.mesh == "kubernetes":
        first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
        running = KubernetesMesh(Path(first or "~/.kube/config").expanduser(), kubectl_program)
        yield running
        running.close()
        return
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        started = start_mesh(Path(root), kubectl_program)
        try:
            yield started
        finally:
            started.ambit("down")


@pytest.fixture(scope="session")
def laptop(mesh: Mesh) -> LaptopMesh:
    """The same mesh, for tests that look into the laptop cluster itself; they are marked `laptop_only`."""
    assert isinstance(mesh, LaptopMesh), "a test with this fixture is marked laptop_only"
    return mesh


@pytest.fixture
def namespace(mesh: Mesh) -> Iterator[str]:
    """A namespace that is enrolled from its creation on; deleted afterwards without waiting for its pods."""
    name = f"n{uuid.uuid4().hex[:8]}"
    mesh.create_namespace(name, {"istio.io/dataplane-mode": "ambient"})
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=false")
