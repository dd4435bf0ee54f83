"""Session affinity: a client stays with the endpoint that it has, wherever both are."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod
from tests.mesh.test_external import ASK, SERVER

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

TIMES = 16
"""So often the service is asked: of several endpoints in turn all would answer."""
CLIENTS = ("client0", "client1", "client2", "client3")


@pytest.fixture
def town(mesh: Mesh) -> Iterator[str]:
    """Two servers and two clients on each of two nodes; a Service with affinity, and one without."""
    with make_namespace(mesh) as name:
        nodes = mesh.nodes[:2] * 2
        clients = [pod(client, node, ["sleep", "3600"]) for client, node in zip(CLIENTS, nodes, strict=True)]
        servers = [server(f"server{number}", node) for number, node in enumerate(nodes)]
        services = [service("sticky", sessionAffinity="ClientIP"), service("any")]
        apply_in(mesh, name, [*services, *servers, *clients])
        yield name


def server(name: str, node: str) -> dict[str, Any]:
    probe = {"tcpSocket": {"port": 8081}, "periodSeconds": 1}
    return pod(name, node, ["python3", "-uc", SERVER], labels={"app": "web"}, readinessProbe=probe)


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": f"port{port}", "port": port} for port in (8080, 8081)]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
    }


def answering(mesh: Mesh, namespace: str, client: str, service: str) -> set[str]:
    """Who answers a client, on both ports."""
    places = [f"{service}:{port}" for port in (8080, 8081)]
    output = mesh.exec(namespace, client, "python3", "-c", ASK, str(TIMES), *places).stdout
    return {answer.partition(":")[0] for _, answer in json.loads(output)}


def test_a_client_stays_with_its_endpoint_and_moves_only_when_that_goes(mesh: Mesh, town: str) -> None:
    servers = {f"server{number}" for number in range(4)}
    mesh.wait(
        "every node knows all servers",
        lambda: all(answering(mesh, town, client, "any") == servers for client in CLIENTS[:2]),
    )
    before = {client: answering(mesh, town, client, "sticky") for client in CLIENTS}
    assert {len(found) for found in before.values()} == {1}, before
    assert before == {client: answering(mesh, town, client, "sticky") for client in CLIENTS}
    (gone,) = before[CLIENTS[0]]
    mesh.kubectl("delete", "pod", gone, "-n", town)
    mesh.wait(
        "every node knows that one has gone",
        lambda: all(answering(mesh, town, client, "any") == servers - {gone} for client in CLIENTS[:2]),
    )
    for client, found in before.items():
        now = answering(mesh, town, client, "sticky")
        assert now == found if found != {gone} else now < servers - {gone} and len(now) == 1
