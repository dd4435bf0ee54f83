"""What the server's node knows of a connection is told of both sides."""

from typing import Any

import pytest

from ambit.cli.both_sides import agreed

TRACE = "0af7651916cd43dd8448eb211c80319c"
SOURCE = {
    "reporter": "source",
    "node": "node1",
    "source": {"address": "10.244.1.3:40000", "workload": "client"},
    "destination": {"address": "10.244.2.2:8080", "service": "default/web"},
    "dryRun": "default/trial[0]",
    "trace": TRACE,
}
CUT = {
    "reporter": "destination",
    "node": "node2",
    "source": {"address": "10.244.1.3:51000"},
    "destination": {"address": "10.244.2.2:8080"},
    "decision": "deny",
    "policy": "default/new[0]",
    "cut": True,
    "trace": TRACE,
}


def test_a_cut_is_told_of_the_source_with_the_policy_and_nothing_else_changes() -> None:
    told = agreed([SOURCE, CUT])
    usual = {key: value for key, value in SOURCE.items() if key != "dryRun"}
    assert told == [usual | {"decision": "deny", "policy": "default/new[0]", "cut": True}, CUT]
    assert "cut" not in SOURCE


@pytest.mark.parametrize(
    ("changed", "of"),
    [
        ({"trace": "f" * 32}, SOURCE),
        ({"trace": ""}, SOURCE),
        ({"error": "connect timeout"}, SOURCE),
        ({"decision": "deny", "policy": "default/other[0]"}, SOURCE),
        ({"reporter": "destination"}, SOURCE),
        ({"cut": False}, CUT),
        ({"reporter": "source"}, CUT),
        ({"source": {"address": "10.244.1.4:51000"}}, CUT),
        ({"destination": {"address": "10.244.2.2:8081"}}, CUT),
        ({"trace": ""}, CUT),
    ],
)
def test_of_no_other_connection(changed: dict[str, Any], of: dict[str, Any]) -> None:
    flows = [each | changed if each is of else each for each in (SOURCE, CUT)]
    assert agreed(flows) == flows


def test_without_a_trace_nothing_is_joined() -> None:
    flows = [{**SOURCE, "trace": ""}, {**CUT, "trace": ""}]
    assert agreed(flows) == flows
