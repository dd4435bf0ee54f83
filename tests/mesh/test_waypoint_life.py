"""Waypoints come and go with their Gateways, and take the traffic of what is bound to them and nothing else."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, make_namespace

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

SERVER = """
import http.server, sys
class Tell(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].removeprefix("::ffff:").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 8080), Tell).serve_forever()
"""
ASK = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(f"http://{sys.argv[1]}", timeout=5).read().decode())
except OSError as problem:
    print("refused")
"""
OBJECTS = ("deployment", "service", "serviceaccount")


@pytest.fixture
def shop(mesh: Mesh) -> Iterator[str]:
    """An enrolled namespace with a server behind two services, and a client."""
    with make_namespace(mesh) as name:
        apply_in(mesh, name, [service("one"), service("two"), *pods()])
        yield name


def service(name: str) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "server"}, "ports": ports},
    }


def pods() -> Iterator[dict[str, Any]]:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    for name, command, more in (
        ("server", ["python3", "-uc", SERVER], {"readinessProbe": probe}),
        ("client", ["sleep", "3600"], {}),
    ):
        container = {"name": "main", "image": "python:3", "command": command, **more}
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
        }


def waypoint(takes: str = "service") -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "waypoint", "labels": {"istio.io/waypoint-for": takes}},
        "spec": {
            "gatewayClassName": "ambit-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


def make_waypoint(mesh: Mesh, namespace: str, takes: str = "service") -> None:
    """Until it is programmed."""
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(waypoint(takes)))
    wait = ("wait", "-n", namespace, "gateway/waypoint", "--for=condition=Programmed", "--timeout=60s")
    mesh.kubectl(*wait, timeout=90)


def pass_by(mesh: Mesh, namespace: str, expected: dict[str, str]) -> None:
    """Until the server sees requests to these places come from `client`, `waypoint` or are `refused`."""

    def seen() -> dict[str, str]:
        listed = json.loads(mesh.kubectl("get", "pods", "-n", namespace, "-o", "json").stdout)["items"]
        names = {
            each["status"].get("podIP"): each["metadata"]["labels"].get("app", "waypoint") for each in listed
        }
        answers = {
            place: mesh.exec(namespace, "client", "python3", "-c", ASK, place).stdout.strip()
            for place in expected
        }
        return {place: names.get(answer, answer) for place, answer in answers.items()}

    mesh.wait(f"requests are seen from {expected}", lambda: seen() == expected)


def bind(mesh: Mesh, namespace: str, *what: str, to: str = "istio.io/use-waypoint=waypoint") -> None:
    mesh.kubectl("label", "-n", namespace, "--overwrite", *what, to)


@pytest.mark.feature("F27")
def test_a_gateway_brings_a_waypoint_and_takes_it_away(mesh: Mesh, shop: str) -> None:
    make_waypoint(mesh, shop)
    for kind in OBJECTS:
        mesh.kubectl("get", "-n", shop, kind, "waypoint")
    gateway = json.loads(mesh.kubectl("get", "-n", shop, "gateway", "waypoint", "-o", "json").stdout)
    found = json.loads(mesh.kubectl("get", "-n", shop, "service", "waypoint", "-o", "json").stdout)
    assert [each["value"] for each in gateway["status"]["addresses"]] == found["spec"]["clusterIPs"]
    mesh.kubectl("delete", "-n", shop, "gateway", "waypoint")

    def left() -> str:
        return "".join(
            mesh.kubectl("get", "-n", shop, kind, "waypoint", "--ignore-not-found", "-o", "name").stdout
            for kind in OBJECTS
        )

    mesh.wait("nothing of it is left", lambda: left() == "")


@pytest.mark.feature("F28")
def test_what_is_bound_passes_through_it_and_nothing_else(mesh: Mesh, shop: str) -> None:
    make_waypoint(mesh, shop)
    pass_by(mesh, shop, {"one": "client", "two": "client"})
    bind(mesh, shop, "service", "one")
    pass_by(mesh, shop, {"one": "waypoint", "two": "client"})
    mesh.kubectl("label", "namespace", shop, "istio.io/use-waypoint=waypoint")
    pass_by(mesh, shop, {"one": "waypoint", "two": "waypoint"})
    bind(mesh, shop, "service", "one", to="istio.io/use-waypoint=none")
    pass_by(mesh, shop, {"one": "client", "two": "waypoint"})
    # Nobody is sent past a waypoint that is not there.
    mesh.kubectl("delete", "-n", shop, "gateway", "waypoint")
    pass_by(mesh, shop, {"one": "client", "two": "refused"})


@pytest.mark.feature("F29")
def test_a_waypoint_takes_what_it_is_for(mesh: Mesh, shop: str) -> None:
    make_waypoint(mesh, shop)
    mesh.kubectl("label", "namespace", shop, "istio.io/use-waypoint=waypoint")
    address = f"{mesh.pod_addresses(shop, 'server')[0]}:8080"
    for takes, service_from, pod_from in (
        ("service", "waypoint", "client"),
        ("workload", "client", "waypoint"),
        ("all", "waypoint", "waypoint"),
        ("none", "client", "client"),
    ):
        mesh.kubectl(
            "label", "-n", shop, "--overwrite", "gateway", "waypoint", f"istio.io/waypoint-for={takes}"
        )
        pass_by(mesh, shop, {"one": service_from, address: pod_from})
