"""The control plane is not on the data path: what happens without it, and what policies report about it."""

from collections.abc import Iterator

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod, web_and_client

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody}
spec: {action: DENY, rules: [{}]}
"""

FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=30).status)
except OSError as problem:
    print(type(problem).__name__)
"""


@pytest.fixture
def ready(mesh: Mesh, namespace: str) -> str:
    apply_in(mesh, namespace, web_and_client())
    mesh.wait("the first answer", lambda: fetch(mesh, namespace) == "200")
    return namespace


def fetch(mesh: Mesh, namespace: str, host: str = "web") -> str:
    return mesh.exec(namespace, "client", "python3", "-c", FETCH, f"http://{host}").stdout.strip()


def scale(mesh: Mesh, replicas: int) -> None:
    mesh.kubectl("scale", "-n", "ambit-system", "deployment/ambit-control", f"--replicas={replicas}")
    mesh.wait("the replicas are there", lambda: len(control_pods(mesh)) == replicas)


def control_pods(mesh: Mesh) -> list[str]:
    return mesh.kubectl("get", "pods", "-n", "ambit-system", "-l", "app=istiod", "-o", "name").stdout.split()


@pytest.fixture
def without_control_plane(mesh: Mesh, ready: str) -> Iterator[str]:
    scale(mesh, 0)
    try:
        yield ready
    finally:
        scale(mesh, 1)
        mesh.kubectl("rollout", "status", "-n", "ambit-system", "deployment/ambit-control", "--timeout=110s")


@pytest.mark.feature("F23")
def test_known_workloads_talk_without_it(mesh: Mesh, without_control_plane: str) -> None:
    assert [fetch(mesh, without_control_plane) for _ in range(3)] == ["200"] * 3


def test_connection_to_a_service_that_the_node_does_not_know_yet_is_not_passed_through(
    mesh: Mesh, ready: str
) -> None:
    """A Service is made while the control plane is away: a client that the mesh captures gets no answer in the clear,
    while a client outside the mesh is served."""
    new = {**web_and_client()[0], "metadata": {"name": "new"}}
    with make_namespace(mesh, enrolled=False) as outside:
        apply_in(mesh, outside, [pod("client", mesh.nodes[0], ["sleep", "3600"])])
        scale(mesh, 0)
        try:
            apply_in(mesh, ready, [new])
            path = ("-o", "jsonpath={.spec.clusterIP}")
            address = mesh.kubectl("get", "service", "new", "-n", ready, *path).stdout
            mesh.wait("the cluster serves it", lambda: fetch(mesh, outside, address) == "200")
            assert fetch(mesh, ready, address) != "200"
        finally:
            scale(mesh, 1)
        mesh.wait("the node knows the Service", lambda: fetch(mesh, ready, address) == "200")


def test_what_was_applied_while_it_was_away_holds_when_it_is_back(mesh: Mesh, ready: str) -> None:
    scale(mesh, 0)
    mesh.kubectl("apply", "-n", ready, "-f", "-", stdin=DENY)
    scale(mesh, 1)
    acknowledged(mesh, ready)
    assert fetch(mesh, ready) != "200"


def test_an_acknowledged_policy_is_enforced(mesh: Mesh, ready: str) -> None:
    for _ in range(3):
        mesh.kubectl("apply", "-n", ready, "-f", "-", stdin=DENY)
        acknowledged(mesh, ready)
        assert fetch(mesh, ready) != "200"
        mesh.kubectl("delete", "authorizationpolicy", "nobody", "-n", ready)
        mesh.wait("the policy is gone from the node", lambda: fetch(mesh, ready) == "200")


def acknowledged(mesh: Mesh, namespace: str) -> None:
    condition = "--for=condition=ambit.io/Acknowledged"
    mesh.kubectl("wait", condition, "authorizationpolicy/nobody", "-n", namespace, "--timeout=110s")


def test_the_root_is_in_every_namespace(mesh: Mesh, namespace: str) -> None:
    path = "jsonpath={.data.root-cert\\.pem}"
    words = ("get", "configmap", "istio-ca-root-cert", "-o", path)
    system = mesh.kubectl(*words, "-n", "ambit-system").stdout
    assert system.startswith("-----BEGIN CERTIFICATE-----")
    mesh.wait(
        "the root is published",
        lambda: mesh.kubectl(*words, "-n", namespace, check=False).stdout == system,
    )
