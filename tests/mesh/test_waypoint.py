"""A waypoint in front of a service: what passes through it, what its routes do, and that nobody goes past it."""

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

_SERVER = """
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        said = f"{sys.argv[1]} {self.path} {self.headers.get('x-forwarded-client-cert')}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        if self.path == "/once":
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", 8080), Handler).serve_forever()
"""

# Asks so often, with these headers; says how often each server answered.
_MANY = """
import collections, http.client, json, sys
found, headers = collections.Counter(), json.loads(sys.argv[2])
client = http.client.HTTPConnection("web", timeout=30)
for _ in range(int(sys.argv[1])):
    client.request("GET", "/", headers=headers)
    answer = client.getresponse()
    found[answer.read().decode().partition(" ")[0] if answer.status == 200 else str(answer.status)] += 1
print(json.dumps(found))
"""
# Asks all the time, on a connection that is kept and on new ones; tells what failed, or how often it went well.
_REQUESTS = """
import http.client, select, sys
kept, well = http.client.HTTPConnection("web", timeout=30), 0
while not select.select([sys.stdin], [], [], 0.02)[0]:
    once = http.client.HTTPConnection("web", timeout=30)
    for each in (kept, once):
        try:
            each.request("GET", "/")
            answer = each.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        except (OSError, AssertionError, http.client.HTTPException) as problem:
            print("failed", "kept" if each is kept else "new", repr(problem), "after", well, flush=True)
            raise SystemExit
    once.close()
    well += 1
    if well == 1:
        print("open", flush=True)
print("well", well, flush=True)
"""


def _service(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": "web", **labels},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def _pod(name: str, *command: str, **more: Any) -> dict[str, Any]:
    labels = {"app": "web", "version": name} if command[0] == "python3" else {"app": name}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "python:3", "command": list(command), **more}],
        },
    }


_LISTENS = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}
APPLICATION = [
    _service("web"),
    _service("web-v1", version="v1"),
    _service("web-v2", version="v2"),
    *(_pod(name, "python3", "-uc", _SERVER, name, **_LISTENS) for name in ("v1", "v2")),
    _pod("client", "sleep", "3600"),
]
WAYPOINT = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "way", "labels": {"istio.io/waypoint-for": "all"}},
    "spec": {
        "gatewayClassName": "ambit-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
    },
}


def _route(*rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
            "rules": list(rules),
        },
    }


def _to(*shares: tuple[str, int], **more: Any) -> dict[str, Any]:
    return {"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in shares], **more}


class Shop:
    """A namespace with the application, bound to its waypoint."""

    def __init__(self, mesh: Mesh, namespace: str) -> None:
        self.mesh = mesh
        self.namespace = namespace

    def route(self, *rules: dict[str, Any]) -> None:
        self.mesh.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=yaml.safe_dump(_route(*rules)))

    def ask(self, path: str = "/", *headers: str, service: str = "web") -> str:
        """The answer, `status` before it; what curl says when there is none."""
        words = [word for header in headers for word in ("-H", header)]
        command = ["curl", "-sS", "-m", "10", "-w", "\n%{http_code}", *words, f"http://{service}{path}"]
        done = self.mesh.exec(self.namespace, "client", *command, check=False)
        if done.returncode:
            return done.stderr.strip()
        body, _, status = done.stdout.rpartition("\n")
        return f"{status} {body}"

    def server(self, path: str = "/", *headers: str) -> str:
        """Who answered; the status when it was nobody."""
        status, _, said = self.ask(path, *headers).partition(" ")
        return said.partition(" ")[0] or status

    def servers(self, count: int, **headers: str) -> Counter[str]:
        """Who answered how many of so many requests; `_` in names of headers stands for `-`."""
        named = json.dumps({key.replace("_", "-"): value for key, value in headers.items()})
        words = ("python3", "-uc", _MANY, str(count), named)
        return Counter(json.loads(self.mesh.exec(self.namespace, "client", *words).stdout))

    def follows(self, what: str, wanted: str, *headers: str) -> None:
        """Waits until requests go there."""
        self.mesh.wait(what, lambda: self.server("/", *headers) == wanted)


@pytest.fixture(scope="module")
def shop(mesh: Mesh) -> Iterator[Shop]:
    with make_namespace(mesh) as namespace:
        mesh.kubectl("label", "namespace", namespace, "istio.io/use-waypoint=way")
        apply_in(mesh, namespace, [WAYPOINT, *APPLICATION])
        mesh.kubectl("wait", "-n", namespace, "--for=condition=Programmed", "gateway/way", "--timeout=60s")
        yield Shop(mesh, namespace)


@pytest.mark.feature("F31")
def test_requests_go_through_the_waypoint(shop: Shop) -> None:
    """Without a route to the service's own pods, which see the waypoint and are told who called."""
    shop.mesh.wait("an answer", lambda: shop.server() in {"v1", "v2"})
    said = shop.ask("/once")  # Records come when connections end.
    assert "/once" in said
    own = f"spiffe://cluster.local/ns/{shop.namespace}/sa"
    assert f"By={own}/way;URI={own}/default" in said

    def records() -> list[tuple[str, str, str]]:
        """Of the pods' node: who called, who answered, and how."""
        words = ("flows", "--last", "500", "--to", shop.namespace, "-o", "json")
        flows = map(json.loads, shop.mesh.ambit(*words).stdout.splitlines())
        return [
            (each["source"].get("identity", ""), each["destination"].get("workload", ""), each["hop"])
            for each in flows
            if each["reporter"] == "destination"
        ]

    wanted = [(f"{own}/way", server, "tunnel") for server in ("v1", "v2")]
    shop.mesh.wait("the record", lambda: set(wanted) & set(records()))


@pytest.mark.feature("F32")
def test_a_header_leads_to_another_version(shop: Shop) -> None:
    second = _to(("web-v2", 1), matches=[{"headers": [{"name": "x-version", "value": "2"}]}])
    shop.route(second, _to(("web-v1", 1)))
    shop.follows("the route", "v2", "x-version: 2")
    shop.follows("the rest", "v1")
    assert shop.servers(50) == {"v1": 50}
    assert shop.servers(50, x_version="2") == {"v2": 50}
    assert shop.servers(50, x_version="3") == {"v1": 50}


@pytest.mark.feature("F36")
def test_requests_are_shared_out_by_weight(shop: Shop) -> None:
    shop.route(_to(("web-v2", 1)))
    shop.follows("the first route", "v2")
    shop.route(_to(("web-v1", 90), ("web-v2", 10)))
    shop.follows("the second route", "v1")
    found = shop.servers(200) + shop.servers(200)
    # Five standard deviations.
    assert set(found) == {"v1", "v2"}
    assert 10 <= found["v2"] <= 70


def test_what_no_rule_matches_is_not_found(shop: Shop) -> None:
    shop.route(_to(("web-v1", 1), matches=[{"path": {"type": "Exact", "value": "/only"}}]))
    shop.mesh.wait("the route", lambda: shop.server("/other") == "404")
    assert shop.server("/only") == "v1"


@pytest.mark.feature("F29")
def test_a_pod_that_is_called_by_its_own_address_is_behind_the_waypoint_too(shop: Shop) -> None:
    for address in shop.mesh.pod_addresses(shop.namespace, "v1"):
        host = f"[{address}]" if ":" in address else address
        shop.mesh.wait(
            "an answer", lambda host=host: shop.ask("/own", service=f"{host}:8080").startswith("200 v1")
        )
        assert f"sa/way;URI=spiffe://cluster.local/ns/{shop.namespace}" in shop.ask(service=f"{host}:8080")


def test_a_waypoint_is_replaced_under_requests(shop: Shop) -> None:
    """None fails: neither on a connection that is kept nor on a new one."""
    shop.route(_to(("web-v1", 1)))
    shop.follows("the route", "v1")
    words = ("exec", "-i", "-n", shop.namespace, "client", "--", "python3", "-uc", _REQUESTS)
    asking = shop.mesh.popen(*words, stdin=subprocess.PIPE)
    assert asking.stdout is not None
    assert asking.stdout.readline() == "open\n"
    selector = ("-n", shop.namespace, "-l", "gateway.networking.k8s.io/gateway-name=way")
    path = "jsonpath={.items[*].metadata.name}"
    before = shop.mesh.kubectl("get", "pods", *selector, "-o", path).stdout
    shop.mesh.kubectl("rollout", "restart", "-n", shop.namespace, "deployment/way")
    shop.mesh.wait(
        "the former pod is gone",
        lambda: before not in shop.mesh.kubectl("get", "pods", *selector, "-o", path).stdout,
    )
    said, _ = asking.communicate("end")
    assert said.startswith("well"), said


def test_without_a_waypoint_nobody_is_let_past(shop: Shop) -> None:
    """And the record says why."""
    mesh, namespace = shop.mesh, shop.namespace
    shop.route(_to(("web-v1", 1)))
    shop.follows("the route", "v1")
    mesh.kubectl("scale", "-n", namespace, "deployment/way", "--replicas=0")
    try:
        mesh.wait("the refusal", lambda: shop.ask().startswith("curl:"))
        assert shop.ask(service="web-v2").startswith("curl:")

        def reasons() -> set[str]:
            words = ("flows", "--last", "200", "--from", f"{namespace}/client", "-o", "json")
            flows = map(json.loads, mesh.ambit(*words).stdout.splitlines())
            return {str(flow.get("error", "")) for flow in flows}

        name = f"{namespace}/way.{namespace}.svc.cluster.local"
        mesh.wait("the record", lambda: any(name in each and "not ready" in each for each in reasons()))
    finally:
        mesh.kubectl("scale", "-n", namespace, "deployment/way", "--replicas=1")
    shop.follows("the waypoint again", "v1")
