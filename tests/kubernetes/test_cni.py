"""The CNI plugin in real container runtimes: pods wait for the agent, the chain is repaired."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.core.names import REDIRECTION_ANNOTATION
from ambit.node.cni.chain import FILE
from tests.kubernetes.inside import Kubernetes

pytestmark = pytest.mark.kubernetes

SYSTEM = "ambit-system"
NODE = "node1"
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: client, image: "docker.io/curlimages/curl:8.16.0", imagePullPolicy: Never, command: [sleep, infinity]}}
"""


def start(kubernetes: Kubernetes, namespace: str, name: str, node: str = NODE) -> None:
    text = POD.format(name=name, node=node)
    kubernetes.kubectl("-n", namespace, "apply", "-f", "-", stdin=text)


def pod(kubernetes: Kubernetes, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        kubernetes.kubectl("-n", namespace, "get", "pod", name, "-o", "json")
    )
    return found


def ready(kubernetes: Kubernetes, namespace: str, name: str, seconds: int = 60) -> None:
    kubernetes.kubectl(
        "-n", namespace, "wait", f"pod/{name}", "--for=condition=Ready", f"--timeout={seconds}s"
    )


def events(kubernetes: Kubernetes, namespace: str) -> str:
    return kubernetes.kubectl("-n", namespace, "get", "events", "-o", "jsonpath={.items[*].message}")


def configurations(kubernetes: Kubernetes) -> Path:
    """The folder of the first node, from outside."""
    return kubernetes.cluster.nodes[0].home / "etc-cni" / "net.d"


@pytest.fixture
def without_agents(kubernetes: Kubernetes) -> Iterator[None]:
    """No node has an agent; nothing was uninstalled."""
    patch = ["-n", SYSTEM, "patch", "daemonset", "ambit-node", "--type=json", "-p"]
    where = "/spec/template/spec/nodeSelector/ambit-test"
    kubernetes.kubectl(*patch, json.dumps([{"op": "add", "path": where, "value": "nowhere"}]))
    restored = [*patch, json.dumps([{"op": "remove", "path": where}])]
    try:
        kubernetes.kubectl(
            "-n", SYSTEM, "wait", "pods", "-l", "app=ztunnel", "--for=delete", "--timeout=60s", check=False
        )
        yield
    finally:
        kubernetes.kubectl(*restored, check=False)
        kubernetes.rollout(SYSTEM, "daemonset/ambit-node")


def test_a_pod_is_captured_before_it_starts(kubernetes: Kubernetes) -> None:
    with kubernetes.namespace("cni-line", **{"istio.io/dataplane-mode": "ambient"}) as namespace:
        start(kubernetes, namespace, "captured")
        ready(kubernetes, namespace, "captured")
        found = pod(kubernetes, namespace, "captured")
        assert found["metadata"]["annotations"][REDIRECTION_ANNOTATION] == "enabled"
        (result,) = (kubernetes.cluster.nodes[0].home / "var-lib-cni/results").glob("*")[:1] or [None]
        assert result is not None


@pytest.mark.usefixtures("without_agents")
def test_without_the_agent_pods_wait_and_system_pods_do_not(kubernetes: Kubernetes) -> None:
    with kubernetes.namespace("cni-wait", **{"istio.io/dataplane-mode": "ambient"}) as namespace:
        start(kubernetes, namespace, "waits")
        kubernetes.wait("the refusal", lambda: "waits for the node agent" in events(kubernetes, namespace))
        assert pod(kubernetes, namespace, "waits")["status"]["phase"] == "Pending"
        assert (configurations(kubernetes) / FILE).exists()
