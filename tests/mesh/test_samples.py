"""Istio's sample applications, their manifests unchanged, in an enrolled namespace: they run, and talk only TLS."""

import ipaddress
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.recorder import Recording, recording

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

MANIFESTS = Path(__file__).parents[2] / "examples" / "istio"
SAMPLES = ("bookinfo", "curl", "httpbin", "helloworld", "tcp-echo")
HBONE_PORT = 15008

TALK = """
import socket, sys
with socket.create_connection(("tcp-echo", int(sys.argv[1])), 30) as connection:
    connection.sendall(b"world\\n")
    print(connection.makefile().readline(), end="")
"""


def create(mesh: Mesh, *, is_enrolled: bool) -> str:
    """A namespace with all samples, every pod ready."""
    name = f"n{uuid.uuid4().hex[:8]}"
    labels = {"istio.io/dataplane-mode": "ambient"} if is_enrolled else {}
    mesh.create_namespace(name, labels)
    files = [word for sample in SAMPLES for word in ("-f", str(MANIFESTS / f"{sample}.yaml"))]
    mesh.kubectl("apply", "-n", name, *files)
    mesh.kubectl("wait", "-n", name, "--for=condition=Available", "deployment", "--all", "--timeout=110s")
    return name


@pytest.fixture(scope="module")
def samples(mesh: Mesh) -> Iterator[str]:
    name = create(mesh, is_enrolled=True)
    yield name
    mesh.kubectl("delete", "namespace", name, "--wait=false")


def curl(mesh: Mesh, namespace: str, *words: str) -> str:
    return mesh.exec(namespace, "deploy/curl", "curl", "-sS", "-m", "30", *words).stdout


@pytest.mark.feature("F162")
def test_productpage_is_served_to_the_curl_pod(mesh: Mesh, samples: str) -> None:
    whole = ("<title>Simple Bookstore App</title>", "Book Details", "Reviews served by")

    def is_served() -> bool:
        """The page itself leaves out what takes too long."""
        page = curl(mesh, samples, "http://productpage:9080/productpage")
        return all(each in page for each in whole)

    mesh.wait("the whole page", is_served)


def test_every_pod_is_captured_and_tunnelled_to(mesh: Mesh, samples: str) -> None:
    path = "jsonpath={range .items[*]}{.metadata.annotations.ambient\\.istio\\.io/redirection}{'\\n'}{end}"
    told = mesh.kubectl("get", "pods", "-n", samples, "-o", path).stdout.split()
    assert set(told) == {"enabled"}
    _are_known(mesh, samples, len(told))


def _are_known(mesh: Mesh, namespace: str, count: int) -> None:
    """Until every node knows so many pods, to be called through tunnels."""

    def known(node: str) -> bool:
        workloads = [
            each for each in mesh.dump("workloads", "--node", node) if each["namespace"] == namespace
        ]
        return len(workloads) == count and {each["protocol"] for each in workloads} == {"HBONE"}

    mesh.wait("every node knows all pods", lambda: all(map(known, mesh.nodes)))


def test_httpbin_answers(mesh: Mesh, samples: str) -> None:
    answer = json.loads(curl(mesh, samples, "-H", "x-word: mesh", "http://httpbin:8000/get?a=1"))
    assert answer["args"] == {"a": ["1"]}
    assert answer["headers"]["X-Word"] == ["mesh"]
    codes = [
        curl(mesh, samples, "-o", "/dev/null", "-w", "%{http_code}", f"http://httpbin:8000/status/{code}")
        for code in (204, 418, 503)
    ]
    assert codes == ["204", "418", "503"]


def test_both_versions_of_helloworld_answer(mesh: Mesh, samples: str) -> None:
    seen: set[str] = set()

    def both() -> bool:
        seen.add(curl(mesh, samples, "http://helloworld:5000/hello").split(",")[0])
        return seen == {"Hello version: v1", "Hello version: v2"}

    mesh.wait("both versions have answered", both)


@pytest.mark.parametrize("port", ["9000", "9001"])
def test_tcp_echo_answers(mesh: Mesh, samples: str, port: str) -> None:
    assert mesh.exec(samples, "deploy/curl", "python3", "-c", TALK, port).stdout == "hello world\n"


@pytest.mark.feature("F6")
def test_only_tls_is_on_the_wire_between_nodes(mesh: Mesh, samples: str) -> None:
    _are_known(mesh, samples, len(mesh.kubectl("get", "pods", "-n", samples, "-o", "name").stdout.split()))
    marker, recorded, pods = captured_request(mesh, samples)
    assert not recorded.has(marker.encode())
    ends = {frozenset(pair) & {HBONE_PORT} for pair in ports_between(pods, recorded)}
    assert ends == {frozenset({HBONE_PORT})}


def test_the_capture_finds_plaintext_before_enrolment(mesh: Mesh) -> None:
    """The control of the test above: the same capture of the same request does see what is in the clear."""
    name = create(mesh, is_enrolled=False)
    try:
        marker, recorded, pods = captured_request(mesh, name)
        assert recorded.has(marker.encode())
        assert all(HBONE_PORT not in pair for pair in ports_between(pods, recorded))
    finally:
        mesh.kubectl("delete", "namespace", name, "--wait=false")


def captured_request(mesh: Mesh, namespace: str) -> tuple[str, Recording, set[str]]:
    """A request with a fresh marker from the curl pod to a bookinfo pod of another node, and the pods' addresses."""
    pods = json.loads(mesh.kubectl("get", "pods", "-n", namespace, "-o", "json").stdout)["items"]
    source = next(pod for pod in pods if pod["metadata"]["labels"]["app"] == "curl")
    node = source["spec"]["nodeName"]
    services = ("productpage", "details", "ratings", "reviews")
    target = next(
        pod
        for pod in pods
        if pod["spec"]["nodeName"] != node and pod["metadata"]["labels"]["app"] in services
    )
    marker = uuid.uuid4().hex
    with recording(mesh, node, target["spec"]["nodeName"]) as recorded:
        url = f"http://{target['status']['podIP']}:9080/health"
        curl(mesh, namespace, "-H", f"x-marker: {marker}", "-o", "/dev/null", url)
    return marker, recorded, {pod["status"]["podIP"] for pod in pods}


def ports_between(pods: set[str], recorded: Recording) -> set[tuple[int, int]]:
    """Source and destination ports of each TCP packet over IPv4 between two of these addresses."""
    found = set()
    for frame in recorded.frames:
        packet = frame[14:]
        if frame[12:14] != b"\x08\x00" or packet[9] != 6:
            continue
        ends = {str(ipaddress.ip_address(packet[12:16])), str(ipaddress.ip_address(packet[16:20]))}
        if ends <= pods:
            segment = packet[4 * (packet[0] & 15) :]
            found.add((int.from_bytes(segment[0:2], "big"), int.from_bytes(segment[2:4], "big")))
    return found
