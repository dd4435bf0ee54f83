"""What a running mesh shows of itself is what docs/observe.md says."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.core.names import METRICS_PORT
from ambit.testing.mesh import Mesh
from tests.mesh.pods import known_everywhere, make_namespace, pod
from tests.mesh.traffic import SERVER

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

PAGE = (Path(__file__).parents[2] / "docs/observe.md").read_text()
PLACES = "jsonpath={range .items[*]}{.spec.nodeName} {.status.podIP}{'\\n'}{end}"
READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
}


@pytest.fixture(scope="module")
def calls(mesh: Mesh) -> Iterator[str]:
    """A namespace in which one pod called a service on the other node and ended at once."""
    with make_namespace(mesh) as name:
        server = pod("web", mesh.nodes[0], ["python3", "-c", SERVER], namespace=name, labels={"app": "web"})
        service = {**SERVICE, "metadata": {"name": "web", "namespace": name}}
        mesh.apply([service, server])
        mesh.kubectl("wait", "-n", name, "pod/web", "--for=condition=Ready", "--timeout=110s")
        known_everywhere(mesh, name, "web", service="web")
        once = ["curl", "-sS", "--retry", "5", "--retry-all-errors", "-m", "30", "http://web/"]
        mesh.apply(pod("once", mesh.nodes[1], once, namespace=name))
        mesh.kubectl(
            "wait", "-n", name, "pod/once", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=110s"
        )
        yield name


@pytest.mark.feature("F14")
def test_both_sides_report_a_pod_that_ended_at_once_with_its_identity(mesh: Mesh, calls: str) -> None:
    def reports() -> dict[str, dict[str, Any]] | None:
        lines = mesh.ambit("flows", "--to", f"{calls}/web", "-o", "json").stdout.splitlines()
        found = {flow["reporter"]: flow for flow in map(json.loads, lines) if flow.get("hop") == "tunnel"}
        return found if set(found) == {"source", "destination"} else None

    for flow in mesh.wait("both sides reported", reports).values():
        assert flow["source"]["identity"] == f"spiffe://cluster.local/ns/{calls}/sa/default"
        assert flow["destination"]["service"] == f"{calls}/web.{calls}.svc.cluster.local"
        assert flow["mutualTls"]
        for field in {*flow, *flow["source"], *flow["destination"]}:
            assert f"`{field}`" in PAGE


@pytest.mark.usefixtures("calls")
def test_every_metric_that_is_served_is_on_the_page_with_its_labels(mesh: Mesh) -> None:
    def served() -> str:
        """Once connections are counted, and the control plane has counted the nodes."""
        proxies = mesh.kubectl("get", "pods", "-n", "ambit-system", "-l", "app=ztunnel", "-o", PLACES).stdout
        nodes = [
            mesh.on_node(node, "curl", "-sS", f"{address}:{METRICS_PORT}/metrics").stdout
            for node, address in (line.split() for line in proxies.splitlines())
        ]
        assert len(nodes) == len(mesh.nodes)
        (plane,) = mesh.kubectl(
            "get", "pod", "-n", "ambit-system", "-l", "app=istiod", "-o", "name"
        ).stdout.split()
        url = "http://localhost:15014/metrics"
        text = "\n".join([*nodes, mesh.exec("ambit-system", plane, "python3", "-c", READ, url).stdout])
        both = "istio_tcp_connections_opened_total{", f"ambit_xds_nodes {len(mesh.nodes)}"
        return text if all(each in text for each in both) else ""

    text = mesh.wait("connections and nodes are counted", served)
    for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE):
        assert f"| `{name}` |" in PAGE
    for label in set(re.findall(r'[{,]([a-z_]+)="', text)):
        assert f"`{label}`" in PAGE
