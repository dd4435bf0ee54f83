"""Which nodes get a daemon pod, and how updates move over them."""

from typing import Any

from ambit.local.controllers.daemon_set import plan_daemons
from ambit.local.controllers.revisions import HASH_LABEL

Object = dict[str, Any]


def node(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name, "labels": {"disk": name[-1]}}, "spec": spec, "status": {}}


def daemon(update: Object | None = None, **pod_spec: Any) -> Object:
    spec: Object = {"template": {"metadata": {}, "spec": pod_spec}}
    if update:
        spec["updateStrategy"] = update
    return {"metadata": {"name": "d", "namespace": "default", "uid": "d"}, "spec": spec}


def pod(
    on: str, digest: str = "new", ready: bool = True, phase: str = "Running", deleting: bool = False
) -> Object:
    metadata: Object = {"name": f"d-{on}-{digest}", "labels": {HASH_LABEL: digest}}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": metadata,
        "spec": {"nodeName": on},
        "status": {"phase": phase, "conditions": [condition]},
    }


NODES = [node("n1"), node("n2"), node("n3")]


def deleted(plan: Any) -> list[str]:
    return [item["spec"]["nodeName"] for item in plan.delete]


def test_one_pod_per_matching_node_even_if_cordoned_or_not_ready() -> None:
    plan = plan_daemons(daemon(), [node("n1", unschedulable=True), node("n2")], [], "new", 0)
    assert (plan.create, plan.desired) == (("n1", "n2"), 2)
    plan = plan_daemons(daemon(nodeSelector={"disk": "2"}), NODES, [pod("n1")], "new", 0)
    assert (plan.create, deleted(plan), plan.misscheduled) == (("n2",), ["n1"], 1)


def test_tainted_nodes_need_a_toleration() -> None:
    tainted = node("n1", taints=[{"key": "gpu", "effect": "NoSchedule"}])
    assert plan_daemons(daemon(), [tainted], [], "new", 0).create == ()
    assert plan_daemons(daemon(), [tainted], [pod("n1")], "new", 0).delete == ()
    tolerant = daemon(tolerations=[{"operator": "Exists"}])
    assert plan_daemons(tolerant, [tainted], [], "new", 0).create == ("n1",)


def test_an_ending_pod_holds_its_node_and_a_failed_one_is_replaced() -> None:
    plan = plan_daemons(daemon(), NODES[:1], [pod("n1", deleting=True)], "new", 0)
    assert (plan.create, plan.delete) == ((), ())
    plan = plan_daemons(daemon(), NODES[:1], [pod("n1", phase="Failed")], "new", 0)
    assert (plan.create, deleted(plan)) == ((), ["n1"])


def test_an_update_moves_one_node_at_a_time_but_broken_pods_go_at_once() -> None:
    pods = [pod("n1", "old"), pod("n2", "old"), pod("n3", "old")]
    assert len(deleted(plan_daemons(daemon(), NODES, pods, "new", 0))) == 1
    pods = [pod("n1", "new", ready=False), pod("n2", "old"), pod("n3", "old")]
    assert deleted(plan_daemons(daemon(), NODES, pods, "new", 0)) == []
    pods = [pod("n1"), pod("n2", "old", ready=False), pod("n3", "old")]
    assert deleted(plan_daemons(daemon(), NODES, pods, "new", 0)) == ["n2"]


def test_on_delete_never_moves_by_itself() -> None:
    plan = plan_daemons(daemon({"type": "OnDelete"}), NODES[:1], [pod("n1", "old")], "new", 0)
    assert plan.delete == ()


def test_of_two_pods_on_a_node_one_goes() -> None:
    twin = pod("n1", "twin", ready=False)
    assert [
        p["metadata"]["name"] for p in plan_daemons(daemon(), NODES[:1], [twin, pod("n1")], "new", 0).delete
    ] == ["d-n1-twin"]
