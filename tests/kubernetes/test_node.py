"""The node's pod on real kubelets: running pods join unannounced, probes pass STRICT, Envoy outlives the agent."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.kubernetes.inside import Kubernetes

pytestmark = pytest.mark.kubernetes
SYSTEM = "ambit-system"
LABEL = re.compile(r'(\w+)="([^"]*)"')
OBJECTS = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  serviceAccountName: web
  terminationGracePeriodSeconds: 1
  nodeName: node1
  containers:
  - name: web
    image: docker.io/mccutchen/go-httpbin:v2.15.0
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /status/200, port: http}, periodSeconds: 1, failureThreshold: 1}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 2}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 1
  containers: [{name: curl, image: "docker.io/curlimages/curl:8.16.0", command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: outsider, labels: {istio.io/dataplane-mode: none}}
spec:
  nodeName: node2
  terminationGracePeriodSeconds: 1
  containers: [{name: curl, image: "docker.io/curlimages/curl:8.16.0", command: [sleep, infinity]}]
"""


@pytest.fixture(scope="module")
def namespace(kubernetes: Kubernetes) -> Iterator[str]:
    """Three running pods, two of which the mesh took in while they ran."""
    with kubernetes.namespace("node-parts") as name:
        kubernetes.kubectl("-n", name, "apply", "-f", "-", stdin=OBJECTS)
        kubernetes.kubectl("-n", name, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
        kubernetes.kubectl("label", "namespace", name, "istio.io/dataplane-mode=ambient")
        for pod in ("web", "client"):
            kubernetes.wait(f"{pod} is captured", lambda pod=pod: captured(kubernetes, name, pod))
        yield name


def captured(kubernetes: Kubernetes, namespace: str, pod: str) -> bool:
    annotation = r"jsonpath={.metadata.annotations.ambient\.istio\.io/redirection}"
    return kubernetes.kubectl("-n", namespace, "get", "pod", pod, "-o", annotation) == "enabled"


def asked(kubernetes: Kubernetes, namespace: str, pod: str, host: str = "web") -> bool:
    words = ("curl", "-sf", "-m", "3", "-o", "/dev/null", f"http://{host}/status/200")
    return kubernetes.execute(namespace, pod, *words).returncode == 0


def ambit(kubernetes: Kubernetes, *words: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-m", "ambit", *words, "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def ready() -> bool:
    """Every node's agent says so; while one is away the command fails."""
    words = [sys.executable, "-m", "ambit", "node", "status", "-o", "json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode == 0 and all(each["ready"] for each in json.loads(done.stdout))


def test_only_members_of_the_mesh_get_in(kubernetes: Kubernetes, namespace: str) -> None:
    kubernetes.wait("the client is let in", lambda: asked(kubernetes, namespace, "client"))
    kubernetes.wait("the outsider is not", lambda: not asked(kubernetes, namespace, "outsider"))
    assert asked(kubernetes, namespace, "client")


def probes(kubernetes: Kubernetes, namespace: str) -> Counter[tuple[str, str]]:
    """How many probes of `web` its kubelet has sent since it started, by kind and result."""
    told = kubernetes.kubectl("get", "--raw", "/api/v1/nodes/node1/proxy/metrics/probes")
    counted = Counter[tuple[str, str]]()
    for line in told.splitlines():
        if line.startswith("prober_probe_total{") and f'namespace="{namespace}"' in line:
            labels = dict(LABEL.findall(line))
            counted[labels["probe_type"], labels["result"]] += int(float(line.rpartition(" ")[2]))
    return counted


@pytest.mark.feature("F16", "F72")
def test_probes_pass(kubernetes: Kubernetes, namespace: str) -> None:
    """One a second of each kind, under STRICT: none fails, so the pod stays ready and is not restarted."""
    kubernetes.wait("STRICT is enforced", lambda: not asked(kubernetes, namespace, "outsider"))
    before = probes(kubernetes, namespace)

    def more() -> bool:
        sent = probes(kubernetes, namespace) - before
        return all(sent[kind, "successful"] >= 3 for kind in ("Readiness", "Liveness"))

    kubernetes.wait("three probes of each kind", more)
    assert {result for _, result in probes(kubernetes, namespace) - before} == {"successful"}
    pod = json.loads(kubernetes.kubectl("-n", namespace, "get", "pod", "web", "-o", "json"))
    (ready,) = (each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    assert ready["status"] == "True"
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    events = json.loads(kubernetes.kubectl("-n", namespace, "get", "events", "-o", "json"))["items"]
    failed = [each["message"] for each in events if each["reason"] == "Unhealthy"]
    assert [each for each in failed if "connection refused" not in each] == [], (
        "only before the server listened"
    )


@pytest.mark.feature("F23")
def test_envoy_outlives_the_agent(kubernetes: Kubernetes, namespace: str) -> None:
    def envoys() -> dict[str, tuple[int, int]]:
        found = ambit(kubernetes, "node", "status")
        return {each["node"]: (each["envoy"]["pid"], each["envoy"]["crashes"]) for each in found}

    address = kubernetes.kubectl("-n", namespace, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    kubernetes.wait("the client is let in", lambda: asked(kubernetes, namespace, "client", address))
    before = envoys()
    pods = json.loads(kubernetes.kubectl("-n", SYSTEM, "get", "pods", "-l", "app=ztunnel", "-o", "json"))[
        "items"
    ]
    for pod in pods:
        name = pod["metadata"]["name"]
        script = (
            "import os,signal\n"
            "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
            "  line = open(f'/proc/{pid}/cmdline').read().split('\\0')\n"
            "  if line[1:5] == ['-m', 'ambit', 'node', 'run']: os.kill(int(pid), signal.SIGKILL)\n"
        )
        done = kubernetes.execute(SYSTEM, name, "python3", "-c", script)
        assert done.returncode == 0, done.stderr
    # By address: names wait for the agent, which gives them.
    assert asked(kubernetes, namespace, "client", address), "what was known goes on"
    kubernetes.rollout(SYSTEM, "daemonset/ambit-node")
    kubernetes.wait("agents are back", ready)
    assert envoys() == before
    after = json.loads(kubernetes.kubectl("-n", SYSTEM, "get", "pods", "-l", "app=ztunnel", "-o", "json"))[
        "items"
    ]
    assert [each["status"]["containerStatuses"][0]["restartCount"] for each in after] == [
        each["status"]["containerStatuses"][0]["restartCount"] for each in pods
    ]
