"""The CNI plugin in real container runtimes: pods wait for the agent, the chain is repaired."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ambit.core.names import REDIRECTION_ANNOTATION, REDIRECTION_ENABLED
from ambit.node.cni.chain import FILE
from ambit.node.cni.runtime import PLUGIN
from tests.kubernetes.inside import Kubernetes

pytestmark = pytest.mark.kubernetes

SYSTEM = "ambit-system"
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: client, image: "docker.io/curlimages/curl:8.16.0", imagePullPolicy: Never, command: [sleep, infinity]}}
"""


def start(kubernetes: Kubernetes, namespace: str, name: str) -> None:
    kubernetes.kubectl("-n", namespace, "apply", "-f", "-", stdin=POD.format(name=name))


def found(kubernetes: Kubernetes, namespace: str, name: str) -> dict[str, Any]:
    words = ["-n", namespace, "get", "pod", name, "-o", "json", "--show-managed-fields"]
    pod: dict[str, Any] = json.loads(kubernetes.kubectl(*words))
    return pod


def ready(kubernetes: Kubernetes, namespace: str, *names: str) -> None:
    pods = [f"pod/{name}" for name in names]
    kubernetes.kubectl("-n", namespace, "wait", *pods, "--for=condition=Ready", "--timeout=90s")


def events(kubernetes: Kubernetes, namespace: str) -> str:
    return kubernetes.kubectl("-n", namespace, "get", "events", "-o", "jsonpath={.items[*].message}")


def configuration(kubernetes: Kubernetes) -> Path:
    """Ours on the first node, seen from outside."""
    return kubernetes.cluster.nodes[0].home / "etc-cni/net.d" / FILE


@contextmanager
def without_agents(kubernetes: Kubernetes) -> Iterator[None]:
    """No node has an agent, yet nothing was uninstalled."""

    def select(change: dict[str, str]) -> None:
        patch = json.dumps([{"path": "/spec/template/spec/nodeSelector/ambit-test", **change}])
        kubernetes.kubectl("-n", SYSTEM, "patch", "daemonset", "ambit-node", "--type=json", "-p", patch)

    select({"op": "add", "value": "nowhere"})
    try:
        kubernetes.wait(
            "the end of the agents",
            lambda: not kubernetes.kubectl("-n", SYSTEM, "get", "pods", "-l", "app=ztunnel", "-o", "name"),
        )
        yield
    finally:
        select({"op": "remove"})
        kubernetes.rollout(SYSTEM, "daemonset/ambit-node")


@pytest.mark.feature("F5")
def test_a_pod_is_captured_before_its_first_container_starts(kubernetes: Kubernetes) -> None:
    with kubernetes.namespace("cni-line", **{"istio.io/dataplane-mode": "ambient"}) as namespace:
        start(kubernetes, namespace, "captured")
        ready(kubernetes, namespace, "captured")
        pod = found(kubernetes, namespace, "captured")
        assert pod["metadata"]["annotations"][REDIRECTION_ANNOTATION] == REDIRECTION_ENABLED
        patched = [
            each["time"] for each in pod["metadata"]["managedFields"] if REDIRECTION_ANNOTATION in str(each)
        ]
        started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        assert len(patched) == 1
        assert patched[0] <= started
        kubernetes.kubectl("-n", namespace, "delete", "pod", "captured", "--timeout=30s")


@pytest.mark.feature("F56")
def test_pods_wait_for_the_agent_and_system_pods_do_not(kubernetes: Kubernetes) -> None:
    with kubernetes.namespace("cni-wait", **{"istio.io/dataplane-mode": "ambient"}) as namespace:
        try:
            with without_agents(kubernetes):
                start(kubernetes, namespace, "waits")
                kubernetes.wait(
                    "the refusal", lambda: "waits for the node agent" in events(kubernetes, namespace)
                )
                assert found(kubernetes, namespace, "waits")["status"]["phase"] == "Pending"
                start(kubernetes, "kube-system", "cni-system")
                ready(kubernetes, "kube-system", "cni-system")
                assert configuration(kubernetes).exists()
        finally:
            kubernetes.kubectl("-n", "kube-system", "delete", "pod", "cni-system", "--ignore-not-found")
        ready(kubernetes, namespace, "waits")
        annotations = found(kubernetes, namespace, "waits")["metadata"]["annotations"]
        assert annotations[REDIRECTION_ANNOTATION] == REDIRECTION_ENABLED


def test_a_chain_that_somebody_removes_is_put_back(kubernetes: Kubernetes) -> None:
    ours = configuration(kubernetes)
    before = ours.read_bytes()
    assert [each["type"] for each in json.loads(before)["plugins"]][-1] == PLUGIN
    ours.unlink()
    kubernetes.wait("our configuration", lambda: ours.exists() and ours.read_bytes() == before)


def test_an_agent_deleted_by_force_leaves_the_plugin_in_place(kubernetes: Kubernetes) -> None:
    """Its token is refused from then on, as after an uninstall."""
    ours = configuration(kubernetes)
    before = ours.stat().st_ino
    first = "spec.nodeName=node1"

    def agents() -> dict[str, bool]:
        words = ("-n", SYSTEM, "get", "pods", "-l", "app=ztunnel", "--field-selector", first, "-o", "json")
        return {
            pod["metadata"]["name"]: any(
                each["type"] == "Ready" and each["status"] == "True"
                for each in pod["status"].get("conditions", [])
            )
            for pod in json.loads(kubernetes.kubectl(*words))["items"]
        }

    (agent,) = agents()
    kubernetes.kubectl("-n", SYSTEM, "delete", "pod", agent, "--force", "--grace-period=0")
    # The next one is ready only after the former has given up the node's folder.
    kubernetes.wait("the next agent", lambda: agent not in agents() and list(agents().values()) == [True])
    assert ours.stat().st_ino == before  # neither removed nor written again
