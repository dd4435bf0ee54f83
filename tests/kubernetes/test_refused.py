"""What is not allowed, or not there: nothing is let in because of it, and something says what is missing."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from image.interpreter import PACKAGES

from ambit.agent.authority import Authority
from ambit.agent.channel import ControlPlane
from ambit.agent.csr import new_key, signing_request
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.testing.mesh import Mesh
from tests.kubernetes.inside import Kubernetes
from tests.mesh.pods import make_namespace, pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.kubectl]

SYSTEM = "ambit-system"
CONTROL, NODE = "app=istiod", "app=ztunnel"
ENVOY = f"{PACKAGES}/envoy/_bin"
OTHER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod, namespace: istio-system, labels: {app: istiod}}
spec:
  replicas: 0
  selector: {matchLabels: {app: istiod}}
  template:
    metadata: {labels: {app: istiod}}
    spec: {containers: [{name: discovery, image: "localhost/busybox:dev"}]}
"""


def ambit(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ambit", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def read(kubernetes: Kubernetes, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubernetes.kubectl("get", *words, "-o", "json"))
    return found


def newest(kubernetes: Kubernetes, app: str) -> str:
    """The name of the pod that was made last."""
    pods = read(kubernetes, "pods", "-n", SYSTEM, "-l", app)["items"]
    metadata = max((each["metadata"] for each in pods), key=lambda each: str(each["creationTimestamp"]))
    return str(metadata["name"])


def says(kubernetes: Kubernetes, pod: str, text: str) -> None:
    """Waits until the pod's log has it."""
    words = ("-n", SYSTEM, "logs", pod)
    kubernetes.wait(f"{pod} says: {text}", lambda: text in kubernetes.kubectl(*words, check=False))


def _may_list(kubernetes: Kubernetes, role: str, resource: str) -> bool:
    account = {"ambit-node": "ztunnel"}.get(role, role)
    words = ("auth", "can-i", "list", resource, "-A", "--as", f"system:serviceaccount:{SYSTEM}:{account}")
    return kubernetes.kubectl(*words, check=False).strip() == "yes"


@contextmanager
def without_permission(kubernetes: Kubernetes, role: str, resource: str) -> Iterator[None]:
    """The ClusterRole says nothing of that resource."""
    value = read(kubernetes, "clusterrole", role)
    kept = [
        {**rule, "resources": [each for each in rule["resources"] if each != resource]}
        for rule in value["rules"]
    ]
    reduced = json.dumps(
        [{"op": "replace", "path": "/rules", "value": [each for each in kept if each["resources"]]}]
    )
    whole = json.dumps([{"op": "replace", "path": "/rules", "value": value["rules"]}])
    kubernetes.kubectl("patch", "clusterrole", role, "--type=json", "-p", reduced)
    try:
        # The API server decides by a copy of the role, which comes a little later.
        kubernetes.wait("it is refused", lambda: not _may_list(kubernetes, role, resource))
        yield
    finally:
        kubernetes.kubectl("patch", "clusterrole", role, "--type=json", "-p", whole)


def test_a_control_plane_that_may_not_read_policies_serves_nobody(kubernetes: Kubernetes) -> None:
    old = newest(kubernetes, CONTROL)
    restart = ("-n", SYSTEM, "rollout", "restart", "deployment/ambit-control")
    with without_permission(kubernetes, "ambit-control", "authorizationpolicies"):
        kubernetes.kubectl(*restart)
        kubernetes.wait("a new one", lambda: newest(kubernetes, CONTROL) != old)
        new = newest(kubernetes, CONTROL)
        says(kubernetes, new, "cannot watch authorizationpolicies.security.istio.io: ")
        told = ambit("check")
        assert told.returncode == 1
        assert f"pod {new} on node" in told.stdout and "not ready" in told.stdout
        assert f"{new} may not read authorizationpolicies.security.istio.io: " in told.stdout
        # Nothing is taken from the nodes: who may serve stays.
        conditions = read(kubernetes, "pod", old, "-n", SYSTEM)["status"]["conditions"]
        assert [each["status"] for each in conditions if each["type"] == "Ready"] == ["True"]
    kubernetes.rollout(SYSTEM, "deployment/ambit-control")
    kubernetes.kubectl(*restart)  # what was refused it is not in the record of those that run
    kubernetes.rollout(SYSTEM, "deployment/ambit-control")
    kubernetes.wait("its end", lambda: new not in str(read(kubernetes, "pods", "-n", SYSTEM)))
    assert ambit("check", "--wait", "30").returncode == 0


def test_an_agent_that_may_not_read_pods_is_not_ready(kubernetes: Kubernetes, mesh: Mesh) -> None:
    """Its Envoy goes on; the agent says why it does not."""
    with without_permission(kubernetes, "ambit-node", "pods"):
        mesh.kill("node agent", mesh.nodes[0])
        pods = read(kubernetes, "pods", "-n", SYSTEM, "-l", NODE)["items"]
        (name,) = (each["metadata"]["name"] for each in pods if each["spec"]["nodeName"] == mesh.nodes[0])
        says(kubernetes, name, "cannot watch pods: ")
        kubernetes.wait("ambit check says so", lambda: f"pod {name} on node1" in ambit("check").stdout)
    kubernetes.kubectl("delete", "pod", name, "-n", SYSTEM)
    kubernetes.rollout(SYSTEM, "daemonset/ambit-node")
    assert ambit("check", "--wait", "60").returncode == 0


@pytest.fixture
def captured(mesh: Mesh) -> Iterator[str]:
    """The namespace of a captured pod on the first node."""
    with make_namespace(mesh) as namespace:
        mesh.apply(pod("client", mesh.nodes[0], ["sleep", "infinity"], namespace=namespace))
        mesh.kubectl("wait", "-n", namespace, "pod/client", "--for=condition=Ready", "--timeout=60s")
        yield namespace


def token(kubernetes: Kubernetes, pod: dict[str, Any], expires: float) -> str:
    """One of a node agent's, as the API server signs them."""
    account = read(kubernetes, "serviceaccount", "ztunnel", "-n", SYSTEM)["metadata"]
    claims = {
        "iss": "https://kubernetes.default.svc.cluster.local",
        "aud": ["istio-ca"],
        "sub": f"system:serviceaccount:{SYSTEM}:ztunnel",
        "iat": expires - 3600,
        "nbf": expires - 3600,
        "exp": expires,
        "kubernetes.io": {
            "namespace": SYSTEM,
            "pod": {key: pod["metadata"][key] for key in ("name", "uid")},
            "serviceaccount": {key: account[key] for key in ("name", "uid")},
        },
    }
    return jwt.encode(claims, (kubernetes.cluster.pki / "accounts.key").read_text(), "RS256")


def test_an_expired_token_gets_no_certificate(
    kubernetes: Kubernetes, mesh: Mesh, captured: str, tmp_path: Path
) -> None:
    control = read(kubernetes, "pod", newest(kubernetes, CONTROL), "-n", SYSTEM)
    pods = read(kubernetes, "pods", "-n", SYSTEM, "-l", NODE)["items"]
    agent = next(each for each in pods if each["spec"]["nodeName"] == mesh.nodes[0])
    root = read(kubernetes, "configmap", "istio-ca-root-cert", "-n", SYSTEM)["data"]["root-cert.pem"]
    (tmp_path / "root").write_text(root)
    wanted = Identity("cluster.local", captured, "default")

    def asked(expires: float) -> list[str]:
        (tmp_path / "token").write_text(token(kubernetes, agent, expires))
        address = f"{control['status']['podIP']}:15012"
        server = f"istiod.{SYSTEM}.svc"
        place = ControlPlane(address, tmp_path / "root", tmp_path / "token", "Kubernetes", server)

        async def ask() -> list[str]:
            authority = Authority(place)
            try:
                return await authority.sign(wanted, signing_request(wanted, new_key()))
            finally:
                await authority.close()

        return asyncio.run(ask())

    assert len(asked(time.time() + 600)) >= 2  # the same token is good as long as it lasts
    with pytest.raises(AmbitError, match=r"unauthenticated: the token is not valid: .*expired"):
        asked(time.time() - 60)
    says(kubernetes, control["metadata"]["name"], "expired")


def test_an_image_without_envoy_says_so(kubernetes: Kubernetes) -> None:
    """The node's own pod, but with nothing where its image has Envoy, and with nothing of the node in its hands."""
    template = read(kubernetes, "daemonset", "ambit-node", "-n", SYSTEM)["spec"]["template"]["spec"]
    nothing: dict[str, Any] = {"emptyDir": {}}
    template["volumes"] = [
        {"name": each["name"], **nothing} if "hostPath" in each else each for each in template["volumes"]
    ] + [{"name": "no-envoy", **nothing}]
    (container,) = template["containers"]
    container["volumeMounts"].append({"name": "no-envoy", "mountPath": ENVOY})
    value = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "without-envoy", "namespace": SYSTEM},
        "spec": template,
    }
    kubernetes.kubectl("apply", "-f", "-", stdin=json.dumps(value))
    try:
        says(kubernetes, "without-envoy", "the Envoy program is not installed")
    finally:
        kubernetes.kubectl("delete", "pod", "without-envoy", "-n", SYSTEM, "--grace-period=1")


def test_a_second_mesh_is_refused_and_seen(kubernetes: Kubernetes) -> None:
    problem = "Deployment istio-system/istiod belongs to another mesh"
    kubernetes.kubectl("apply", "-f", "-", stdin=OTHER)
    try:
        for words in (("check", "--pre"), ("check",), ("install",)):
            told = ambit(*words)
            assert told.returncode == 1, words
            assert problem in told.stdout + told.stderr, words
    finally:
        kubernetes.kubectl("delete", "-f", "-", stdin=OTHER)
    assert ambit("check", "--pre").returncode == 0
