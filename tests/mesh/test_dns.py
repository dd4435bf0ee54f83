"""Names as an enrolled pod sees them: the node answers services, the cluster's DNS server the rest."""

import json
import uuid
from typing import Any

import dns.message
import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, web_and_client

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

OTHERS = """
apiVersion: v1
kind: Service
metadata: {name: each}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: kubernetes.default.svc.cluster.local}
"""

RESOLVE = """
import json, socket, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
    except socket.gaierror as error:
        found[name] = error.errno == socket.EAI_NONAME
print(json.dumps(found))
"""

ASK = """
import socket, sys
query = bytes.fromhex(sys.argv[1])
server = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
if sys.argv[2] == "udp":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(query, (server, 53))
        print(sock.recv(4096).hex())
else:
    with socket.create_connection((server, 53), 5) as sock, sock.makefile("rb") as file:
        sock.sendall(len(query).to_bytes(2, "big") + query)
        print(file.read(int.from_bytes(file.read(2), "big")).hex())
"""


@pytest.fixture
def ready(mesh: Mesh, namespace: str) -> str:
    apply_in(mesh, namespace, [*web_and_client(), *yaml.safe_load_all(OTHERS)])
    return namespace


def resolve(mesh: Mesh, namespace: str, *names: str) -> dict[str, Any]:
    """Addresses of each name; True where the name does not exist, False for any other failure."""
    return dict(json.loads(mesh.exec(namespace, "client", "python3", "-c", RESOLVE, *names).stdout))


def address(mesh: Mesh, namespace: str, kind: str, name: str, path: str) -> str:
    return mesh.kubectl("get", kind, name, "-n", namespace, "-o", f"jsonpath={{{path}}}").stdout


def test_names_of_services_and_of_nothing(mesh: Mesh, ready: str) -> None:
    cluster_ip = address(mesh, ready, "service", "web", ".spec.clusterIP")
    pod_ip = address(mesh, ready, "pod", "web", ".status.podIP")
    api = address(mesh, "default", "service", "kubernetes", ".spec.clusterIP")
    expected = {
        "web": [cluster_ip],
        f"web.{ready}": [cluster_ip],
        f"web.{ready}.svc": [cluster_ip],
        f"web.{ready}.svc.cluster.local": [cluster_ip],
        "alias": [api],
        "kubernetes.default": [api],
        f"nothing.{ready}.svc.cluster.local": True,
    }
    assert resolve(mesh, ready, *expected) == expected
    assert pod_ip in mesh.wait(
        "the headless service has its endpoint", lambda: resolve(mesh, ready, "each")["each"]
    )


@pytest.mark.laptop_only(
    "on Kubernetes names outside the cluster are for the DNS servers that the cluster's own asks"
)
def test_names_outside_the_cluster_do_not_exist(mesh: Mesh, ready: str) -> None:
    assert resolve(mesh, ready, "nothing", "www.example.com") == {"nothing": True, "www.example.com": True}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_other_types_reach_the_cluster_dns(mesh: Mesh, ready: str, transport: str) -> None:
    query = dns.message.make_query(f"_http._tcp.web.{ready}.svc.cluster.local.", "SRV", use_edns=0)
    answer = mesh.exec(ready, "client", "python3", "-c", ASK, query.to_wire().hex(), transport).stdout
    reply = dns.message.from_wire(bytes.fromhex(answer.strip()))
    assert reply.id == query.id
    assert reply.answer[0][0].to_text() == f"0 100 80 web.{ready}.svc.cluster.local."


def test_a_new_service_resolves_and_a_deleted_one_does_not(mesh: Mesh, ready: str) -> None:
    name = f"s{uuid.uuid4().hex[:6]}"
    mesh.kubectl("create", "service", "clusterip", name, "-n", ready, "--tcp=80")
    whole = f"{name}.{ready}.svc.cluster.local"
    found = mesh.wait("the new service resolves", lambda: _addresses(resolve(mesh, ready, name)[name]))
    assert found == [address(mesh, ready, "service", name, ".spec.clusterIP")]
    mesh.kubectl("delete", "service", name, "-n", ready)
    mesh.wait("the deleted service is gone", lambda: resolve(mesh, ready, whole)[whole] is True)


def _addresses(found: Any) -> list[str]:
    return found if isinstance(found, list) else []
