"""One trace from a gateway over a waypoint to the server, in the hands of a collector that is in the mesh."""

import base64

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.settings import with_mesh_config
from tests.mesh.shop import waypoint
from tests.mesh.test_gateway import ASK
from tests.mesh.told import from_gateway_to_server
from tests.plan.collector import Span, spans_in

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]
SETTINGS = """
extensionProviders:
- name: spans
  opentelemetry: {{service: collector.{namespace}.svc.cluster.local, port: 4318, http: {{path: /v1/traces}}}}
defaultProviders: {{tracing: [spans]}}
defaultConfig: {{tracing: {{sampling: 100}}}}
"""
# Prints each message in base64.
COLLECTOR = """
import base64, http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
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


def told(mesh: Mesh, namespace: str) -> list[Span]:
    lines = mesh.kubectl("logs", "-n", namespace, "collector").stdout.split()
    return [span for line in lines for span in spans_in(base64.b64decode(line))]


@pytest.mark.feature("F167", "N13")
def test_a_trace_spans_gateway_and_waypoint(mesh: Mesh, namespace: str) -> None:
    """The collector takes nothing but mutual TLS. Without a proxy between, the client's node tells as the client."""
    with with_mesh_config(mesh, SETTINGS.format(namespace=namespace)):
        missing = f"there is no service collector.{namespace}.svc.cluster.local"

        def missed() -> bool:
            lines = mesh.ambit("check", "-o", "short", check=False).stdout.splitlines()
            return any("AMB0244" in line and missing in line for line in lines)

        mesh.wait("it is said that nobody takes spans", missed)
        address = from_gateway_to_server(mesh, namespace, COLLECTOR, 4318)

        def asked(path: str) -> str:
            words = ("python3", "-c", ASK, address, "80", path, "shop.example.com")
            return mesh.exec(namespace, "client", *words, check=False).stdout.strip()

        assert not missed()
        mesh.wait("the gateway answers", lambda: asked("/").startswith("200 "))

        answers: dict[str, str] = {}

        def both() -> tuple[str, Span, Span] | None:
            """Of one of the requests so far: proxies send spans some time later."""
            answer = asked("/traced")
            answers[answer.partition("-")[2][:32]] = answer
            found = {(each.trace, each.resource["service.name"]): each for each in told(mesh, namespace)}
            for trace, was in answers.items():
                first, second = (found.get((trace, f"{name}.{namespace}")) for name in ("front", "way"))
                if first is not None and second is not None:
                    return was, first, second
            return None

        answer, first, second = mesh.wait("spans of both", both)
        assert answer == f"200 00-{first.trace}-{second.id}-01"
        assert (first.parent, second.parent) == ("", first.id)
        assert first.tags["istio.destination_workload"] == "way"
        assert second.tags["istio.source_namespace"] == namespace
        assert second.tags["istio.destination_workload"] == "web"

        line = waypoint("ambit-inline", "service")
        line["metadata"]["name"] = "line"
        mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(line))
        mesh.kubectl("label", "-n", namespace, "service/web", "istio.io/use-waypoint=line", "--overwrite")
        traces = set()

        def asked_inline() -> str:
            words = ("python3", "-c", ASK, "web", "80", "/inline", "web")
            return mesh.exec(namespace, "client", *words, check=False).stdout.strip()

        def by_its_node() -> Span | None:
            traces.add(asked_inline().partition("-")[2][:32])
            found = (each for each in told(mesh, namespace) if each.trace in traces)
            return next(
                (each for each in found if each.resource["service.name"] == f"line.{namespace}"), None
            )

        span = mesh.wait("a span of the client's node", by_its_node)
        assert (span.tags["istio.source_workload"], span.tags["istio.destination_workload"]) == (
            "client",
            "web",
        )
        off = {
            "apiVersion": "telemetry.istio.io/v1",
            "kind": "Telemetry",
            "metadata": {"name": "off"},
            "spec": {"tracing": [{"disableSpanReporting": True}]},
        }
        mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump(off))
        mesh.wait("nobody is told", lambda: asked("/untraced") == asked_inline() == "200 None")
