"""Who sees hosts outside, as the mesh's settings say."""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.testing.laptop import LaptopMesh
from ambit.testing.plugin import start_mesh
from tests.mesh.pods import apply_in, web_and_client
from tests.mesh.test_dns import entry, resolve

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("on Kubernetes the settings are a value of the chart: tests/charts"),
]
SETTINGS = """
serviceEntryVisibility:
  defaultVisibility: NAMESPACE
  policies:
  - visibility: PUBLIC
    matchingRules: [{namespaceSelector: {matchLabels: {team: edge}}}]
  - visibility: NONE
    matchingRules: [{namespaceSelector: {matchLabels: {team: closed}}}]
"""
CONDITION = "{.status.conditions[?(@.type=='istio.io/VisibilityApplied')].reason}"
SHOP, EDGE = "pay.example", "api.example"


@pytest.fixture
def own(kubectl_program: str | None) -> Iterator[LaptopMesh]:
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        file = Path(root) / "mesh.yaml"
        file.write_text(SETTINGS)
        mesh = start_mesh(Path(root), kubectl_program, "--nodes", "1", "--mesh-config", str(file))
        file.unlink()
        try:
            yield mesh
        finally:
            mesh.ambit("down")


def reason(mesh: LaptopMesh, namespace: str) -> str:
    return mesh.kubectl("get", "serviceentry", "one", "-n", namespace, "-o", f"jsonpath={CONDITION}").stdout


def set_up(mesh: LaptopMesh, settings: str) -> subprocess.CompletedProcess[str]:
    """Other settings for the running mesh."""
    mesh.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "ambit-mesh-config", "namespace": "ambit-system"},
            "data": {"mesh.yaml": settings},
        }
    )
    return mesh.kubectl("-n", "ambit-system", "rollout", "restart", "deployment/ambit-control")


@pytest.mark.feature("N47")
def test_settings_hide_hosts_from_other_namespaces(own: LaptopMesh) -> None:
    for namespace, labels, host, ip in (
        ("shop", {}, SHOP, "240.99.0.1"),
        ("edge", {"team": "edge"}, EDGE, "240.99.0.2"),
    ):
        own.create_namespace(namespace, {"istio.io/dataplane-mode": "ambient", **labels})
        own.wait_for_account(namespace)
        outside = entry("one", host, addresses=[ip], resolution="STATIC")
        apply_in(own, namespace, [web_and_client()[-1], outside])

    def seen(namespace: str) -> dict[str, object]:
        return resolve(own, namespace, SHOP, EDGE)

    own.wait("shop sees both", lambda: seen("shop") == {SHOP: ["240.99.0.1"], EDGE: ["240.99.0.2"]})
    assert seen("edge") == {SHOP: True, EDGE: ["240.99.0.2"]}, "for others the host does not exist"
    own.wait("statuses say so", lambda: (reason(own, "shop"), reason(own, "edge")) == ("Namespace", "Public"))

    own.kubectl("label", "namespace", "edge", "team=closed", "--overwrite")
    own.wait("nobody sees it any more", lambda: seen("edge")[EDGE] is True and seen("shop")[EDGE] is True)
    own.wait("its status says so", lambda: reason(own, "edge") == "None")

    set_up(own, "{}")
    everything = {SHOP: ["240.99.0.1"], EDGE: ["240.99.0.2"]}
    own.wait("without settings all see all", lambda: seen("shop") == everything == seen("edge"))
    own.wait("and statuses say nothing", lambda: (reason(own, "shop"), reason(own, "edge")) == ("", ""))

    set_up(own, "serviceEntryVisibilty: {}")

    def refusal() -> bool:
        logs = own.kubectl("-n", "ambit-system", "logs", "-l", "app=istiod", "--tail=20", check=False)
        return "serviceEntryVisibilty is not known" in logs.stdout

    own.wait("a control plane does not start with what it does not know", refusal)
    assert seen("edge") == everything, "the one that runs goes on"
