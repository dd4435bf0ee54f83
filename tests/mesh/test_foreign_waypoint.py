"""A waypoint that is somebody else's program: it is told who calls and for what, and calls on as itself."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod
from tests.mesh.shop import Shop

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

OF_CUSTOM = {"gateway.networking.k8s.io/gateway-name": "custom"}
BINDING = "ambient.istio.io/waypoint-inbound-binding"
ENFORCES = "ambit.io/enforces-policies"
# Reads the PROXY protocol (version 2, IPv4), adds to the first request what it says, and goes on to where it is for.
_CUSTOM = """
import socket, struct, threading
def exactly(source, size):
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part: raise EOFError
        data += part
    return data
def pump(source, sink):
    while part := source.recv(65536): sink.sendall(part)
    sink.shutdown(socket.SHUT_WR)
def serve(client):
    with client:
        assert exactly(client, 12) == bytes.fromhex("0d0a0d0a000d0a515549540a")
        command, family, length = struct.unpack("!BBH", exactly(client, 4))
        assert (command, family) == (0x21, 0x11), (command, family)
        body = exactly(client, length)
        source, target = socket.inet_ntoa(body[:4]), socket.inet_ntoa(body[4:8])
        port, kind, size = struct.unpack("!H", body[10:12])[0], *struct.unpack_from("!BH", body, 12)
        assert kind == 0xD0, kind
        said = f"x-seen: {source} {body[15:15 + size].decode()} {target}:{port}"
        head = b""
        while b"\\r\\n" not in head: head += client.recv(65536)
        line, rest = head.split(b"\\r\\n", 1)
        with socket.create_connection((target, port), 10) as server:
            server.sendall(line + b"\\r\\n" + said.encode() + b"\\r\\n" + rest)
            threading.Thread(target=pump, args=(client, server), daemon=True).start()
            pump(server, client)
listener = socket.create_server(("127.0.0.1", 15088))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
_WEB = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = f"{sys.argv[1]} saw {self.headers.get('x-seen')}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
"""


def gateway(**annotations: str) -> dict[str, Any]:
    named = {"binding": BINDING, "enforces": ENFORCES}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {
            "name": "custom",
            "annotations": {
                named[key]: value for key, value in {"binding": "PROXY/15088", **annotations}.items()
            },
        },
        "spec": {
            "gatewayClassName": "somebody-elses",
            "listeners": [{"name": "mesh", "port": 15088, "protocol": "TCP"}],
        },
    }


def service(name: str, selector: dict[str, str], labels: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    }


def custom(node: str) -> dict[str, Any]:
    made = pod("custom", node, ["python3", "-uc", _CUSTOM], labels=OF_CUSTOM)
    made["spec"]["serviceAccountName"] = "custom"
    return made


def policy(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": metadata,
        "spec": spec,
    }


@pytest.fixture(scope="module")
def shop(mesh: Mesh) -> Iterator[Shop]:
    """Servers on both nodes; the waypoint is on one, the client on the other."""
    here, there = mesh.nodes[:2]
    ready = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
    with make_namespace(mesh) as namespace:
        servers = [
            pod(name, node, ["python3", "-uc", _WEB, name], labels={"app": "web"}, **ready)
            for name, node in (("near", there), ("far", here))
        ]
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "custom"}}
        objects = [
            account,
            gateway(),
            service("custom", OF_CUSTOM, OF_CUSTOM),
            service("web", {"app": "web"}, {"istio.io/use-waypoint": "custom"}),
            *servers,
            custom(there),
            pod("client", here, ["sleep", "3600"]),
        ]
        apply_in(mesh, namespace, objects)
        yield Shop(mesh, namespace, is_dedicated=True)


def seen(shop: Shop) -> str:
    """What the waypoint was told, as a server has it."""
    address = shop.mesh.kubectl(
        "get", "service", "web", "-n", shop.namespace, "-o", "jsonpath={.spec.clusterIP}"
    ).stdout
    (client,) = (each for each in shop.mesh.pod_addresses(shop.namespace, "client") if ":" not in each)
    return f"{client} spiffe://cluster.local/ns/{shop.namespace}/sa/default {address}:80"


def server_of(shop: Shop, answer: str) -> str:
    status, _, said = answer.partition(" ")
    return said.partition(" ")[0] if status == "200" and said.endswith(f" saw {seen(shop)}") else answer


@pytest.mark.feature("F110")
def test_it_is_told_who_calls_and_for_what_and_calls_on_as_itself(shop: Shop) -> None:
    mesh, own = shop.mesh, f"spiffe://cluster.local/ns/{shop.namespace}/sa"
    # Before its node knows the service, a pod's connections to it are none of the mesh's (docs/limits.md).
    mesh.wait("the waypoint answers", lambda: server_of(shop, shop.ask()) in {"near", "far"})
    known = time.time()
    found: set[str] = set()

    def both() -> bool:
        """Each answer is one of theirs."""
        found.add(server_of(shop, shop.ask()))
        assert found <= {"near", "far"}, found
        return len(found) == 2

    mesh.wait("both have answered", both)

    def callers() -> set[tuple[str, str]]:
        words = ("flows", "--last", "500", "--to", shop.namespace, "-o", "json")
        flows = map(json.loads, mesh.ambit(*words).stdout.splitlines())
        return {
            (each["source"].get("identity", ""), each["destination"].get("workload", ""))
            for each in flows
            if each["time"] >= known
        }

    wanted = {(f"{own}/default", "custom"), (f"{own}/custom", "near"), (f"{own}/custom", "far")}
    mesh.wait("records of both halves", lambda: wanted <= callers())
    assert callers().isdisjoint((f"{own}/default", server) for server in ("near", "far")), (
        "nobody goes past it"
    )


@pytest.mark.feature("F110")
def test_what_it_protects_takes_connections_from_it_only_and_is_closed_until_it_says_so(shop: Shop) -> None:
    """Whether a program of somebody else's enforces a policy for requests nobody here can know."""
    (far,) = (each for each in shop.mesh.pod_addresses(shop.namespace, "far") if ":" not in each)
    past = f"{far}:8080"
    shop.mesh.wait("open", lambda: server_of(shop, shop.ask()) in {"near", "far"})
    assert shop.ask(service=past).startswith("200 ")
    target = {"kind": "Service", "group": "", "name": "web"}
    shop.apply(
        policy(
            "readers", targetRefs=[target], action="DENY", rules=[{"to": [{"operation": {"ports": ["81"]}}]}]
        )
    )
    shop.mesh.wait("closed", lambda: not shop.ask().startswith("200 "))
    path = "jsonpath={.status.conditions[?(@.type=='WaypointAccepted')].reason}"
    get = ("get", "authorizationpolicy", "readers", "-n", shop.namespace, "-o", path)
    shop.mesh.wait("its status", lambda: shop.mesh.kubectl(*get).stdout == "NotEnforced")
    shop.apply(gateway(enforces="true"))
    shop.mesh.wait("open again", lambda: server_of(shop, shop.ask()) in {"near", "far"})
    shop.mesh.wait("nobody goes past it", lambda: not shop.ask(service=past).startswith("200 "))
    shop.mesh.kubectl("delete", "authorizationpolicy", "readers", "-n", shop.namespace)
    shop.mesh.wait("no policy, no guard", lambda: shop.ask(service=past).startswith("200 "))


@pytest.mark.feature("F110")
def test_a_policy_for_its_class_says_whose_that_is(shop: Shop) -> None:
    name = f"{shop.namespace}-class"
    kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": name}}
    theirs = {**kind, "spec": {"controllerName": "example.org/theirs"}}
    target = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": name}
    given = policy(name, targetRefs=[target])
    given["metadata"]["namespace"] = "istio-system"

    def said() -> tuple[str, str]:
        got = shop.mesh.kubectl("get", "authorizationpolicy", name, "-n", "istio-system", "-o", "json").stdout
        conditions = json.loads(got).get("status", {}).get("conditions", ())
        found = [each for each in conditions if each["type"] == "WaypointAccepted"]
        return (found[0]["reason"], found[0]["message"]) if found else ("", "")

    shop.mesh.kubectl("apply", "-f", "-", stdin=json.dumps(given))
    try:
        shop.mesh.wait("nobody has it", lambda: said()[0] == "TargetNotFound")
        shop.mesh.kubectl("apply", "-f", "-", stdin=json.dumps(theirs))
        shop.mesh.wait("somebody has it", lambda: said()[0] == "NotEnforced")
        assert "is of example.org/theirs" in said()[1]
    finally:
        shop.mesh.kubectl("delete", "authorizationpolicy", name, "-n", "istio-system")
        shop.mesh.kubectl("delete", "gatewayclass", name, "--ignore-not-found")


@pytest.mark.feature("F110")
def test_without_it_nobody_gets_through(shop: Shop) -> None:
    shop.mesh.wait("open", lambda: server_of(shop, shop.ask()) in {"near", "far"})
    shop.mesh.kubectl("delete", "pod", "custom", "-n", shop.namespace, "--grace-period=0", "--force")
    shop.mesh.wait("refused", lambda: not shop.ask().startswith("200 "))
    apply_in(shop.mesh, shop.namespace, [custom(shop.mesh.nodes[1])])
    shop.mesh.wait("open again", lambda: server_of(shop, shop.ask()) in {"near", "far"})


def test_a_binding_that_cannot_be_read_is_said_and_closes(shop: Shop) -> None:
    shop.apply(gateway(binding="PROXY/many"))
    path = "jsonpath={.status.conditions[?(@.type=='istio.io/WaypointBound')].message}"
    get = ("get", "service", "web", "-n", shop.namespace, "-o", path)
    shop.mesh.wait("it is said", lambda: "'PROXY/many' is neither" in shop.mesh.kubectl(*get).stdout)
    shop.mesh.wait("refused", lambda: not shop.ask().startswith("200 "))
    target = {"kind": "Service", "group": "", "name": "web"}
    shop.apply(policy("readers", targetRefs=[target], action="DENY", rules=[{}]))
    path = "jsonpath={.status.conditions[?(@.type=='WaypointAccepted')].reason}"
    get = ("get", "authorizationpolicy", "readers", "-n", shop.namespace, "-o", path)
    shop.mesh.wait("a policy says so", lambda: shop.mesh.kubectl(*get).stdout == "AncestorNotBound")
    shop.mesh.kubectl("delete", "authorizationpolicy", "readers", "-n", shop.namespace)
    shop.apply(gateway())
    shop.mesh.wait("open again", lambda: server_of(shop, shop.ask()) in {"near", "far"})
