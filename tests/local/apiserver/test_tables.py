"""Columns: durations, pod states, JSONPath."""

from typing import Any

import pytest

from ambit.local.apiserver.kinds.builtin import KINDS
from ambit.local.apiserver.tables.columns import human
from ambit.local.apiserver.tables.jsonpath import JsonPathError, find
from ambit.local.apiserver.tables.pods import pod_status
from ambit.local.apiserver.tables.table import _BUILTIN


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (330, "5m30s"),
        (3599, "59m"),
        (3 * 3600 + 1200, "3h20m"),
        (20 * 3600, "20h"),
        (50 * 3600, "2d2h"),
        (30 * 86400, "30d"),
        (800 * 86400, "2y70d"),
    ],
)
def test_durations_read_like_kubectls(seconds: int, text: str) -> None:
    assert human(seconds) == text


def pod(*states: dict[str, Any], **status: Any) -> dict[str, Any]:
    statuses = [{"name": "c", "state": state, "ready": "running" in state} for state in states]
    return {"metadata": {}, "spec": {}, "status": {"containerStatuses": statuses, **status}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (pod(phase="Pending"), "Pending"),
        (pod({"running": {}}, phase="Running"), "Running"),
        (pod({"waiting": {"reason": "ErrImagePull"}}, phase="Pending"), "ErrImagePull"),
        (pod({"terminated": {"exitCode": 2}}, phase="Failed"), "ExitCode:2"),
        (pod({"terminated": {"signal": 9}}, phase="Failed"), "Signal:9"),
        (pod(phase="Failed", reason="Evicted"), "Evicted"),
    ],
)
def test_pod_states(body: dict[str, Any], status: str) -> None:
    assert pod_status(body) == status
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert pod_status(body) == "Terminating"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a", [{"b.c": [1, 2]}]),
        (r".a.b\.c[0]", [1]),
        (".a['b.c'][*]", [1, 2]),
        ('.conditions[?(@.type=="Ready")].status', ["True"]),
        (".conditions[-1].type", ["Other"]),
        (".missing.x", []),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    conditions = [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]
    assert find(path, {"a": {"b.c": [1, 2]}, "conditions": conditions}) == found


def test_a_path_outside_the_subset_is_an_error() -> None:
    with pytest.raises(JsonPathError):
        find("..a", {})


def test_columns_belong_to_kinds_that_exist_and_bear_empty_objects() -> None:
    storages = {kind.storage for kind in KINDS}
    for storage, columns in _BUILTIN.items():
        assert storage in storages
        for column in columns:
            column.cell({"metadata": {"name": "x"}})
