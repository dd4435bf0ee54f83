"""What `ambit check --pre` makes of a cluster."""

import asyncio
from typing import Any, cast

import msgspec
import pytest

from ambit.cli.preflight import PRE_CHECKS
from ambit.kube.client import Client
from ambit.kube.errors import NotFound
from ambit.kube.resource import Resource

HELMS = {"meta.helm.sh/release-name": "ambit", "meta.helm.sh/release-namespace": "ambit-system"}


class Cluster:
    """Answers as an API server does."""

    def __init__(self) -> None:
        self.version = {"major": "1", "minor": "31+", "gitVersion": "v1.31.2-eks"}
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.forbidden: set[str] = set()

    async def raw(self, method: str, path: str) -> bytes:
        return msgspec.json.encode(self.version) if path == "/version" else b"ok"

    async def list(self, kind: Resource, namespace: str | None = None, **selectors: str) -> Any:
        key, _, value = selectors.get("label_selector", "").partition("=")
        return [
            each
            for each in self.objects.get(kind.plural, [])
            if namespace in (None, each["metadata"].get("namespace"))
            and (not key or each["metadata"].get("labels", {}).get(key) == value)
        ]

    async def get(self, kind: Resource, name: str, namespace: str) -> Any:
        for each in self.objects.get(kind.plural, []):
            if (each["metadata"]["name"], each["metadata"]["namespace"]) == (name, namespace):
                return each
        raise NotFound(404, "NotFound", name)

    async def create(self, kind: Resource, review: dict[str, Any]) -> Any:
        asked = review["spec"]["resourceAttributes"]
        return {"status": {"allowed": asked["resource"] not in self.forbidden}}

    def put(self, plural: str, name: str, namespace: str = "", *, labels: Any = None, **more: Any) -> None:
        annotations = more.pop("annotations", {})
        metadata = {
            "name": name,
            "namespace": namespace,
            "labels": labels or {},
            "annotations": annotations,
        }
        self.objects.setdefault(plural, []).append({"metadata": metadata, **more})


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def problems(cluster: Cluster, check: str) -> list[str]:
    (found,) = [each for each in PRE_CHECKS if each.id == check]
    return asyncio.run(found.run(cast(Client, cluster)))


def test_an_empty_cluster_is_fine(cluster: Cluster) -> None:
    assert [problems(cluster, each.id) for each in PRE_CHECKS] == [[]] * len(PRE_CHECKS)


def test_an_old_cluster_and_missing_permissions_are_named(cluster: Cluster) -> None:
    cluster.version = {"major": "1", "minor": "24", "gitVersion": "v1.24.1"}
    assert "v1.24.1, older than" in problems(cluster, "kubernetes-version")[0]
    cluster.forbidden = {"daemonsets"}
    assert problems(cluster, "permissions") == [
        "you may not create daemonsets.apps in namespace ambit-system"
    ]


def test_nodes_that_envoy_is_not_published_for(cluster: Cluster) -> None:
    for name, system, architecture in (
        ("a", "linux", "arm64"),
        ("b", "linux", "s390x"),
        ("w", "windows", "x"),
    ):
        info = {"operatingSystem": system, "architecture": architecture}
        cluster.put("nodes", name, status={"nodeInfo": info})
    (problem,) = problems(cluster, "nodes-fit")
    assert problem.startswith("node b is s390x")


def test_what_is_of_ambit_without_helm_is_named_and_nothing_else(cluster: Cluster) -> None:
    cluster.put("deployments", "theirs", "ambit-system")
    cluster.put("deployments", "ambit-control", "elsewhere")
    cluster.put("deployments", "ambit-control", "ambit-system", annotations=HELMS)
    assert problems(cluster, "release") == []
    cluster.put("daemonsets", "ambit-node", "ambit-system", annotations={**HELMS, next(iter(HELMS)): "other"})
    assert problems(cluster, "release") == [
        "DaemonSet ambit-system/ambit-node is there, but not as Helm's release 'ambit'"
    ]


def test_another_mesh_and_a_cilium_that_leaves_no_room(cluster: Cluster) -> None:
    cluster.put("daemonsets", "ambit-node", "ambit-system", labels={"app": "ztunnel"})
    assert problems(cluster, "no-other-mesh") == []
    cluster.put("deployments", "istiod", "istio-system", labels={"app": "istiod"})
    assert problems(cluster, "no-other-mesh") == ["Deployment istio-system/istiod belongs to another mesh"]
    data = {"cni-exclusive": "true", "bpf-lb-sock": "true"}
    cluster.put("configmaps", "cilium-config", "kube-system", data=data)
    assert [each.split()[1] for each in problems(cluster, "cilium")] == ["removes", "translates"]
    data["cni-exclusive"], data["bpf-lb-sock-hostns-only"] = "false", "true"
    assert problems(cluster, "cilium") == []
