"""Which node a pod gets."""

from typing import Any

import pytest

from ambit.local.controllers.scheduler import choose_node

Object = dict[str, Any]


def node(name: str, ready: bool = True, **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "disk": name[-1]}},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def pod(name: str, owner: str = "", on: str = "", **spec: Any) -> Object:
    metadata: Object = {"name": name, "namespace": "default", "uid": name, "labels": {"app": owner}}
    if owner:
        metadata["ownerReferences"] = [
            {"uid": owner, "kind": "ReplicaSet", "name": owner, "controller": True}
        ]
    return {"metadata": metadata, "spec": {"nodeName": on, **spec}, "status": {"phase": "Running"}}


NODES = [node("node1"), node("node2"), node("node3")]


def required(*expressions: Object) -> Object:
    terms = {"nodeSelectorTerms": [{"matchExpressions": list(expressions)}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def test_siblings_are_spread_before_load_counts() -> None:
    placed = [
        pod("a1", "a", "node1"),
        pod("b1", "b", "node2"),
        pod("b2", "b", "node2"),
        pod("a2", "a", "node3"),
    ]
    assert choose_node(pod("a3", "a"), NODES, placed) == "node2"
    assert choose_node(pod("c1", "c"), NODES, placed) == "node1"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"nodeSelector": {"disk": "3"}}, "node3"),
        ({"nodeSelector": {"disk": "9"}}, None),
        ({"affinity": required({"key": "disk", "operator": "NotIn", "values": ["1"]})}, "node2"),
        ({"affinity": required({"key": "disk", "operator": "Gt", "values": ["2"]})}, "node3"),
        ({"affinity": required({"key": "gpu", "operator": "Exists"})}, None),
        ({"affinity": required({"key": "gpu", "operator": "DoesNotExist"})}, "node1"),
    ],
)
def test_node_constraints(spec: Object, expected: str | None) -> None:
    assert choose_node(pod("p", **spec), NODES, []) == expected


def test_unready_cordoned_and_tainted_nodes_are_avoided() -> None:
    taint = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
    nodes = [node("node1", ready=False), node("node2", unschedulable=True), node("node3", taints=[taint])]
    assert choose_node(pod("p"), nodes, []) is None
    toleration = {"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}
    assert choose_node(pod("p", tolerations=[toleration]), nodes, []) == "node3"
    assert choose_node(pod("p", tolerations=[{"operator": "Exists"}]), nodes, []) == "node3"
    assert choose_node(pod("p", tolerations=[{**toleration, "value": "no"}]), nodes, []) is None


def test_anti_affinity_keeps_apart() -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    placed = [pod("a1", "a", "node1"), pod("a2", "a", "node2")]
    assert choose_node(pod("a3", "a", affinity=affinity), NODES, placed) == "node3"
    placed.append(pod("a4", "a", "node3"))
    assert choose_node(pod("a3", "a", affinity=affinity), NODES, placed) is None


def test_ended_pods_do_not_count() -> None:
    ended = pod("a1", "a", "node1")
    ended["status"]["phase"] = "Succeeded"
    assert choose_node(pod("a2", "a"), NODES, [ended]) == "node1"
