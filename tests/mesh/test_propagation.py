"""What is written to the API server reaches every node proxy, and the control plane counts what it sends."""

import re
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

SYSTEM = "ambit-system"
PUSHED = re.compile(r'^pilot_xds_pushes\{type="(?:wds|wads)"\} (\d+)$', re.MULTILINE)
READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


def names(mesh: Mesh, node: str, kind: str, namespace: str) -> list[str]:
    """What a node's proxy knows of a namespace."""
    return [each["name"] for each in mesh.dump(kind, "--node", node) if each["namespace"] == namespace]


def pushes(mesh: Mesh) -> int:
    words = ("get", "pod", "-n", SYSTEM, "-l", "app=istiod", "-o", "name")
    total = 0
    for plane in mesh.kubectl(*words).stdout.split():
        url = "http://localhost:15014/metrics"
        text = mesh.exec(SYSTEM, plane, "python3", "-c", READ, url).stdout
        total += sum(int(count) for count in PUSHED.findall(text))
    return total


@pytest.mark.feature("F18", "F152")
def test_every_change_reaches_every_proxy(mesh: Mesh, namespace: str) -> None:
    def known(kind: str, count: int) -> None:
        mesh.wait(
            f"every node knows {count} {kind}",
            lambda: all(len(names(mesh, node, kind, namespace)) == count for node in mesh.nodes),
        )

    before = pushes(mesh)
    template = pod("web", mesh.nodes[0], ["sleep", "3600"], labels={"app": "web"})
    template["spec"]["restartPolicy"] = "Always"
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": template["spec"]},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
        },
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "nobody"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
        },
    ]
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(objects))
    known("workloads", 1)
    known("services", 1)
    known("policies", 1)
    after = pushes(mesh)
    assert after > before
    for replicas in (3, 1):
        mesh.kubectl("scale", "-n", namespace, "deployment/web", f"--replicas={replicas}")
        known("workloads", replicas)
    assert pushes(mesh) > after
    mesh.kubectl("delete", "-n", namespace, "service/web", "authorizationpolicy/nobody")
    known("services", 0)
    known("policies", 0)
