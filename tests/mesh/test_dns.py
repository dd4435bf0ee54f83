"""Names as an enrolled pod sees them: the node answers services, the cluster's DNS server the rest."""

import json
import uuid
from typing import Any

import dns.message
import dns.rcode
import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, web_and_client

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
import json, socket, sys, time
found = {}
for name in sys.argv[1:]:
    end = time.monotonic() + 20
    while True:
        try:
            found[name] = sorted({entry[4][0] for entry in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)})
        except socket.gaierror as error:
            # Resolvers have little patience; a busy machine may need more.
            if error.errno == socket.EAI_AGAIN and time.monotonic() < end:
                time.sleep(0.1)
                continue
            found[name] = error.errno == socket.EAI_NONAME
        break
print(json.dumps(found))
"""

ASK = """
import socket, sys
query = bytes.fromhex(sys.argv[1])
server = next(line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver"))
if sys.argv[2] == "udp":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.sendto(query, (server, 53))
        print(sock.recv(4096).hex())
else:
    with socket.create_connection((server, 53), 30) as sock, sock.makefile("rb") as file:
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
    mesh.wait("names are what they are", lambda: resolve(mesh, ready, *expected) == expected)
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

    def answered() -> dns.message.Message | None:
        """Unless the cluster's server did not answer in time."""
        words = ("python3", "-c", ASK, query.to_wire().hex(), transport)
        reply = dns.message.from_wire(bytes.fromhex(mesh.exec(ready, "client", *words).stdout.strip()))
        return None if reply.rcode() == dns.rcode.SERVFAIL else reply

    reply = mesh.wait("an answer", answered)
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


def entry(name: str, *hosts: str, **spec: Any) -> dict[str, Any]:
    """A ServiceEntry of the pods `app: web`, unless it says otherwise."""
    selected = {"workloadSelector": {"labels": {"app": "web"}}, "resolution": "STATIC"}
    ports = [{"number": 80, "name": "http", "protocol": "TCP", "targetPort": 8080}]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name},
        "spec": {"hosts": list(hosts), "ports": ports, "location": "MESH_INTERNAL", **(spec or selected)},
    }


def allocated(mesh: Mesh, namespace: str, name: str) -> dict[str, list[str]]:
    """Addresses by host, from the entry's status."""
    path = "jsonpath={.status.addresses}"
    text = mesh.kubectl("get", "serviceentry", name, "-n", namespace, "-o", path).stdout
    found: dict[str, list[str]] = {}
    for each in json.loads(text or "[]"):
        found.setdefault(each["host"], []).append(each["value"])
    return {host: sorted(values) for host, values in found.items()}


def reached(mesh: Mesh, namespace: str, host: str) -> bool:
    program = f"import urllib.request; print(urllib.request.urlopen('http://{host}', timeout=5).status)"
    answer = mesh.exec(namespace, "client", "python3", "-c", program, check=False)
    return answer.stdout.strip() == "200"


@pytest.mark.feature("F44", "F45")
def test_hosts_outside_have_addresses_in_captured_pods(mesh: Mesh, namespace: str) -> None:
    """By the mesh's own DNS only: a pod that keeps its DNS to itself asks the cluster's, which does not know them."""
    objects = web_and_client()
    spec = objects[-1]["spec"]
    spec["dnsConfig"] = {"searches": ["corp.example"]}
    own = {"name": "own", "annotations": {"ambient.istio.io/dns-capture": "false"}}
    objects.append({**objects[-1], "metadata": own})
    tag = namespace
    exact, wild, named = f"db.{tag}.example", f"*.{tag}.test", f"named.{tag}.example"
    by_name = {"resolution": "DNS", "endpoints": [{"address": f"web.{tag}.svc.cluster.local"}]}
    by_name |= {"ports": [{"number": 80, "name": "http", "protocol": "TCP"}]}
    apply_in(mesh, namespace, [*objects, entry("chosen", exact, wild), entry("named", named, **by_name)])
    chosen = mesh.wait("hosts have addresses", lambda: allocated(mesh, namespace, "chosen"))
    of_name = mesh.wait("the other has, too", lambda: allocated(mesh, namespace, "named"))
    assert {host: len(values) for host, values in (chosen | of_name).items()} == {exact: 2, wild: 2, named: 2}
    cluster_ip = address(mesh, namespace, "service", "web", ".spec.clusterIP")
    expected = {
        exact: chosen[exact],
        f"{exact}.corp.example": chosen[exact],
        f"anything.{tag}.test": chosen[wild],
        named: of_name[named],
        "web": [cluster_ip],
        "kubernetes.default": [address(mesh, "default", "service", "kubernetes", ".spec.clusterIP")],
    }
    mesh.wait("the names are known", lambda: resolve(mesh, namespace, exact, named) == {
        exact: chosen[exact], named: of_name[named]
    })  # fmt: skip
    assert resolve(mesh, namespace, *expected) == expected
    for host in (exact, f"anything.{tag}.test"):
        mesh.wait(f"{host} is reached", lambda host=host: reached(mesh, namespace, host))
    told = mesh.dump("dns", "why", exact, "--from", f"{namespace}/client")
    assert sorted(told["addresses"]) == expected[exact]
    assert told["steps"][-1]["owner"] == f"ServiceEntry {namespace}/chosen"
    assert told["steps"][-1]["nameserver"].get("addresses", []) == []
    names = json.loads(mesh.exec(namespace, "own", "python3", "-c", RESOLVE, exact, "web").stdout)
    assert names["web"] == [cluster_ip]
    assert not isinstance(names[exact], list)


@pytest.mark.laptop_only("CoreDNS leaves an alias out whose target its own servers do not answer for")
def test_an_external_name_leads_into_the_mesh(mesh: Mesh, namespace: str) -> None:
    host = f"db.{namespace}.example"
    alias = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "alias"},
        "spec": {"type": "ExternalName", "externalName": host},
    }
    apply_in(mesh, namespace, [*web_and_client(), alias, entry("chosen", host)])
    found = mesh.wait("the host has addresses", lambda: allocated(mesh, namespace, "chosen"))[host]
    mesh.wait("the alias is followed", lambda: resolve(mesh, namespace, "alias") == {"alias": found})
    mesh.wait("and leads somewhere", lambda: reached(mesh, namespace, "alias"))


@pytest.mark.feature("N3", "N47")
def test_hosts_of_other_namespaces(mesh: Mesh, namespace: str) -> None:
    """Of one name in two namespaces each has its own; what is exported to its namespace only is nobody else's."""
    same, hidden = f"same.{namespace}.example", f"hidden.{namespace}.example"
    with make_namespace(mesh) as other:
        for where, ip in ((namespace, "240.99.0.1"), (other, "240.99.0.2")):
            own = entry("same", same, addresses=[ip], resolution="STATIC")
            apply_in(mesh, where, [web_and_client()[-1], own])
        spec = {"addresses": ["240.99.0.3"], "resolution": "STATIC", "exportTo": ["."]}
        apply_in(mesh, namespace, [entry("hidden", hidden, **spec)])
        mine = {same: ["240.99.0.1"], hidden: ["240.99.0.3"]}
        mesh.wait("its own hosts are known", lambda: resolve(mesh, namespace, same, hidden) == mine)
        theirs = {same: ["240.99.0.2"]}
        mesh.wait("so are the other's", lambda: resolve(mesh, other, same) == theirs)
        elsewhere = resolve(mesh, other, hidden)[hidden]
        assert elsewhere != mine[hidden]
        assert not isinstance(elsewhere, list), "for others the host does not exist"
