"""Running pods are enrolled while they talk: what was open is listed, goes on, and is cut once policy refuses it."""

from collections.abc import Iterator

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace, pod
from tests.mesh.talk import SERVER, Talk

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]
STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "rule"},
    "spec": {"mtls": {"mode": "STRICT"}},
}
LABEL = "istio.io/dataplane-mode=ambient"


@pytest.fixture
def plain(mesh: Mesh) -> Iterator[str]:
    """A namespace that is not in the mesh: a server, a client on its node and one on the other."""
    with make_namespace(mesh, enrolled=False) as namespace:
        mesh.apply(pod("server", mesh.nodes[0], ["python3", "-uc", SERVER], namespace=namespace))
        for name, node in zip(("near", "far"), mesh.nodes, strict=False):
            mesh.apply(pod(name, node, ["sleep", "3600"], namespace=namespace))
        mesh.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        yield namespace


def listed(mesh: Mesh, namespace: str) -> list[tuple[str, str]]:
    """Pre-mesh connections: workload and direction. None while a node agent is starting."""
    rows = [line.split() for line in mesh.ambit("connections", check=False).stdout.splitlines()[1:]]
    ours = [row for row in rows if row[1].endswith(f".{namespace}") and row[-1] == "pre-mesh"]
    return sorted((row[1].partition(".")[0], row[2]) for row in ours)


def test_what_was_open_before_is_listed_and_ends_with_strict(mesh: Mesh, plain: str) -> None:
    address = mesh.pod_addresses(plain, "server")[0]
    mesh.wait("the server serves", lambda: _greets(mesh, plain, address))
    before = [Talk(mesh, plain, name, address) for name in ("near", "far")]
    mesh.kubectl("label", "namespace", plain, LABEL)
    wanted = [("far", "Outbound"), ("near", "Outbound"), ("server", "Inbound"), ("server", "Inbound")]
    mesh.wait("what was open is listed", lambda: listed(mesh, plain) == wanted)
    since = [Talk(mesh, plain, name, address) for name in ("near", "far")]
    for node in mesh.nodes[:2]:
        mesh.kill("node agent", node)
    mesh.wait("it is listed as before", lambda: listed(mesh, plain) == wanted)
    mesh.kubectl("apply", "-n", plain, "-f", "-", stdin=yaml.safe_dump(STRICT))
    for each in before:
        each.cut_at()
    mesh.wait("nothing is older than the mesh", lambda: not listed(mesh, plain))
    assert mesh.ambit("connections").stdout
    assert [each.last_word() for each in since] == ["alive", "alive"]


def test_strict_cuts_what_was_open_at_enrolment(mesh: Mesh, plain: str) -> None:
    address = mesh.pod_addresses(plain, "server")[-1]
    mesh.wait("the server serves", lambda: _greets(mesh, plain, address))
    mesh.kubectl("apply", "-n", plain, "-f", "-", stdin=yaml.safe_dump(STRICT))
    before = [Talk(mesh, plain, name, address) for name in ("near", "far")]
    mesh.kubectl("label", "namespace", plain, LABEL)
    for each in before:
        each.cut_at()


def _greets(mesh: Mesh, namespace: str, address: str) -> bool:
    script = f"import socket; socket.create_connection(({address!r}, 9000), 5).recv(5)"
    words = ("exec", "-n", namespace, "far", "--", "python3", "-c", script)
    return mesh.kubectl(*words, check=False).returncode == 0
