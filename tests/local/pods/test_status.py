from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.pods.shim.protocol import ContainerState
from ambit.local.pods.status import Facts, Slot, lost_state, phase_of, status_of

FACTS = Facts(("10.244.1.2",), ("172.30.0.11",), "2026-01-01T00:00:00Z", True, "2026-01-01T00:00:05Z")
POD = {"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "a"}]}}


def state(exit_code: int | None, attempt: int = 0) -> ContainerState:
    return {
        "name": "a",
        "attempt": attempt,
        "pid": 2,
        "started": 1.0,
        "finished": None if exit_code is None else 2.0,
        "exit_code": exit_code,
        "signal": None,
    }


def slot(current: ContainerState | None, **changes: Any) -> Slot:
    values = {"name": "a", "image": "i", "kind": "main", "restart": "Always", **changes}
    return Slot(current=current, **values)


@pytest.mark.parametrize(
    ("slots", "policy", "phase"),
    [
        ([slot(None)], "Always", "Pending"),
        ([slot(state(None))], "Always", "Running"),
        ([slot(state(0))], "Always", "Running"),
        ([slot(state(0), restart="Never")], "Never", "Succeeded"),
        ([slot(state(1), restart="Never")], "Never", "Failed"),
        ([slot(state(1), restart="OnFailure")], "OnFailure", "Running"),
        ([slot(state(0), restart="OnFailure")], "OnFailure", "Succeeded"),
        ([slot(state(0), restart="Never"), slot(state(None), restart="Never")], "Never", "Running"),
        ([slot(state(1), kind="init", restart="OnFailure"), slot(None)], "Always", "Pending"),
        ([slot(state(1), kind="init", restart="Never"), slot(None, restart="Never")], "Never", "Failed"),
        ([slot(state(None), kind="sidecar"), slot(None)], "Always", "Pending"),
        (
            [slot(state(None), kind="sidecar", started=True), slot(state(0), restart="Never")],
            "Never",
            "Succeeded",
        ),
    ],
)
def test_phase(slots: list[Slot], policy: str, phase: str) -> None:
    assert phase_of(slots, policy) == phase


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(item for item in status["conditions"] if item["type"] == kind)


def test_ready_follows_containers_and_names_the_unready() -> None:
    ready = status_of(POD, [slot(state(None), ready=True, started=True)], FACTS)
    assert condition(ready, "Ready")["status"] == "True"
    unready = status_of(POD, [slot(state(None), started=True)], FACTS)
    assert condition(unready, "Ready")["message"] == "containers with unready status: [a]"
    assert condition(unready, "ContainersReady")["reason"] == "ContainersNotReady"


def test_transition_times_change_with_the_status_only() -> None:
    first = status_of(POD, [slot(state(None))], FACTS)
    later = msgspec.structs.replace(FACTS, now="9")
    second = status_of({**POD, "status": first}, [slot(state(None), ready=True)], later)
    assert condition(second, "Ready")["lastTransitionTime"] == "9"
    assert condition(second, "PodScheduled")["lastTransitionTime"] == FACTS.now
    assert status_of({**POD, "status": first}, [slot(state(None))], later) == first


def test_conditions_of_others_stay_and_gate() -> None:
    spec = {"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "example.com/ok"}]}
    serving = [slot(state(None), ready=True)]
    closed = status_of({**POD, "spec": spec}, serving, FACTS)
    assert condition(closed, "Ready")["reason"] == "ReadinessGatesNotReady"
    gate = {"type": "example.com/ok", "status": "True"}
    opened = status_of({**POD, "spec": spec, "status": {"conditions": [gate]}}, serving, FACTS)
    assert condition(opened, "Ready")["status"] == "True"
    assert gate in opened["conditions"]


def test_crash_loop_shows_the_last_end() -> None:
    crashed = slot(state(3, attempt=2), waiting=("CrashLoopBackOff", "back-off"))
    shown = status_of(POD, [crashed], FACTS)["containerStatuses"][0]
    assert shown["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert shown["lastState"]["terminated"]["exitCode"] == 3
    assert shown["restartCount"] == 2


@given(
    st.lists(
        st.builds(
            slot,
            st.one_of(st.none(), st.builds(state, st.sampled_from([None, 0, 1]), st.integers(0, 3))),
            kind=st.sampled_from(["init", "sidecar", "main"]),
            restart=st.sampled_from(["Always", "OnFailure", "Never"]),
            ready=st.booleans(),
            started=st.booleans(),
        ),
        min_size=1,
    )
)
def test_a_ready_pod_has_only_ready_containers(slots: list[Slot]) -> None:
    status = status_of(POD, slots, FACTS)
    if condition(status, "Ready")["status"] == "True":
        assert all(item["ready"] for item in status["containerStatuses"])
        assert status["phase"] in {"Pending", "Running"}
    if status["phase"] in {"Succeeded", "Failed"}:
        assert condition(status, "Ready")["status"] == "False"


@pytest.mark.parametrize("kind", ["main", "init"])
@given(code=st.integers(0, 255), attempt=st.integers(0, 9), waiting=st.booleans())
def test_what_the_api_knows_of_an_ended_container_outlives_its_sandbox(
    kind: str, code: int, attempt: int, waiting: bool
) -> None:
    ended = slot(state(code, attempt), kind=kind, waiting=("CrashLoopBackOff", "") if waiting else None)
    lost = lost_state({**POD, "status": status_of(POD, [ended], FACTS)}, "a", 9.0)
    assert lost is not None
    again = slot(lost, kind=kind)
    assert (again.restarts, again.ended, again.succeeded) == (attempt, True, code == 0)
    assert (lost["started"], lost["finished"], lost["exit_code"]) == (1.0, 2.0, code)


def test_a_container_that_ran_when_its_sandbox_went_has_ended_unseen() -> None:
    lost = lost_state({**POD, "status": status_of(POD, [slot(state(None, 3))], FACTS)}, "a", 9.0)
    assert lost is not None
    assert (lost["attempt"], lost["finished"], lost["exit_code"]) == (3, 9.0, 137)
    assert lost["reason"] == "ContainerStatusUnknown"


def test_a_container_that_never_ran_was_not_lost() -> None:
    assert lost_state(POD, "a", 9.0) is None
    pulling = slot(None, waiting=("ErrImagePull", "no such image"))
    assert lost_state({**POD, "status": status_of(POD, [pulling], FACTS)}, "a", 9.0) is None
