"""A gateway, a waypoint and a server, and a collector that is told of the requests on their way."""

from typing import Any

from ambit.testing.mesh import Mesh
from tests.mesh.echo import telling
from tests.mesh.pods import apply_in, pod
from tests.mesh.shop import waypoint
from tests.mesh.test_gateway import gateway, route

_ONLY_MESH = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "strict"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


def from_gateway_to_server(
    mesh: Mesh,
    namespace: str,
    collector: str,
    port: int,
    *others: dict[str, Any],
    of_class: str = "ambit-waypoint",
) -> str:
    """The address of a gateway whose requests go to a server, through a waypoint that has pods; the server answers with
    `traceparent`. `collector` is the program of one, which takes nothing but mutual TLS."""
    bound = {"istio.io/use-waypoint": "way", "istio.io/ingress-use-waypoint": "true"}
    objects = [
        _ONLY_MESH,
        *others,
        waypoint(of_class, "service"),
        *_served(mesh, "web", telling("traceparent"), 80, 8080, **bound),
        *_served(mesh, "collector", collector, port, port),
        gateway(),
        route({"backendRefs": [{"name": "web", "port": 80}]}),
        pod("client", mesh.nodes[0], ["sleep", "3600"]),
    ]
    apply_in(mesh, namespace, objects)
    for name in ("front", "way"):
        words = ("wait", "-n", namespace, f"gateway/{name}", "--for=condition=Programmed", "--timeout=110s")
        mesh.kubectl(*words)
    path = "jsonpath={.status.addresses[0].value}"
    return mesh.kubectl("get", "gateway", "front", "-n", namespace, "-o", path).stdout


def _served(
    mesh: Mesh, name: str, script: str, port: int, target: int, **labels: str
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
