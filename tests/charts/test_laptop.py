"""The laptop's own objects and the charts' are the same mesh, and our API server takes the charts' as they are."""

from typing import Any

import pytest
import yaml

from ambit.local.config import ClusterConfig
from ambit.local.layout import StateDirectory
from ambit.local.system import system_objects
from tests.charts.rendered import CASES, golden_objects
from tests.charts.test_rendering import definitions
from tests.local.apiserver.conftest import Client, client, server

__all__ = ["client", "server"]

UNKNOWN = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "PrometheusRule"}
"""What our API server does not know. Helm leaves admission out there, all nodes of a laptop being one user's; rules for
Prometheus are only there when somebody asks for them."""
RBAC = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
PLURALS = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Deployment": "deployments",
    "DaemonSet": "daemonsets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "Namespace": "namespaces",
    "ConfigMap": "configmaps",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "NetworkPolicy": "networkpolicies",
}


def key(value: dict[str, Any]) -> tuple[str, str, str]:
    return value["kind"], value["metadata"].get("namespace", ""), value["metadata"]["name"]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], dict[str, Any]]:
    state = StateDirectory.of("charts")
    return {key(value): value for value in system_objects(ClusterConfig(name="charts"), state)}


@pytest.fixture(scope="module")
def chart() -> dict[tuple[str, str, str], dict[str, Any]]:
    return {key(value): value for value in golden_objects() if value["kind"] not in UNKNOWN}


Objects = dict[tuple[str, str, str], dict[str, Any]]


@pytest.mark.feature("F69")
def test_both_have_the_same_objects(laptop: Objects, chart: Objects) -> None:
    # An installation makes the release's own namespace before Helm runs.
    assert set(chart) == set(laptop) - {("Namespace", "", "ambit-system")}


def test_both_have_the_same_permissions(laptop: Objects, chart: Objects) -> None:
    for one in chart:
        if one[0] in RBAC:
            for field in ("rules", "roleRef", "subjects"):
                assert chart[one].get(field) == laptop[one].get(field), one


def test_both_have_the_same_labels_ports_and_accounts(laptop: Objects, chart: Objects) -> None:
    for one, value in chart.items():
        assert value["metadata"].get("labels", {}).get("app") == laptop[one]["metadata"].get(
            "labels", {}
        ).get("app")
        spec, other = value.get("spec", {}), laptop[one].get("spec", {})
        if one[0] == "Service":
            assert (spec["selector"], spec["ports"]) == (other["selector"], other["ports"])
        if one[0] in {"Deployment", "DaemonSet"}:
            pod, laptops = spec["template"], other["template"]
            assert spec["selector"] == other["selector"]
            assert pod["metadata"]["labels"].items() >= laptops["metadata"]["labels"].items()
            assert pod["spec"]["serviceAccountName"] == laptops["spec"]["serviceAccountName"]
            mine, theirs = pod["spec"]["containers"][0], laptops["spec"]["containers"][0]
            # In a kubelet's container the agent has a keeper; the laptop's containers leave Envoy alone anyway.
            words = [{"keep": "run"}.get(word, word) for word in mine["args"][:2]]
            assert (mine["name"], words) == (theirs["name"], theirs["args"][:2])
            assert mine["readinessProbe"] == theirs["readinessProbe"]


async def test_our_api_server_takes_every_object(client: Client) -> None:
    await client.make("/api/v1/namespaces", {"metadata": {"name": "ambit-system"}})
    for case in CASES:
        for value in golden_objects(case):
            if value["kind"] in UNKNOWN:
                continue
            prefix = "/api/v1" if value["apiVersion"] == "v1" else f"/apis/{value['apiVersion']}"
            namespace = value["metadata"].get("namespace")
            where = f"/namespaces/{namespace}" if namespace else ""
            path = f"{prefix}{where}/{PLURALS[value['kind']]}/{value['metadata']['name']}"
            status, answer = await client.call(
                "PATCH", path, value, media="application/apply-patch+yaml",
                fieldManager="helm", dryRun="All", fieldValidation="Strict",
            )  # fmt: skip
            assert status in (200, 201), answer["message"]


async def test_our_api_server_takes_every_kind(client: Client) -> None:
    definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for text in definitions().values():
        value = yaml.load(text, Loader=yaml.CSafeLoader)
        status, answer = await client.call(
            "PATCH", f"{definition}/{value['metadata']['name']}", value, media="application/apply-patch+yaml",
            fieldManager="helm", dryRun="All", fieldValidation="Strict", force="true",
        )  # fmt: skip
        assert status in (200, 201), answer["message"]
