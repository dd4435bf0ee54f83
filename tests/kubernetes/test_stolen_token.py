"""What can be done with the token of a node agent by somebody who took over its node."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.core.names import REDIRECTION_ANNOTATION
from tests.kubernetes.cluster.settings import API_ADDRESS, API_PORT
from tests.kubernetes.inside import Kubernetes

pytestmark = pytest.mark.kubernetes
SYSTEM = "ambit-system"


class Thief:
    """Holds the token of the agent on `node`."""

    def __init__(self, kubernetes: Kubernetes, node: str) -> None:
        selected = f"spec.nodeName={node}"
        # The newest: after a roll there may be one that still drains.
        newest = ("--sort-by", "metadata.creationTimestamp", "-o", "name")
        agents = kubernetes.kubectl(
            "-n", SYSTEM, "get", "pods", "-l", "app=ztunnel", "--field-selector", selected, *newest
        )
        agent = agents.split()[-1].removeprefix("pod/")
        bound = ("--bound-object-kind", "Pod", "--bound-object-name", agent)
        self._token = kubernetes.kubectl("-n", SYSTEM, "create", "token", "ztunnel", *bound).strip()
        self._trust = ssl.create_default_context(cafile=kubernetes.cluster.pki / "ca.crt")

    def patch(self, path: str, value: Any) -> str:
        """Empty, or why the API server refused."""
        request = urllib.request.Request(
            f"https://{API_ADDRESS}:{API_PORT}/api/v1/namespaces/{path}",
            json.dumps(value).encode(),
            {"Authorization": f"Bearer {self._token}", "Content-Type": "application/merge-patch+json"},
            method="PATCH",
        )
        try:
            with urllib.request.urlopen(request, context=self._trust, timeout=30):
                return ""
        except urllib.error.HTTPError as problem:
            return str(json.load(problem)["message"])


@pytest.fixture
def pods(kubernetes: Kubernetes) -> Iterator[str]:
    """A namespace with pod `a` on the first node and `b` on the second; nothing need run there."""
    with kubernetes.namespace("stolen-token") as namespace:
        for name, node in zip("ab", kubernetes.cluster.nodes, strict=False):
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
                "spec": {
                    "nodeName": node.name,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "localhost/nowhere:1", "imagePullPolicy": "Never"}],
                },
            }
            kubernetes.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
        yield namespace


def annotation(key: str, value: str | None) -> dict[str, Any]:
    return {"metadata": {"annotations": {key: value}}}


def test_it_annotates_pods_of_its_own_node_and_changes_nothing_else(
    kubernetes: Kubernetes, pods: str
) -> None:
    thief = Thief(kubernetes, kubernetes.cluster.nodes[0].name)
    captured = annotation(REDIRECTION_ANNOTATION, "enabled")
    image = {"spec": {"containers": [{"name": "c", "image": "localhost/evil:1"}]}}
    a, b = f"{pods}/pods/a", f"{pods}/pods/b"

    assert thief.patch(f"{a}/status", captured) == ""
    assert thief.patch(f"{a}/status", annotation(REDIRECTION_ANNOTATION, None)) == ""
    assert "of its own node only" in thief.patch(f"{b}/status", captured)
    assert "no annotation but" in thief.patch(f"{a}/status", annotation("other", "x"))
    assert "nothing of a pod but" in thief.patch(f"{a}/status", {"metadata": {"labels": {"app": "b"}}})
    assert "nothing of a pod but" in thief.patch(f"{a}/status", {"status": {"phase": "Failed"}})
    for path in (a, b):
        assert 'cannot patch resource "pods"' in thief.patch(path, image)
        assert 'cannot patch resource "pods"' in thief.patch(path, captured)
