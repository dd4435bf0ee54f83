"""A pod that takes mutual TLS only: its node's probes get in, and members of the mesh, and nobody else by no way."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

APPLICATION, OUTBOUND, PLAINTEXT, TUNNELS = 8080, 15001, 15006, 15008
# Writes down who asks for what; probes ask for /probe.
SERVER = """
import http.server, socket, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        # In one piece: requests are answered at the same time.
        sys.stdout.write(f"asked {self.client_address[0].removeprefix('::ffff:')} {self.path}\\n")
        sys.stdout.flush()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"treasure")
    def log_message(self, *words):
        pass

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

Server(("::", 8080), Handler).serve_forever()
"""
# Every way in that needs no certificate: plainly, and as a caller of tunnels with and without TLS.
ATTACK = """
import json, socket, ssl, sys
from concurrent.futures import ThreadPoolExecutor

careless = ssl.create_default_context()
careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
careless.set_alpn_protocols(["h2", "http/1.1"])

def plain(address, port, target):
    return talk(socket.create_connection((address, port), 5), f"GET /attack HTTP/1.0\\r\\nHost: {target}\\r\\n\\r\\n")

def connect(address, port, target):
    return talk(socket.create_connection((address, port), 5), CONNECT.format(target=target))

def encrypted(address, port, target):
    made = careless.wrap_socket(socket.create_connection((address, port), 5), server_hostname="server")
    return talk(made, CONNECT.format(target=target))

def prior(address, port, target):
    made = careless.wrap_socket(socket.create_connection((address, port), 5), server_hostname="server")
    return talk(made, "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + "\\0\\0\\0\\4\\0\\0\\0\\0\\0")

CONNECT = "CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\nGET /attack HTTP/1.0\\r\\n\\r\\n"

def talk(connection, text):
    with connection:
        connection.settimeout(5)
        connection.sendall(text.encode())
        found = b""
        while more := connection.recv(1000):
            found += more
        return found.decode(errors="replace")

def answer(question):
    kind, address, port = question
    shown = f"[{address}]" if ":" in address else address
    try:
        return {"plain": plain, "connect": connect, "encrypted": encrypted, "prior": prior}[kind](
            address, port, f"{shown}:8080"
        )
    except OSError as problem:
        return type(problem).__name__

questions = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(questions)) as several:
    print(json.dumps(list(several.map(answer, questions))))
"""
STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "strict"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


@pytest.fixture(scope="module")
def castle(mesh: Mesh) -> Iterator[str]:
    """A namespace under STRICT with `server`, probed every second, and `member`, which may talk to it."""
    with make_namespace(mesh) as name:
        request = {
            "httpGet": {"path": "/probe", "port": APPLICATION},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
        }
        probes = {"readinessProbe": request, "livenessProbe": {**request, "initialDelaySeconds": 5}}
        server = pod("server", mesh.nodes[0], ["python3", "-uc", SERVER], namespace=name, **probes)
        strict = {**STRICT, "metadata": {"name": "strict", "namespace": name}}
        mesh.apply([strict, server, pod("member", mesh.nodes[1], ["sleep", "3600"], namespace=name)])
        wait = ("wait", "-n", name, "--timeout=110s")
        mesh.kubectl(*wait, "--for=condition=ambit.io/Acknowledged", "peerauthentication/strict")
        mesh.kubectl(*wait, "--for=condition=Ready", "pod", "--all")
        yield name


@pytest.fixture(scope="module")
def outside(mesh: Mesh) -> Iterator[str]:
    """A namespace outside the mesh with a pod on each node."""
    with make_namespace(mesh, enrolled=False) as name:
        for attacker, node in zip(("near", "far"), mesh.nodes, strict=False):
            mesh.apply(pod(attacker, node, ["sleep", "3600"], namespace=name))
        mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        yield name


def asked(mesh: Mesh, namespace: str) -> list[list[str]]:
    """(address, path) of every request that reached the server."""
    lines = mesh.kubectl("logs", "server", "-n", namespace).stdout.splitlines()
    return [line.split()[1:] for line in lines if line.startswith("asked ")]


@pytest.mark.feature("F176")
def test_nobody_without_an_identity_reaches_a_protected_pod(mesh: Mesh, castle: str, outside: str) -> None:
    addresses = mesh.pod_addresses(castle, "server")
    ways = [("plain", port) for port in (APPLICATION, OUTBOUND, PLAINTEXT, TUNNELS)]
    ways += [("connect", PLAINTEXT), ("connect", TUNNELS), ("encrypted", TUNNELS), ("prior", TUNNELS)]
    ways += [("encrypted", PLAINTEXT), ("encrypted", APPLICATION)]
    questions = [[kind, address, port] for kind, port in ways for address in addresses]
    word = json.dumps(questions)
    told: dict[str, Any] = {
        name: json.loads(mesh.exec(outside, name, "python3", "-c", ATTACK, word).stdout)
        for name in ("near", "far")
    }
    told["the other node"] = json.loads(mesh.on_node(mesh.nodes[1], "python3", "-c", ATTACK, word).stdout)
    member = [["plain", address, APPLICATION] for address in addresses]

    def let_in() -> bool:
        done = mesh.exec(castle, "member", "python3", "-c", ATTACK, json.dumps(member))
        return all("treasure" in each for each in json.loads(done.stdout))

    mesh.wait("a member is let in", let_in)
    for attacker, answers in told.items():
        got = [question for question, each in zip(questions, answers, strict=True) if "treasure" in each]
        assert got == [], attacker
    inside = set(mesh.pod_addresses(castle, "member"))

    def visitors() -> set[str]:
        return {who for who, path in asked(mesh, castle) if path != "/probe"}

    mesh.wait("the members' requests are written down", lambda: inside <= visitors())
    assert visitors() == inside


@pytest.mark.feature("F16")
def test_probes_get_in(mesh: Mesh, castle: str, outside: str) -> None:
    """Of the kinds that restart a pod and take it out of its services: it is neither."""

    def probed() -> int:
        return sum(path == "/probe" for _, path in asked(mesh, castle))

    before = probed()
    mesh.wait("it is probed", lambda: probed() >= before + 6)
    found = json.loads(mesh.kubectl("get", "pod", "server", "-n", castle, "-o", "json").stdout)["status"]
    (ready,) = (each for each in found["conditions"] if each["type"] == "Ready")
    assert (ready["status"], found["containerStatuses"][0]["restartCount"]) == ("True", 0)


@pytest.mark.feature("N19")
def test_who_asks_for_it_takes_plain_traffic_past_the_mesh_and_is_still_tunnelled_to(
    mesh: Mesh, castle: str, outside: str
) -> None:
    probe = {"tcpSocket": {"port": APPLICATION}, "periodSeconds": 1}
    open_pod = pod("open", mesh.nodes[0], ["python3", "-uc", SERVER], namespace=castle, readinessProbe=probe)
    open_pod["metadata"]["annotations"] = {"ambient.istio.io/bypass-inbound-capture": "true"}
    mesh.apply(open_pod)
    mesh.kubectl("wait", "-n", castle, "--for=condition=Ready", "pod/open", "--timeout=110s")
    address, *_ = mesh.pod_addresses(castle, "open")
    question = json.dumps([["plain", address, APPLICATION]])

    def served(namespace: str, client: str) -> bool:
        return "treasure" in mesh.exec(namespace, client, "python3", "-c", ATTACK, question).stdout

    def tunnelled() -> bool:
        words = ("flows", "--from", f"{castle}/member", "--to", f"{castle}/open", "-o", "json")
        flows = map(json.loads, mesh.ambit(*words).stdout.splitlines())
        return served(castle, "member") and any(
            flow["reporter"] == "destination" and flow.get("mutualTls") for flow in flows
        )

    mesh.wait("STRICT is about what the mesh sees", lambda: served(outside, "far"))
    mesh.wait("a member comes through a tunnel", tunnelled)
    mesh.kubectl("delete", "pod", "open", "-n", castle)
