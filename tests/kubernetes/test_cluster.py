"""The cluster itself, without the mesh: what the other tests stand on."""

import json

import pytest

from tests.kubernetes.inside import Kubernetes

pytestmark = pytest.mark.kubernetes

SERVERS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: server}
spec:
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: server
        image: docker.io/mccutchen/go-httpbin:v2.15.0
        imagePullPolicy: Never
        readinessProbe: {httpGet: {path: /status/200, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: client, image: "docker.io/curlimages/curl:8.16.0", imagePullPolicy: Never, command: [sleep, infinity]}
"""


def test_kubelets_of_the_pinned_version_are_ready_on_two_nodes(kubernetes: Kubernetes) -> None:
    nodes = json.loads(kubernetes.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["node1", "node2"]
    for node in nodes:
        assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.36.3"
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
        ready = [each["status"] for each in node["status"]["conditions"] if each["type"] == "Ready"]
        assert ready == ["True"]


def test_pods_reach_each_other_across_nodes_by_the_name_of_their_service(kubernetes: Kubernetes) -> None:
    with kubernetes.namespace("plain-line") as namespace:
        kubernetes.kubectl("-n", namespace, "apply", "-f", "-", stdin=SERVERS)
        kubernetes.rollout(namespace, "daemonset/server")
        kubernetes.kubectl("-n", namespace, "wait", "pod/client", "--for=condition=Ready", "--timeout=60s")
        servers = json.loads(
            kubernetes.kubectl("-n", namespace, "get", "pods", "-l", "app=server", "-o", "json")
        )
        places = {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in servers["items"]}
        assert sorted(places) == ["node1", "node2"]
        for target in ("server", *(f"{address}:8080" for address in places.values())):

            def answers(target: str = target) -> bool:
                words = [
                    "curl",
                    "-s",
                    "-m",
                    "5",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    f"http://{target}/status/200",
                ]
                return kubernetes.execute(namespace, "client", *words).stdout == "200"

            kubernetes.wait(f"an answer from {target}", answers)
