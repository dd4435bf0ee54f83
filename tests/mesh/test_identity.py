"""Certificates of the running mesh: nobody gets one for an identity that is not on their node."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.agent.authority import Authority
from ambit.agent.channel import ControlPlane
from ambit.agent.csr import checked, new_key, signing_request
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.testing.mesh import Mesh

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

POD = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  serviceAccountName: web
  terminationGracePeriodSeconds: 0
  containers: [{name: web, image: busybox:1, command: [sleep, "3600"]}]
"""
SYSTEM = "ambit-system"


@contextlib.contextmanager
def signing_port(mesh: Mesh) -> Iterator[int]:
    """A local port that leads to the control plane's TLS port."""
    with mesh.popen("port-forward", "-n", SYSTEM, "deployment/ambit-control", ":15012") as forward:
        assert forward.stdout is not None
        try:
            yield int(forward.stdout.readline().split("127.0.0.1:")[1].split()[0])
        finally:
            forward.kill()


def control_plane(mesh: Mesh, directory: Path, port: int, token: str) -> ControlPlane:
    """As it is called with this token."""
    root, file = directory / "root.pem", directory / "token"
    path = "jsonpath={.data.root-cert\\.pem}"
    root.write_text(mesh.kubectl("get", "configmap", "istio-ca-root-cert", "-n", SYSTEM, "-o", path).stdout)
    file.write_text(token)
    return ControlPlane(f"localhost:{port}", root, file)


def sign(mesh: Mesh, directory: Path, port: int, token: str, identity: Identity) -> str:
    """The identity of the certificate that is issued, or the refusal."""
    called = control_plane(mesh, directory, port, token)

    async def ask() -> str:
        authority = Authority(called)
        key = new_key()
        try:
            return checked(
                identity, key, await authority.sign(identity, signing_request(identity, key))
            ).identity.uri
        except AmbitError as refusal:
            return refusal.message
        finally:
            await authority.close()

    return asyncio.run(ask())


def node_token(mesh: Mesh, pod: str, audience: str = "istio-ca") -> str:
    """A token of a node agent, bound to its pod: what the agent itself holds."""
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}")
    words = ("create", "token", "ztunnel", "-n", SYSTEM, f"--audience={audience}", *bound)
    return mesh.kubectl(*words).stdout.strip()


def agents(mesh: Mesh) -> dict[str, str]:
    """The pod of each node's agent."""
    found = json.loads(mesh.kubectl("get", "pods", "-n", SYSTEM, "-l", "app=ztunnel", "-o", "json").stdout)
    return {pod["spec"]["nodeName"]: pod["metadata"]["name"] for pod in found["items"]}


@pytest.mark.feature("F9")
def test_a_node_gets_its_own_identities_and_no_others(mesh: Mesh, namespace: str, tmp_path: Path) -> None:
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=POD)
    mesh.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/web", "--timeout=110s")
    node = mesh.kubectl("get", "pod", "web", "-n", namespace, "-o", "jsonpath={.spec.nodeName}").stdout
    by_node = agents(mesh)
    own = by_node.pop(node)
    [(other_node, other)] = by_node.items()
    web = Identity("cluster.local", namespace, "web")
    nobody = Identity("cluster.local", namespace, "nobody")

    with signing_port(mesh) as port:
        assert sign(mesh, tmp_path, port, node_token(mesh, own), web) == web.uri
        refused = sign(mesh, tmp_path, port, node_token(mesh, other), web)
        assert refused.startswith("permission_denied") and other_node in refused
        assert sign(mesh, tmp_path, port, node_token(mesh, own), nobody).startswith("permission_denied")
        for bad in ("nonsense", node_token(mesh, own, audience="other")):
            assert sign(mesh, tmp_path, port, bad, web).startswith("unauthenticated"), bad
        assert sign(mesh, tmp_path, port, unbound_token(mesh), web).startswith("permission_denied")

    def is_told() -> bool:
        log = mesh.kubectl("logs", "-n", SYSTEM, "deployment/ambit-control").stdout
        lines = [line for line in log.splitlines() if "certificate refused" in line]
        told = (web.uri, other_node), (nobody.uri,), ("unauthenticated",)
        return all(any(all(text in line for text in texts) for line in lines) for texts in told)

    mesh.wait("each refusal is told", is_told)


def unbound_token(mesh: Mesh) -> str:
    return mesh.kubectl("create", "token", "ztunnel", "-n", SYSTEM, "--audience=istio-ca").stdout.strip()
