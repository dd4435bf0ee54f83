"""Hosts of a wildcard outside, found by the name in a client's hello: where the mesh's settings have it, and never to
what is the mesh's own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.testing.laptop import LaptopMesh
from ambit.testing.plugin import start_mesh
from tests.ingest.gateway.pairs import Authority
from tests.mesh.pods import apply_in, pod
from tests.mesh.shop import waypoint

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("an address of the Internet that is the node's own, and settings from a file"),
]
NAMESPACE = "egress"
PUBLIC = "93.184.216.34"
DOMAIN = f"names.{NAMESPACE}.svc.cluster.local"
# Says its own name and the one that was asked for.
_SERVER = """
import socket, ssl, sys, tempfile
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
with tempfile.NamedTemporaryFile("w") as file:
    file.write(sys.argv[2])
    file.flush()
    context.load_cert_chain(file.name)
asked = []
context.sni_callback = lambda _, name, __: asked.append(name)
listener = socket.create_server(("", 443))
print("listens", flush=True)
while True:
    plain, _ = listener.accept()
    print("called", flush=True)
    try:
        with context.wrap_socket(plain, server_side=True) as connection:
            connection.sendall(f"{sys.argv[1]} {asked[-1]}".encode())
    except OSError:
        pass
"""
# What a server says, asked for one name (or none) at an address.
_ASK = """
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    plain = socket.create_connection((sys.argv[1], 443), 10)
    with context.wrap_socket(plain, server_hostname=sys.argv[2] or None) as connection:
        connection.settimeout(10)
        print(connection.recv(300).decode())
except OSError as problem:
    print("nobody", type(problem).__name__)
"""


def entry(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "hosts", "labels": {"istio.io/use-waypoint": "way"}},
        "spec": {
            "hosts": [f"*.{DOMAIN}"],
            "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
            "resolution": "DYNAMIC_DNS",
            **spec,
        },
    }


def named(**hosts: list[str]) -> list[dict[str, Any]]:
    """Host names that the cluster's DNS has in DOMAIN."""
    endpoints = [
        {"addresses": [address], "hostname": host, "conditions": {"ready": True}}
        for host, addresses in hosts.items()
        for address in addresses
    ]
    ports = [{"name": "tls", "port": 443, "protocol": "TCP"}]
    labels = {"kubernetes.io/service-name": "names"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "names"},
            "spec": {"clusterIP": "None", "ports": ports},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "names", "labels": labels},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        },
    ]


@pytest.fixture(scope="module")
def own(kubectl_program: str | None) -> Iterator[LaptopMesh]:
    """`outside` is at an address of the Internet, which is the node's; `inner` is a pod."""
    pair = Authority().pair("names.test")
    shown = pair.chain + pair.key
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        file = Path(root) / "mesh.yaml"
        file.write_text("enableWildcardHostServiceEntriesForTls: true\n")
        mesh = start_mesh(Path(root), kubectl_program, "--nodes", "1", "--mesh-config", str(file))
        (node,) = mesh.nodes
        server = None
        try:
            mesh.on_node(node, "ip", "address", "add", f"{PUBLIC}/32", "dev", "lo")
            server = mesh.start_on_node(node, "python3", "-uc", _SERVER, "outside", shown)
            mesh.create_namespace(NAMESPACE, {"istio.io/dataplane-mode": "ambient"})
            mesh.wait_for_account(NAMESPACE)
            ready = {"readinessProbe": {"tcpSocket": {"port": 443}, "periodSeconds": 1}}
            inner = pod("inner", node, ["python3", "-uc", _SERVER, "inner", shown], **ready)
            client = pod("client", node, ["sleep", "3600"])
            apply_in(mesh, NAMESPACE, [waypoint("ambit-waypoint", "service"), entry(), inner, client])
            (address,) = (each for each in mesh.pod_addresses(NAMESPACE, "inner") if ":" not in each)
            both = [PUBLIC.replace(".34", ".35"), address]
            apply_in(mesh, NAMESPACE, named(out=[PUBLIC], other=[PUBLIC], inner=[address], mixed=both))
            mesh.kubectl(
                "wait", "-n", NAMESPACE, "--for=condition=Programmed", "gateway/way", "--timeout=60s"
            )
            yield mesh
        finally:
            if server is not None:
                server.kill()
                server.communicate()
            mesh.ambit("down")


def ask(mesh: LaptopMesh, name: str) -> str:
    """Who answers for a name at the address that the mesh gave the hosts. (The cluster's own DNS knows these names,
    so a pod would not be told that address by name, as it is of hosts that only the mesh knows.)"""
    path = "jsonpath={.status.addresses[0].value}"
    address = mesh.kubectl("get", "serviceentry", "hosts", "-n", NAMESPACE, "-o", path).stdout
    return mesh.exec(NAMESPACE, "client", "python3", "-c", _ASK, address, name).stdout.strip()


@pytest.mark.feature("N4")
def test_the_name_in_the_hello_leads_outside_and_never_into_the_mesh(own: LaptopMesh) -> None:
    """`mixed` has an address outside that does not answer, and the pod's."""
    for host in ("out", "other"):
        name = f"{host}.{DOMAIN}"
        own.wait(f"{host} answers", lambda name=name: ask(own, name) == f"outside {name}")
    for name in (f"inner.{DOMAIN}", f"mixed.{DOMAIN}", "elsewhere.example.org", DOMAIN, "localhost", ""):
        assert ask(own, name).startswith("nobody"), name
    told = own.kubectl("logs", "-n", NAMESPACE, "deployment/way").stdout
    assert f"inner.{DOMAIN} is said to be at" in told and f"mixed.{DOMAIN} is said to be at" in told


@pytest.mark.feature("N4")
def test_policies_for_it_are_enforced(own: LaptopMesh) -> None:
    own.wait("open", lambda: ask(own, f"out.{DOMAIN}").startswith("outside"))
    target = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": "hosts"}
    source = {"principals": [f"cluster.local/ns/{NAMESPACE}/sa/default"]}
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody"},
        "spec": {"targetRefs": [target], "action": "DENY", "rules": [{"from": [{"source": source}]}]},
    }
    apply_in(own, NAMESPACE, [policy])
    own.wait("refused", lambda: ask(own, f"out.{DOMAIN}").startswith("nobody"))
    own.kubectl("delete", "authorizationpolicy", "nobody", "-n", NAMESPACE)
    own.wait("open again", lambda: ask(own, f"out.{DOMAIN}").startswith("outside"))
