"""What captured pods reach and who reaches them, in the mesh and outside, TCP and UDP; nobody's address changes."""

import ipaddress
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from ambit.core.address import host_port
from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace, pod
from tests.mesh.test_external import ASK as ONCE

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

# Says at once whom it sees, as servers do that speak first, and tells every datagram where it came from.
ECHO = """
import socket, threading

def named(peer):
    return peer[0].removeprefix("::ffff:").encode()

def datagrams():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("::", 9001))
        while True:
            peer = server.recvfrom(100)[1]
            server.sendto(named(peer), peer)

threading.Thread(target=datagrams, daemon=True).start()
server = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
print("listening", flush=True)
while True:
    connection, peer = server.accept()
    with connection:
        connection.sendall(named(peer))
"""
ASK = """
import json, socket, sys

def ask(kind, host, port, family):
    family = socket.AF_INET6 if family == 6 else socket.AF_INET
    address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    for _ in range(5):
        with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asking:
            asking.settimeout(10 if kind == "tcp" else 2)
            asking.connect(address)
            if kind == "udp":
                asking.send(b"?")
            try:
                return asking.recv(100).decode()
            except TimeoutError:
                continue
    return "timeout"

def answer(question):
    try:
        return ask(*question)
    except OSError as problem:
        return repr(problem)

print(json.dumps([answer(each) for each in json.load(sys.stdin)]))
"""
PROBE = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}


class Places(NamedTuple):
    """Namespaces with a client on the first node; addresses of the servers by name, `plain` the one outside."""

    inside: str
    outside: str
    servers: dict[str, tuple[str, ...]]


@pytest.fixture(scope="module")
def places(mesh: Mesh) -> Iterator[Places]:
    near, far = mesh.nodes[:2]
    with make_namespace(mesh) as inside, make_namespace(mesh, enrolled=False) as outside:
        servers = {"near": (inside, near), "far": (inside, far), "plain": (outside, far)}
        for name, (namespace, node) in servers.items():
            echo = pod(
                name,
                node,
                ["python3", "-uc", ECHO],
                labels={"app": "echo"},
                namespace=namespace,
                readinessProbe=PROBE,
            )
            mesh.apply(echo)
        for namespace in (inside, outside):
            mesh.apply(pod("client", near, ["sleep", "3600"], namespace=namespace))
        mesh.apply([service(inside, "echo"), service(inside, "each", clusterIP="None")])
        for namespace in (inside, outside):
            mesh.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        addresses = {name: mesh.pod_addresses(place, name) for name, (place, _) in servers.items()}
        yield Places(inside, outside, addresses)


def service(namespace: str, name: str, **more: Any) -> dict[str, Any]:
    ports = [{"name": "tcp", "port": 9000, "targetPort": 9000}]
    spec = {"selector": {"app": "echo"}, "ports": ports, "ipFamilyPolicy": "PreferDualStack", **more}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def family(address: str) -> int:
    return 6 if ":" in address else 4


def answers(mesh: Mesh, namespace: str, questions: list[list[Any]]) -> list[str]:
    words = ("exec", "-i", "-n", namespace, "client", "--", "python3", "-c", ASK)
    return list(json.loads(mesh.kubectl(*words, stdin=json.dumps(questions)).stdout))


def told_their_own(mesh: Mesh, namespace: str, questions: list[list[Any]]) -> None:
    """Until every question is answered with the client's own address of that family."""
    own = {family(address): address for address in mesh.pod_addresses(namespace, "client")}
    wanted = [own[question[3]] for question in questions]
    mesh.wait("servers see whom they talk to", lambda: answers(mesh, namespace, questions) == wanted)


@pytest.mark.feature("F4", "F86")
def test_services_names_and_pods_are_reached_by_each_family(mesh: Mesh, places: Places) -> None:
    path = "jsonpath={.spec.clusterIPs[*]}"
    virtual = mesh.kubectl("get", "service", "echo", "-n", places.inside, "-o", path).stdout.split()
    assert len(virtual) == len(places.servers["near"])
    hosts = [(address, family(address)) for name in ("near", "far") for address in places.servers[name]]
    hosts += [(address, family(address)) for address in virtual]
    names = ("echo", "each", f"echo.{places.inside}.svc.cluster.local")
    hosts += [(name, family(address)) for name in names for address in virtual]
    told_their_own(mesh, places.inside, [["tcp", host, 9000, version] for host, version in hosts])


@pytest.mark.feature("F15", "F86")
def test_what_is_not_of_the_mesh_is_reached_as_without_it(mesh: Mesh, places: Places) -> None:
    """A server outside that speaks first, and UDP to everybody."""
    questions = [["tcp", address, 9000, family(address)] for address in places.servers["plain"]]
    for name in ("plain", "near", "far"):
        questions += [["udp", address, 9001, family(address)] for address in places.servers[name]]
    told_their_own(mesh, places.inside, questions)


@pytest.mark.feature("F15", "F86")
def test_clients_outside_the_mesh_are_seen_as_they_are(mesh: Mesh, places: Places) -> None:
    questions = [
        [kind, address, port, family(address)]
        for kind, port in (("tcp", 9000), ("udp", 9001))
        for name in ("near", "far")
        for address in places.servers[name]
    ]
    told_their_own(mesh, places.outside, questions)


def test_where_nobody_listens_connections_end_at_once(mesh: Mesh, places: Places) -> None:
    """Long before any proxy's patience is over."""
    asked = [f"{address}:9009" for addresses in places.servers.values() for address in addresses]
    for namespace in (places.inside, places.outside):

        def at_once(namespace: str = namespace) -> bool:
            """Which a busy machine may manage only when asked again; who waits for a time-out never does."""
            output = mesh.exec(namespace, "client", "python3", "-c", ONCE, "1", *asked).stdout
            ends = set(dict(json.loads(output)).values())
            assert ends <= {"", "ConnectionRefusedError", "ConnectionResetError", "TimeoutError"}, output
            return "TimeoutError" not in ends

        mesh.wait("connections end at once", at_once)


@pytest.mark.laptop_only("the ranges are those of the laptop")
def test_an_unknown_address_of_the_cluster_is_held_and_refused(mesh: Mesh, places: Places) -> None:
    """A Service or pod that is made now may have it. Whatever answers there, no byte goes past the mesh."""
    unknown = ["10.96.255.254", "10.244.2.251", "fd00:10:96::fffe"]
    questions = [["tcp", address, 9000, family(address)] for address in unknown]
    told = answers(mesh, places.inside, questions)
    assert all("ConnectionReset" in each or each == "" for each in told), told

    reason = "no pod or Service is known at {}, which is in a range of the cluster"
    wanted = {host_port(ipaddress.ip_address(each), 9000): reason.format(each) for each in unknown}

    def are_recorded() -> bool:
        words = ("flows", "--last", "1000", "--from", f"{places.inside}/client", "-o", "json")
        found = [json.loads(line) for line in mesh.ambit(*words).stdout.splitlines()]
        return wanted.items() <= {each["destination"]["address"]: each.get("error") for each in found}.items()

    mesh.wait("records say why", are_recorded)


@pytest.mark.feature("F15")
def test_an_address_of_no_pod_is_reached(mesh: Mesh, places: Places) -> None:
    node = mesh.nodes[1]
    program = ECHO.replace('"listening"', "server.getsockname()[1]").replace('("::", 9000)', '("::", 0)')
    server = mesh.start_on_node(node, "python3", "-uc", program.replace("9001", "0"))
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        questions = [["tcp", address, port, family(address)] for address in mesh.node_addresses(node)]
        told = answers(mesh, places.inside, questions)
        assert [family(each) for each in told] == [question[3] for question in questions], told
    finally:
        server.kill()
        server.communicate()
