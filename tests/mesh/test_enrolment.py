"""Running pods join the mesh by a label and leave it: what becomes of them, and what the kernel has of it."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.inside import listening, rules
from tests.mesh.pods import make_namespace, pod
from tests.mesh.recorder import recording
from tests.mesh.talk import Talk
from tests.mesh.test_control_plane import scale

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

LABEL = "istio.io/dataplane-mode"
REDIRECTION = "ambient.istio.io/redirection"
SYSTEM = "ambit-system"
PROXY_PORTS = {15001, 15006, 15008}
SERVER = """
import http.server, socket, threading

class Web(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

def echo(connection):
    with connection:
        connection.sendall(b"hello")
        while data := connection.recv(1000):
            connection.sendall(data)

def talk():
    server = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        threading.Thread(target=echo, args=[server.accept()[0]], daemon=True).start()

threading.Thread(target=talk, daemon=True).start()
Web(("::", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
ASK = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=30).status)
except urllib.error.HTTPError as answer:
    print(answer.code)
"""
JOINING = {"client", "web"}


@pytest.fixture(scope="module")
def village(mesh: Mesh) -> Iterator[str]:
    """A namespace outside the mesh: `web` of a Deployment and `client` on different nodes; `apart`, `sidecar` and
    `host`, which no label of the namespace takes in."""
    with make_namespace(mesh, enrolled=False) as name:
        near, far = mesh.nodes[:2]
        server = pod("web", far, ["python3", "-uc", SERVER], labels={"app": "web"})
        server["spec"]["restartPolicy"] = "Always"
        server["spec"]["containers"][0]["readinessProbe"] = {
            "tcpSocket": {"port": 8080},
            "periodSeconds": 1,
        }
        template = {"metadata": {"labels": {"app": "web"}}, "spec": server["spec"]}
        waiting = {
            each: pod(each, near, ["sleep", "3600"], namespace=name)
            for each in ("client", "apart", "sidecar", "host")
        }
        waiting["apart"]["metadata"]["labels"] = {LABEL: "none"}
        waiting["sidecar"]["metadata"]["annotations"] = {"sidecar.istio.io/status": "{}"}
        waiting["host"]["spec"]["hostNetwork"] = True
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": name},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        }
        mesh.apply([deployment, *waiting.values()])
        mesh.kubectl("rollout", "status", "-n", name, "deployment/web", "--timeout=110s")
        mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        yield name


def pods(mesh: Mesh, namespace: str) -> dict[str, dict[str, Any]]:
    """By name, `web` without what its ReplicaSet adds."""
    found = json.loads(mesh.kubectl("get", "pods", "-n", namespace, "-o", "json").stdout)["items"]
    return {each["metadata"]["name"].partition("-")[0]: each for each in found}


def web(mesh: Mesh, namespace: str) -> str:
    return str(pods(mesh, namespace)["web"]["metadata"]["name"])


def redirected(mesh: Mesh, namespace: str) -> dict[str, str]:
    """What the redirection annotation says of each pod that has it."""
    found = {
        name: each["metadata"].get("annotations", {}).get(REDIRECTION)
        for name, each in pods(mesh, namespace).items()
    }
    return {name: value for name, value in found.items() if value is not None}


def reason(mesh: Mesh, namespace: str, name: str) -> str:
    """Why a pod is not captured, as it says itself."""
    found = pods(mesh, namespace)[name]["metadata"].get("annotations", {})
    return str(found.get("ambit.io/not-captured", ""))


def join(mesh: Mesh, namespace: str) -> None:
    mesh.kubectl("label", "namespace", namespace, "--overwrite", f"{LABEL}=ambient")
    enabled = dict.fromkeys(JOINING, "enabled").items()
    mesh.wait("the pods are in the mesh", lambda: redirected(mesh, namespace).items() >= enabled)


def leave(mesh: Mesh, namespace: str) -> None:
    mesh.kubectl("label", "namespace", namespace, f"{LABEL}-")
    mesh.wait("the pods have left the mesh", lambda: not redirected(mesh, namespace))


def fixed(mesh: Mesh, namespace: str) -> dict[str, Any]:
    """What no enrolment may change: specifications, containers and how often they were started."""
    deployment = json.loads(mesh.kubectl("get", "deployment", "web", "-n", namespace, "-o", "json").stdout)
    found: dict[str, Any] = {
        name: (
            each["spec"],
            [
                (status["name"], status["restartCount"], status["containerID"])
                for status in each["status"]["containerStatuses"]
            ],
        )
        for name, each in pods(mesh, namespace).items()
    }
    return found | {"deployment": deployment["spec"]}


def fetch(mesh: Mesh, namespace: str, address: str, path: str) -> str:
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:8080/{path}"
    return mesh.exec(namespace, "client", "python3", "-c", ASK, url, check=False).stdout.strip()


def answered(mesh: Mesh, namespace: str, address: str, path: str) -> None:
    """Once both nodes know the server."""
    mesh.wait("an answer", lambda: fetch(mesh, namespace, address, path) == "404")


def in_the_clear(mesh: Mesh, namespace: str) -> bool:
    """Whether a request from node to node can be read on the wire."""
    marker = uuid.uuid4().hex
    near, far = mesh.nodes[:2]
    address, *_ = mesh.pod_addresses(namespace, web(mesh, namespace))
    with recording(mesh, far, near) as recorded:
        answered(mesh, namespace, address, marker)
    return recorded.has(marker.encode())


@pytest.mark.feature("F1", "F3", "F17", "F20", "F166")
def test_a_label_takes_running_pods_in_and_changes_nothing_of_them(mesh: Mesh, village: str) -> None:
    before = fixed(mesh, village)
    assert in_the_clear(mesh, village)
    join(mesh, village)
    try:
        mesh.wait("requests are tunnelled", lambda: not in_the_clear(mesh, village))
        assert redirected(mesh, village) == dict.fromkeys(JOINING, "enabled")
        mesh.wait("it says why", lambda: reason(mesh, village, "sidecar") == "the pod has a sidecar")
        mesh.wait("it says why", lambda: reason(mesh, village, "host") == "the pod is in the host's network")
        assert not reason(mesh, village, "apart")
        assert fixed(mesh, village) == before
        containers = {name: each["spec"]["containers"] for name, each in pods(mesh, village).items()}
        assert set(containers) == {"web", "client", "apart", "sidecar", "host"}, "no proxy of their own"
        assert {name: [each["name"] for each in found] for name, found in containers.items()} == (
            {name: ["main"] for name in containers}
        )
    finally:
        leave(mesh, village)


@pytest.mark.feature("F1")
def test_pods_of_an_excluded_namespace_stay_outside_and_say_why(mesh: Mesh) -> None:
    """`kube-system` is one from the start."""
    name = f"excluded-{uuid.uuid4().hex[:8]}"
    asking = pod(name, mesh.nodes[0], ["sleep", "3600"], namespace="kube-system", labels={LABEL: "ambient"})
    mesh.apply([asking])
    try:
        mesh.kubectl("wait", "-n", "kube-system", "--for=condition=Ready", f"pod/{name}", "--timeout=110s")
        mesh.wait("it says why", lambda: reason(mesh, "kube-system", "excluded"))
        assert reason(mesh, "kube-system", "excluded") == "namespace kube-system is excluded from the mesh"
        assert "excluded" not in redirected(mesh, "kube-system")
        assert rules(mesh, "kube-system", name) == ""
        mesh.kubectl("label", "pod", name, "-n", "kube-system", f"{LABEL}-")
        mesh.wait("nothing is left to say", lambda: not reason(mesh, "kube-system", "excluded"))
    finally:
        mesh.kubectl("delete", "pod", name, "-n", "kube-system")


@pytest.mark.feature("F4", "F85")
def test_the_proxy_listens_in_captured_pods_and_nftables_lead_there(mesh: Mesh, village: str) -> None:
    join(mesh, village)
    try:
        captured = rules(mesh, village, web(mesh, village))
        assert [line for line in captured.splitlines() if line.startswith("table")] == ["table inet ambit {"]
        assert listening(mesh, village, web(mesh, village)) >= PROXY_PORTS
        for name in ("apart", "sidecar"):
            assert rules(mesh, village, name) == ""
            assert not listening(mesh, village, name) & PROXY_PORTS
    finally:
        leave(mesh, village)


@pytest.mark.feature("F2")
def test_a_running_pod_leaves_and_nothing_of_the_mesh_stays_in_it(mesh: Mesh, village: str) -> None:
    join(mesh, village)
    before = fixed(mesh, village)
    address, *_ = mesh.pod_addresses(village, web(mesh, village))
    answered(mesh, village, address, "nothing")
    held = Talk(mesh, village, "client", address)
    leave(mesh, village)
    assert fetch(mesh, village, address, "nothing") == "404"
    assert held.last_word() == "alive"
    for name in ("client", web(mesh, village)):
        mesh.wait("the rules are gone", lambda: rules(mesh, village, name) == "")  # noqa: B023
        mesh.wait("the proxy is gone", lambda: not listening(mesh, village, name) & PROXY_PORTS)  # noqa: B023
    assert in_the_clear(mesh, village)
    assert fixed(mesh, village) == before


@pytest.mark.feature("F3", "F159")
def test_every_node_has_one_ready_proxy_under_the_usual_labels(mesh: Mesh) -> None:
    for app in ("istiod", "ztunnel"):
        words = ("wait", "pod", "-n", SYSTEM, "-l", f"app={app}", "--for=condition=Ready", "--timeout=110s")
        mesh.kubectl(*words)
    mesh.kubectl(
        "wait", "deployment", "-n", SYSTEM, "-l", "app=istiod", "--for=condition=Available", "--timeout=110s"
    )
    path = "jsonpath={.items[*].spec.nodeName}"
    words = ("get", "pods", "-n", SYSTEM, "-l", "app=ztunnel", "-o", path)
    # One that another test has replaced may still end.
    mesh.wait("one on each node", lambda: sorted(mesh.kubectl(*words).stdout.split()) == list(mesh.nodes))


@pytest.mark.feature("F17", "F20")
def test_no_webhook_changes_pods_and_no_gateway_runs(mesh: Mesh) -> None:
    hooks = mesh.kubectl("get", "mutatingwebhookconfigurations", "-o", "name").stdout
    assert not [name for name in hooks.split() if "ambit" in name or "istio" in name]
    words = ("get", "pods", "-A", "-l", "gateway.networking.k8s.io/gateway-name", "-o", "name")
    # Those of other tests' namespaces may still end.
    mesh.wait("no gateway runs", lambda: mesh.kubectl(*words).stdout == "")


@pytest.mark.feature("N10")
def test_a_pod_that_could_not_be_taken_in_is_tried_again(mesh: Mesh, village: str) -> None:
    """Nobody signs for an account that is new to the node while the control plane is away."""
    new = pod("late", mesh.nodes[0], ["sleep", "3600"], namespace=village)
    new["spec"]["serviceAccountName"] = "late"
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "late", "namespace": village},
    }
    mesh.apply([account, new])
    mesh.kubectl("wait", "-n", village, "--for=condition=Ready", "pod/late", "--timeout=110s")
    scale(mesh, 0)
    try:
        mesh.kubectl("label", "pod", "late", "-n", village, f"{LABEL}=ambient")
        mesh.wait("an attempt failed", lambda: said_of(mesh, village, "late"))
        mesh.wait("it waits", lambda: redirected(mesh, village).get("late") == "pending")
        assert "no certificate for" in reason(mesh, village, "late")
    finally:
        scale(mesh, 1)
    mesh.wait("it is in the mesh", lambda: redirected(mesh, village).get("late") == "enabled")
    assert not reason(mesh, village, "late")
    mesh.kubectl("delete", "pod", "late", "-n", village)


def said_of(mesh: Mesh, namespace: str, name: str) -> list[str]:
    """What node agents said about a pod that they could not take in."""
    log = mesh.kubectl("logs", "-n", SYSTEM, "-l", "app=ztunnel", "--tail=-1").stdout
    return [line for line in log.splitlines() if "warning" in line and namespace in line and name in line]
