"""Hosts of a wildcard outside, found by the name in a client's hello: where the mesh's settings have it, and never to
what is the mesh's own."""

from collections.abc import Iterator
from typing import Any

import pytest

from ambit.envoy.l7.server_names import HOSTS
from ambit.testing.mesh import Mesh
from tests.ingest.gateway.pairs import Authority
from tests.mesh.pods import apply_in, make_namespace, pod
from tests.mesh.settings import with_mesh_config
from tests.mesh.shop import waypoint

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]
PUBLIC = "93.184.216.34"
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
listener = socket.create_server((sys.argv[3], 443))
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


def entry(domain: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "hosts", "labels": {"istio.io/use-waypoint": "way"}},
        "spec": {
            "hosts": [f"*.{domain}"],
            "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
            "resolution": "DYNAMIC_DNS",
        },
    }


def named(**hosts: list[str]) -> list[dict[str, Any]]:
    """Host names that the cluster's DNS has, of the Service `names`."""
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


class Egress:
    """`outside` is at an address of the Internet; `inner` is a pod; `client` asks for names of `domain`."""

    def __init__(self, mesh: Mesh, namespace: str) -> None:
        self.mesh = mesh
        self.namespace = namespace
        self.domain = f"names.{namespace}.svc.cluster.local"

    @property
    def address(self) -> str:
        """The one that the mesh gave the hosts. (The cluster's own DNS knows these names, so a pod would not be told it
        by name, as it is of hosts that only the mesh knows.)"""
        path = "jsonpath={.status.addresses[0].value}"
        return self.mesh.kubectl("get", "serviceentry", "hosts", "-n", self.namespace, "-o", path).stdout

    def ask(self, name: str, client: str = "client") -> str:
        """Who answers a pod for a name."""
        asked = ("python3", "-c", _ASK, self.address, name)
        return self.mesh.exec(self.namespace, client, *asked).stdout.strip()


@pytest.fixture(scope="module")
def egress(mesh: Mesh) -> Iterator[Egress]:
    pair = Authority().pair("names.test")
    shown = pair.chain + pair.key
    with (
        with_mesh_config(mesh, "enableWildcardHostServiceEntriesForTls: true\n"),
        mesh.outside(PUBLIC) as node,
        make_namespace(mesh, enrolled=False) as elsewhere,
        make_namespace(mesh) as namespace,
    ):
        found = Egress(mesh, namespace)
        outside = pod("outside", node, ["python3", "-uc", _SERVER, "outside", shown, PUBLIC])
        outside["spec"]["hostNetwork"] = True
        apply_in(mesh, elsewhere, [outside])
        ready = {"readinessProbe": {"tcpSocket": {"port": 443}, "periodSeconds": 1}}
        inner = pod("inner", node, ["python3", "-uc", _SERVER, "inner", shown, ""], **ready)
        client = pod("client", node, ["sleep", "3600"])
        apply_in(mesh, namespace, [waypoint("ambit-waypoint", "service"), entry(found.domain), inner, client])
        (address,) = (each for each in mesh.pod_addresses(namespace, "inner") if ":" not in each)
        both = [PUBLIC.replace(".34", ".35"), address]
        apply_in(
            mesh, namespace, named(out=[PUBLIC], other=[PUBLIC], fresh=[PUBLIC], inner=[address], mixed=both)
        )
        mesh.kubectl("wait", "-n", namespace, "--for=condition=Programmed", "gateway/way", "--timeout=110s")
        yield found
        mesh.kubectl("delete", "-n", elsewhere, "pod", "outside")


@pytest.mark.feature("N4")
def test_the_name_in_the_hello_leads_outside_and_never_into_the_mesh(egress: Egress) -> None:
    """`mixed` has an address outside that does not answer, and the pod's."""
    domain = egress.domain
    for host in ("out", "other"):
        name = f"{host}.{domain}"
        egress.mesh.wait(f"{host} answers", lambda name=name: egress.ask(name) == f"outside {name}")
    for name in (f"inner.{domain}", f"mixed.{domain}", "elsewhere.example.org", domain, "localhost", ""):
        assert egress.ask(name).startswith("nobody"), name
    said = [f"{host}.{domain} is said to be at" for host in ("inner", "mixed")]
    words = ("logs", "-n", egress.namespace, "deployment/way")

    def is_told() -> bool:
        log = egress.mesh.kubectl(*words).stdout
        return all(each in log for each in said)

    egress.mesh.wait("it is told", is_told)


# Asks for so many names below a domain at an address; how many were answered.
_FLOOD = """
import socket, ssl, sys
from concurrent.futures import ThreadPoolExecutor
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def ask(number):
    try:
        with socket.create_connection((sys.argv[1], 443), 10) as plain:
            with context.wrap_socket(plain, server_hostname=f"n{number}.{sys.argv[2]}"):
                return 1
    except OSError:
        return 0
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(ask, range(int(sys.argv[3])))))
"""


@pytest.mark.feature("N4")
@pytest.mark.timeout(600)
def test_who_asks_for_many_names_does_not_take_them_from_all_others(egress: Egress) -> None:
    """Once in 16 million times the eight others would share with him."""
    mesh, name, others = egress.mesh, f"fresh.{egress.domain}", [f"other{number}" for number in range(8)]
    accounts = []
    for each in others:
        mesh.kubectl("create", "serviceaccount", each, "-n", egress.namespace)
        accounts.append(pod(each, mesh.nodes[0], ["sleep", "3600"]))
        accounts[-1]["spec"]["serviceAccountName"] = each
    apply_in(mesh, egress.namespace, accounts)
    known = f"out.{egress.domain}"
    for each in others:
        mesh.wait(f"{each} is let out", lambda each=each: egress.ask(known, each).startswith("outside"))
    flood = ("python3", "-c", _FLOOD, egress.address, egress.domain, str(HOSTS + 44))
    mesh.exec(egress.namespace, "client", *flood)
    assert egress.ask(name).startswith("nobody")
    assert any(egress.ask(name, each).startswith("outside") for each in others)
    mesh.wait("names are forgotten", lambda: egress.ask(name).startswith("outside"), 240)


@pytest.mark.feature("N4")
def test_a_public_address_of_the_clusters_own_is_not_outside(egress: Egress) -> None:
    mesh, name = egress.mesh, f"out.{egress.domain}"
    mesh.wait("open", lambda: egress.ask(name).startswith("outside"))
    taken = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "taken"},
        "spec": {"externalIPs": [PUBLIC], "ports": [{"port": 443}]},
    }
    apply_in(mesh, egress.namespace, [taken])
    mesh.wait("it is the cluster's", lambda: egress.ask(name).startswith("nobody"))
    mesh.kubectl("delete", "service", "taken", "-n", egress.namespace)
    mesh.wait("outside again", lambda: egress.ask(name).startswith("outside"))


@pytest.mark.feature("N4")
def test_policies_for_it_are_enforced(egress: Egress) -> None:
    mesh, name = egress.mesh, f"out.{egress.domain}"
    mesh.wait("open", lambda: egress.ask(name).startswith("outside"))
    target = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": "hosts"}
    source = {"principals": [f"cluster.local/ns/{egress.namespace}/sa/default"]}
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "nobody"},
        "spec": {"targetRefs": [target], "action": "DENY", "rules": [{"from": [{"source": source}]}]},
    }
    apply_in(mesh, egress.namespace, [policy])
    mesh.wait("refused", lambda: egress.ask(name).startswith("nobody"))
    mesh.kubectl("delete", "authorizationpolicy", "nobody", "-n", egress.namespace)
    mesh.wait("open again", lambda: egress.ask(name).startswith("outside"))
