"""Two versions of a service behind a waypoint, and a client."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace, pod

# Says which it is. On the paths /waits-at-NAME and /fails-at-NAME the server NAME answers once somebody asks it for
# /go-on, or with 503; /heard is answered with what it has been asked for. Like CGI and WSGI it reads `_` in names of
# headers as `-`.
_SERVER = """
import http.server, socket, sys, threading
name, heard, turn = sys.argv[1], [], threading.Condition()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        if self.path == "/heard":
            about = heard
        else:
            folded = ((key.lower().replace("_", "-"), value) for key, value in self.headers.items())
            callers = [value for key, value in folded if key == "x-forwarded-client-cert"]
            about = [self.path, ",".join(callers) or "None"]
            heard.extend(about[:1] if self.path != "/" else ())
        with turn:
            if self.path == f"/waits-at-{name}":
                turn.wait()
            elif self.path == "/go-on":
                turn.notify_all()
        said = " ".join([name, *about]).encode()
        self.send_response(503 if self.path == f"/fails-at-{name}" else 200)
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

# Asks so often, with these headers, for this path, by one connection or by `each` its own; says how often each server
# answered.
_MANY = """
import collections, http.client, json, sys
found, headers = collections.Counter(), json.loads(sys.argv[2])
client = http.client.HTTPConnection("web", timeout=30)
for _ in range(int(sys.argv[1])):
    client.request("GET", sys.argv[3], headers=headers)
    answer = client.getresponse()
    said = answer.read().decode()
    found[said.partition(" ")[0] if answer.status == 200 else str(answer.status)] += 1
    if sys.argv[4] == "each":
        client.close()
print(json.dumps(found))
"""


def service(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": "web", **labels},
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "tcp", "port": 81, "targetPort": 8080},
            ],
        },
    }


_LISTENS = {"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}}


def _application(*nodes: str) -> list[dict[str, Any]]:
    """The client and `v2` are on one node, `v1` is on the other."""
    here, there = nodes

    def server(name: str, node: str) -> dict[str, Any]:
        labels = {"app": "web", "version": name}
        return pod(name, node, ["python3", "-uc", _SERVER, name], labels=labels, **_LISTENS)

    return [
        service("web"),
        service("web-v1", version="v1"),
        service("web-v2", version="v2"),
        server("v1", there),
        server("v2", here),
        pod("client", here, ["sleep", "3600"]),
    ]


def waypoint(of_class: str, takes: str) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "way", "labels": {"istio.io/waypoint-for": takes}},
        "spec": {
            "gatewayClassName": of_class,
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


def to(*shares: tuple[str, int], **more: Any) -> dict[str, Any]:
    """A rule that shares requests out."""
    return {"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in shares], **more}


def no_admin(service: str) -> dict[str, Any]:
    """A policy that keeps everybody from one path."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "no-admin"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": service}],
            "action": "DENY",
            "rules": [{"to": [{"operation": {"paths": ["/admin"]}}]}],
        },
    }


_ENOUGH = 24
"""So many requests that two servers share come to the same one of them once in eight million times."""


class Shop:
    """A namespace with the application, bound to its waypoint."""

    def __init__(self, mesh: Mesh, namespace: str, *, is_dedicated: bool) -> None:
        self.mesh = mesh
        self.namespace = namespace
        self.is_dedicated = is_dedicated
        """Whether the waypoint has pods."""

    def apply(self, *given: dict[str, Any]) -> None:
        self.mesh.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=yaml.safe_dump_all(given))

    def route(self, *rules: dict[str, Any]) -> None:
        self.apply(_route(*rules))

    def ask(self, path: str = "/", *headers: str, service: str = "web") -> str:
        """The answer, `status` before it; what curl says when there is none."""
        words = [word for header in headers for word in ("-H", header)]
        command = ["curl", "-sS", "-m", "30", "-w", "\n%{http_code}", *words, f"http://{service}{path}"]
        done = self.mesh.exec(self.namespace, "client", *command, check=False)
        if done.returncode:
            return done.stderr.strip()
        body, _, status = done.stdout.rpartition("\n")
        return f"{status} {body}"

    def server(self, path: str = "/", *headers: str) -> str:
        """Who answered; the status when it was nobody."""
        status, _, said = self.ask(path, *headers).partition(" ")
        return said.partition(" ")[0] or status

    def heard(self, server: str, path: str) -> int:
        """How often this server was asked for a path."""
        return self.ask("/heard", service=f"web-{server}").split().count(path)

    def servers(self, count: int, path: str = "/", **headers: str) -> Counter[str]:
        """Who answered how many of so many requests; `_` in names of headers stands for `-`."""
        named = json.dumps({key.replace("_", "-"): value for key, value in headers.items()})
        words = ("python3", "-uc", _MANY, str(count), named, path, "one")
        return Counter(json.loads(self.mesh.exec(self.namespace, "client", *words).stdout))

    def comes_to(self, what: str, wanted: str, *headers: str) -> None:
        """Waits until a request goes there."""
        self.mesh.wait(what, lambda: self.server("/", *headers) == wanted)

    def follows(self, what: str, wanted: str) -> None:
        """Waits until all requests go there. One alone may come there without a route, too."""
        words = ("python3", "-uc", _MANY, str(_ENOUGH), "{}", "/", "each")

        def do() -> bool:
            done = self.mesh.exec(self.namespace, "client", *words, check=False)
            return done.returncode == 0 and json.loads(done.stdout) == {wanted: _ENOUGH}

        self.mesh.wait(what, do)


@contextlib.contextmanager
def make_shop(mesh: Mesh, of_class: str, takes: str) -> Iterator[Shop]:
    """Whose namespace is bound to a waypoint of this class."""
    with make_namespace(mesh) as namespace:
        mesh.kubectl("label", "namespace", namespace, "istio.io/use-waypoint=way")
        apply_in(mesh, namespace, [waypoint(of_class, takes), *_application(*mesh.nodes)])
        mesh.kubectl("wait", "-n", namespace, "--for=condition=Programmed", "gateway/way", "--timeout=110s")
        yield Shop(mesh, namespace, is_dedicated=of_class != "ambit-inline")
