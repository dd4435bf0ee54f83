"""The order in which a StatefulSet's pods come and go."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ambit.local.controllers.revisions import HASH_LABEL
from ambit.local.controllers.stateful_set import plan_stateful, stateful_pod, stateful_status

Object = dict[str, Any]


def stateful(replicas: int, **spec: Any) -> Object:
    template = {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c"}]}}
    return {
        "metadata": {"name": "db", "namespace": "default", "uid": "s"},
        "spec": {"replicas": replicas, "serviceName": "db", "template": template, **spec},
    }


def pod(ordinal: int, revision: str = "r1", ready: bool = True, deleting: bool = False) -> Object:
    metadata: Object = {"name": f"db-{ordinal}", "namespace": "default", "labels": {HASH_LABEL: revision}}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"metadata": metadata, "spec": {}, "status": {"phase": "Running", "conditions": [condition]}}


def names(pods: Any) -> list[str]:
    return [item["metadata"]["name"] for item in pods]


def test_the_next_waits_for_the_one_before() -> None:
    assert plan_stateful(stateful(3), [], "r1", "r1", 0).create == ((0, "r1"),)
    assert plan_stateful(stateful(3), [pod(0, ready=False)], "r1", "r1", 0).create == ()
    assert plan_stateful(stateful(3), [pod(0)], "r1", "r1", 0).create == ((1, "r1"),)


def test_parallel_starts_all() -> None:
    plan = plan_stateful(stateful(3, podManagementPolicy="Parallel"), [pod(1)], "r1", "r1", 0)
    assert plan.create == ((0, "r1"), (2, "r1"))


def test_the_highest_goes_first() -> None:
    pods = [pod(0), pod(1), pod(2)]
    assert names(plan_stateful(stateful(1), pods, "r1", "r1", 0).delete) == ["db-2"]
    pods[2] = pod(2, deleting=True)
    assert names(plan_stateful(stateful(1), pods, "r1", "r1", 0).delete) == []


def test_a_rolling_update_respects_the_partition() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    value = stateful(3, updateStrategy=strategy)
    assert names(plan_stateful(value, [pod(0), pod(1), pod(2)], "r1", "r2", 0).delete) == ["db-2"]
    assert plan_stateful(value, [pod(0), pod(1)], "r1", "r2", 0).create == ((2, "r2"),)
    half = [pod(0), pod(1), pod(2, "r2", ready=False)]
    assert names(plan_stateful(value, half, "r1", "r2", 0).delete) == []
    assert names(plan_stateful(value, [pod(0), pod(1), pod(2, "r2")], "r1", "r2", 0).delete) == ["db-1"]
    done = [pod(0), pod(1, "r2"), pod(2, "r2")]
    assert plan_stateful(value, done, "r1", "r2", 0).delete == ()
    assert plan_stateful(value, done[1:], "r1", "r2", 0).create == ((0, "r1"),)


def test_names_hosts_and_claims() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {}}
    value = stateful(1, volumeClaimTemplates=[claim])
    made = stateful_pod(value, value["spec"]["template"], 4, "r1")
    assert made["metadata"]["name"] == made["spec"]["hostname"] == "db-4"
    assert made["spec"]["subdomain"] == "db"
    assert made["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-db-4"}}]
    assert made["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "4"


def test_a_finished_update_moves_the_current_revision() -> None:
    status = stateful_status(stateful(2), [pod(0, "r2"), pod(1, "r2")], "r1", "r2", 0)
    assert (status["currentRevision"], status["updatedReplicas"], status["readyReplicas"]) == ("r2", 2, 2)
    status = stateful_status(stateful(2), [pod(0, "r1"), pod(1, "r2")], "r1", "r2", 0)
    assert (status["currentRevision"], status["currentReplicas"], status["updatedReplicas"]) == ("r1", 1, 1)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["r1", "r2"])), max_size=8))
def test_every_history_settles(changes: list[tuple[int, str]]) -> None:
    pods: dict[str, Object] = {}
    current = "r1"
    for replicas, update in [*changes, (3, "r3")]:
        value = stateful(replicas)
        for _ in range(60):
            plan = plan_stateful(value, list(pods.values()), current, update, 0)
            if not plan.create and not plan.delete:
                break
            assert len(plan.create) + len(plan.delete) == 1
            for ordinal, revision in plan.create:
                pods[f"db-{ordinal}"] = pod(ordinal, revision)
            for gone in plan.delete:
                del pods[gone["metadata"]["name"]]
        current = stateful_status(value, list(pods.values()), current, update, 0)["currentRevision"]
        assert sorted(pods) == [f"db-{n}" for n in range(replicas)]
        assert {item["metadata"]["labels"][HASH_LABEL] for item in pods.values()} <= {update}
