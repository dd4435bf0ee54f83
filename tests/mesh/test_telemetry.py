"""What is counted and written down of connections: whose they are, where from, how many; on one node and between."""

from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.places import nodes_in_places
from tests.mesh.pods import make_namespace, pod
from tests.mesh.scrape import scrape, total
from tests.mesh.talk import PORTS, SERVER

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

OPENED, CLOSED = "istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total"
SENT, RECEIVED = "istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"
MANY = 7
GREET = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 9000), 30) as dialled:
        assert dialled.recv(5) == b"hello"
        dialled.sendall(b"yes")
        assert dialled.recv(5) == b"yes"
"""


@pytest.fixture(scope="module")
def town(mesh: Mesh) -> Iterator[str]:
    """Clients `ann` and `bob`, each its own account, on the first node; servers `near` there and `far` elsewhere."""
    here, there = mesh.nodes[:2]
    probe = {"tcpSocket": {"port": PORTS[0]}, "periodSeconds": 1}
    with make_namespace(mesh) as name:
        made: list[dict[str, Any]] = []
        for client in ("ann", "bob"):
            value = pod(client, here, ["sleep", "3600"], namespace=name)
            value["spec"]["serviceAccountName"] = client
            metadata = {"name": client, "namespace": name}
            made += [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}, value]
        for server, node in (("near", here), ("far", there)):
            command = ["python3", "-uc", SERVER]
            made.append(
                pod(server, node, command, namespace=name, labels={"app": server}, readinessProbe=probe)
            )
        made.append(pod("first", here, ["sleep", "3600"], namespace=name))
        mesh.apply(made)
        mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        mesh.wait("both nodes know the servers", lambda: _are_known(mesh, name))
        yield name


def _are_known(mesh: Mesh, namespace: str) -> bool:
    """Whether `first` reaches both by their identities; until then connections may be plain, or refused."""
    for server in ("near", "far"):
        greet(mesh, namespace, "first", server, 1, check=False)
    samples = scrape(mesh)
    ends = {"source_workload": "first", "source_workload_namespace": namespace}
    return all(
        total(samples, OPENED, **ends, destination_workload=server, connection_security_policy="mutual_tls")
        for server in ("near", "far")
    )


def greet(
    mesh: Mesh, namespace: str, client: str, server: str, count: int = MANY, *, check: bool = True
) -> None:
    address, *_ = mesh.pod_addresses(namespace, server)
    mesh.exec(namespace, client, "python3", "-c", GREET, address, str(count), check=check)


def principal(namespace: str, account: str) -> str:
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


@pytest.mark.feature("F7", "F8", "F14", "F152")
def test_every_connection_is_counted_and_written_down_with_both_identities(mesh: Mesh, town: str) -> None:
    ways = [(client, server) for client in ("ann", "bob") for server in ("near", "far")]
    for client, server in ways:
        greet(mesh, town, client, server)
    wanted = {
        (reporter, *way, name): MANY
        for reporter in ("source", "destination")
        for way in ways
        for name in (OPENED, CLOSED)
    }

    def counted() -> dict[tuple[str, ...], float]:
        samples = scrape(mesh)
        return {
            key: total(
                samples,
                key[3],
                reporter=key[0],
                source_principal=principal(town, key[1]),
                destination_principal=principal(town, "default"),
                destination_workload=key[2],
                connection_security_policy="mutual_tls",
                request_protocol="tcp",
            )
            for key in wanted
        }

    mesh.wait("every connection is counted once", lambda: counted() == wanted)
    samples = scrape(mesh)
    for client, server in ways:
        ends = {"source_principal": principal(town, client), "destination_workload": server}
        for reporter in ("source", "destination"):
            assert total(samples, RECEIVED, reporter=reporter, **ends) == MANY * len("yes")
            assert total(samples, SENT, reporter=reporter, **ends) == MANY * len("helloyes")
    log = mesh.kubectl("logs", "-n", "ambit-system", "-l", "app=ztunnel", "--tail=-1").stdout
    written = [line for line in log.splitlines() if "access" in line and f'dst.namespace="{town}"' in line]
    for client, server in ways:
        texts = (principal(town, client), principal(town, "default"), f'dst.workload="{server}"')
        for direction in ("outbound", "inbound"):
            found = [line for line in written if direction in line and all(text in line for text in texts)]
            assert len(found) == MANY, (client, server, direction)


@pytest.mark.feature("F54")
def test_region_and_zone_of_both_ends_are_labels(mesh: Mesh, town: str) -> None:
    nodes = dict(zip(("source", "destination"), mesh.nodes, strict=False))
    wanted = {
        f"{end}_{part}": f"{part}-of-{node}" for end, node in nodes.items() for part in ("region", "zone")
    }

    def labelled() -> bool:
        greet(mesh, town, "ann", "far", 1, check=False)
        samples = scrape(mesh)
        ends = {"destination_workload": "far", "source_principal": principal(town, "ann")}
        return all(
            total(samples, OPENED, reporter=reporter, **ends, **wanted) > 0
            for reporter in ("source", "destination")
        )

    with nodes_in_places(mesh):
        mesh.wait("connections are counted by where their ends are", labelled)
