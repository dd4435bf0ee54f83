"""Services and names as pods outside the mesh and the host see them: addresses, DNS, load balancers, forwards."""

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import dns.exception
import dns.message
import dns.query
import pytest

from ambit.testing.laptop import LaptopMesh
from ambit.testing.mesh import Mesh

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

OBJECTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: python:3
        command: [python3, -u, -m, http.server, "8080", --bind, "::"]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: client, image: busybox:1, command: [sleep, "3600"]}]
"""

PROBE = """
import json, socket, sys, time
found = {}
for place in sys.argv[1:]:
    host, _, port = place.rpartition(":")
    start = time.monotonic()
    try:
        with socket.create_connection((host, int(port)), 5) as connection:
            found[place] = [connection.getpeername()[0].count(":") > 0, time.monotonic() - start]
    except OSError as error:
        found[place] = [type(error).__name__, time.monotonic() - start]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def plain(mesh: Mesh) -> Iterator[str]:
    """A namespace that is not enrolled, with a Deployment, Services and a client in it."""
    name = f"n{uuid.uuid4().hex[:8]}"
    mesh.kubectl("create", "namespace", name)
    mesh.kubectl("apply", "-n", name, "-f", "-", stdin=OBJECTS)
    mesh.kubectl("rollout", "status", "-n", name, "deployment/web", "--timeout=110s")
    mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod/client", "--timeout=110s")
    # Outside the mesh the cluster itself sends there; kube-proxy does so when it comes to it.
    mesh.wait("the cluster serves the new service", lambda: reaches(mesh, name, "web:80"))
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=false")


def dial(mesh: Mesh, namespace: str, *places: str) -> dict[str, list[Any]]:
    """For each place: whether IPv6 answered, or the error's name; and the seconds that took."""
    output = mesh.exec(namespace, "client", "python3", "-c", PROBE, *places).stdout
    return dict(json.loads(output))


def reaches(mesh: Mesh, namespace: str, place: str) -> bool:
    """Whether the place answers now; False also while nothing can be run in the client."""
    done = mesh.exec(namespace, "client", "python3", "-c", PROBE, place, check=False)
    return done.returncode == 0 and isinstance(json.loads(done.stdout)[place][0], bool)


def service(mesh: Mesh, namespace: str) -> dict[str, Any]:
    return dict(json.loads(mesh.kubectl("get", "service", "web", "-n", namespace, "-o", "json").stdout))


def test_every_name_and_address_of_a_service_leads_to_it(mesh: Mesh, plain: str) -> None:
    names = ["web", f"web.{plain}", f"web.{plain}.svc", f"web.{plain}.svc.cluster.local"]
    places = [*(f"{name}:80" for name in names), f"each.{plain}:8080", "kubernetes.default:443"]
    all_answer(mesh, plain, places, service(mesh, plain)["spec"]["clusterIPs"])


@pytest.mark.laptop_only(
    "on Kubernetes load balancers get their addresses from a cloud's controller, not from the mesh"
)
def test_every_address_of_a_load_balancer_leads_to_its_service(laptop: LaptopMesh, plain: str) -> None:
    def ingress() -> list[dict[str, str]]:
        return list(service(laptop, plain).get("status", {}).get("loadBalancer", {}).get("ingress", ()))

    addresses = [each["ip"] for each in laptop.wait("the load balancer has addresses", ingress)]
    assert {":" in address for address in addresses} == {False, True}
    all_answer(laptop, plain, [], addresses)


def all_answer(mesh: Mesh, namespace: str, places: list[str], addresses: list[str]) -> None:
    """At these places, and at port 80 of these addresses, by the address's own family."""

    def all_do() -> dict[str, list[Any]]:
        found = dial(mesh, namespace, *places, *(f"{address}:80" for address in addresses))
        return {} if any(isinstance(kind, str) for kind, _ in found.values()) else found

    answers = mesh.wait("all answer", all_do)
    for address in addresses:
        assert answers[f"{address}:80"][0] is (":" in address)


def test_what_does_not_exist_fails_at_once(mesh: Mesh, plain: str) -> None:
    places = "web:81", f"nothing.{plain}.svc.cluster.local:80"
    fail_at_once(mesh, plain, dict(zip(places, ("ConnectionRefusedError", "gaierror"), strict=True)))


def fail_at_once(mesh: Mesh, namespace: str, wanted: dict[str, str]) -> None:
    """With these errors, before anybody's time-out: a busy machine may need several tries for that."""

    def do() -> bool:
        answers = dial(mesh, namespace, *wanted)
        assert {place: kind for place, (kind, _) in answers.items()} == wanted
        return max(seconds for _, seconds in answers.values()) < 4

    mesh.wait("they fail at once", do)


@pytest.mark.laptop_only(
    "kube-proxy leaves addresses without a Service to the network; other names are for upstreams"
)
def test_what_is_not_of_the_cluster_fails_at_once(mesh: Mesh, plain: str) -> None:
    names = dict.fromkeys(("www.example.com:80", "nothing:80"), "gaierror")
    fail_at_once(mesh, plain, {"10.96.255.254:80": "ConnectionRefusedError", **names})


@pytest.mark.laptop_only("`ambit local forward` is the laptop's; kubectl port-forward is in test_kubectl")
def test_forwards_lead_from_the_host_and_outlive_the_cluster_process(laptop: LaptopMesh, plain: str) -> None:
    address = laptop.ambit("local", "forward", "add", "web", "80", "-n", plain).stdout.strip()
    try:
        assert urlopen(f"http://{address}/", timeout=60).status == 200
        os.kill(cluster_process(laptop), signal.SIGKILL)
        assert urlopen(f"http://{address}/", timeout=60).status == 200
        laptop.wait("pods resolve names again", lambda: reaches(laptop, plain, "web:80"))
        assert urlopen(f"http://{address}/", timeout=60).status == 200
    finally:
        laptop.ambit("local", "forward", "remove", address.rpartition(":")[2])


def cluster_process(laptop: LaptopMesh) -> int:
    """The pid of `ambit local run` of this very instance: a child of its supervisor."""
    supervisor = json.loads(laptop.state.instance.read_bytes())["supervisor"]["pid"]
    for child in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"local" in words and b"run" in words:
            return int(child)
    raise AssertionError("the cluster process does not run")


@pytest.mark.laptop_only("`ambit local forward` is the laptop's")
def test_forwards_of_udp_carry_datagrams(laptop: LaptopMesh) -> None:
    words = ("local", "forward", "add", "kube-dns", "53/udp", "-n", "kube-system")
    address = laptop.ambit(*words).stdout.strip()
    asked = dns.message.make_query("kubernetes.default.svc.cluster.local.", "A")

    def is_answered() -> bool:
        try:
            answer = dns.query.udp(asked, "127.0.0.1", 1, int(address.rpartition(":")[2]))
        except (dns.exception.Timeout, OSError):
            return False
        return "10.96." in answer.to_text()

    laptop.wait("an answer by UDP", is_answered)
    listed = laptop.ambit("local", "forward", "list").stdout
    assert any(line.split() == [address, "kube-system", "kube-dns", "53/udp"] for line in listed.splitlines())
    laptop.ambit("local", "forward", "remove", address)
