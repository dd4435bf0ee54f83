"""One trace from a gateway over a waypoint to the server, in the hands of a collector that is in the mesh."""

import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.testing.laptop import LaptopMesh
from ambit.testing.plugin import start_mesh
from tests.mesh.pods import apply_in, pod
from tests.mesh.shop import waypoint
from tests.mesh.test_gateway import ASK, gateway, route
from tests.plan.collector import Span, spans_in

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("on Kubernetes the settings are a value of the chart: tests/charts"),
]
SETTINGS = """
extensionProviders:
- name: spans
  opentelemetry: {service: collector.shop.svc.cluster.local, port: 4318, http: {path: /v1/traces}}
defaultProviders: {tracing: [spans]}
defaultConfig: {tracing: {sampling: 100}}
"""
# Prints each message in base64.
COLLECTOR = """
import base64, http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        message = b""
        while size := int(self.rfile.readline(), 16):
            message += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        print(base64.b64encode(message).decode(), flush=True)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", 4318), Handler).serve_forever()
"""
# Answers with the trace that it is told.
SERVER = """
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        said = str(self.headers.get("traceparent")).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", 8080), Handler).serve_forever()
"""
ONLY_MESH = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "strict"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


@pytest.fixture
def own(kubectl_program: str | None) -> Iterator[LaptopMesh]:
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        file = Path(root) / "mesh.yaml"
        file.write_text(SETTINGS)
        mesh = start_mesh(Path(root), kubectl_program, "--nodes", "1", "--mesh-config", str(file))
        try:
            yield mesh
        finally:
            mesh.ambit("down")


def served(
    mesh: LaptopMesh, name: str, script: str, port: int, target: int, **labels: str
) -> list[dict[str, Any]]:
    ready = {"readinessProbe": {"tcpSocket": {"port": target}, "periodSeconds": 1}}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "selector": {"app": name},
                "ports": [{"name": "http", "port": port, "targetPort": target}],
            },
        },
        pod(name, mesh.nodes[0], ["python3", "-uc", script], labels={"app": name}, **ready),
    ]


def told(mesh: LaptopMesh) -> list[Span]:
    lines = mesh.kubectl("logs", "-n", "shop", "collector").stdout.split()
    return [span for line in lines for span in spans_in(base64.b64decode(line))]


@pytest.mark.feature("F167")
@pytest.mark.feature("N13")
def test_a_trace_spans_gateway_and_waypoint(own: LaptopMesh) -> None:
    """The collector takes nothing but mutual TLS."""
    own.create_namespace("shop", {"istio.io/dataplane-mode": "ambient"})
    own.wait_for_account("shop")
    bound = {"istio.io/use-waypoint": "way", "istio.io/ingress-use-waypoint": "true"}
    objects = [
        ONLY_MESH,
        waypoint("ambit-waypoint", "service"),
        *served(own, "web", SERVER, 80, 8080, **bound),
        *served(own, "collector", COLLECTOR, 4318, 4318),
        gateway(),
        route({"backendRefs": [{"name": "web", "port": 80}]}),
        pod("client", own.nodes[0], ["sleep", "3600"]),
    ]
    apply_in(own, "shop", objects)
    for name in ("front", "way"):
        own.kubectl(
            *("wait", "-n", "shop", f"gateway/{name}", "--for=condition=Programmed", "--timeout=60s"),
            timeout=90,
        )
    path = "jsonpath={.status.addresses[0].value}"
    address = own.kubectl("get", "gateway", "front", "-n", "shop", "-o", path).stdout

    def asked(path: str) -> str:
        words = ("python3", "-c", ASK, address, "80", path, "shop.example.com")
        return own.exec("shop", "client", *words, check=False).stdout.strip()

    own.wait("the gateway answers", lambda: asked("/").startswith("200 "))

    def both() -> tuple[str, Span, Span] | None:
        answer = asked("/traced")
        last = answer.partition("-")[2][:32]
        found = {each.resource["service.name"]: each for each in told(own) if each.trace == last}
        first, second = found.get("front.shop"), found.get("way.shop")
        return (answer, first, second) if first is not None and second is not None else None

    answer, first, second = own.wait("spans of both", both)
    assert answer == f"200 00-{first.trace}-{second.id}-01"
    assert (first.parent, second.parent) == ("", first.id)
    assert first.tags["istio.destination_workload"] == "way"
    assert (second.tags["istio.source_namespace"], second.tags["istio.destination_workload"]) == (
        "shop",
        "web",
    )
    off = {
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "off"},
        "spec": {"tracing": [{"disableSpanReporting": True}]},
    }
    apply_in(own, "shop", [off])
    own.wait("nobody is told", lambda: asked("/untraced") == "200 None")
