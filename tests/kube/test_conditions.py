"""Status conditions."""

from typing import Any

import pytest

from ambit.kube.conditions import has_condition


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ({"conditions": [{"type": "Other", "status": "True"}, {"type": "Ready", "status": "True"}]}, True),
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, False),
        ({"conditions": [{"type": "Other", "status": "True"}]}, False),
        ({"conditions": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_only_true_holds(status: Any, expected: bool) -> None:
    assert has_condition({"status": status}, "Ready") is expected


def test_an_object_without_status() -> None:
    assert not has_condition({}, "Ready")
