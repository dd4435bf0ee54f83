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


ASKED = {
    "time": 5.0,
    "reporter": "source",
    "node": "node1",
    "source": {"address": "10.244.1.3:40000", "workload": "client", "identity": "spiffe://a/ns/b/sa/c"},
    "destination": {"address": "10.244.2.2:8080", "service": "default/web"},
    "request": {"id": "1f", "code": 403, "details": "via_upstream"},
}
DECIDED = {
    **ASKED,
    "reporter": "destination",
    "node": "node2",
    "decision": "deny",
    "policy": "default/no-admin[0]",
    "request": {"id": "1f", "code": 403, "details": "rbac_access_denied"},
}


def test_the_rule_of_a_request_is_told_of_the_source() -> None:
    told = agreed([ASKED, DECIDED])
    known = {"decision": "deny", "policy": "default/no-admin[0]", "request": DECIDED["request"]}
    assert told == [ASKED | known, DECIDED]
    allowed = {**DECIDED, "decision": "allow", "dryRun": "default/trial[0]"}
    policies = {"decision": "allow", "policy": "default/no-admin[0]", "dryRun": "default/trial[0]"}
    assert agreed([ASKED, allowed]) == [ASKED | policies, allowed]


def test_of_several_tries_the_newest_counts() -> None:
    first = {**DECIDED, "time": 6.0, "policy": "default/first[0]"}
    last = {**DECIDED, "time": 7.0, "policy": "default/last[0]"}
    assert agreed([last, ASKED, first])[1]["policy"] == "default/last[0]"


@pytest.mark.parametrize(
    "changed",
    [
        {"request": {"id": "2f", "code": 403}},
        {"request": {"id": "", "code": 403}},
        {"request": {"id": "1f", "code": 200}},
        {"source": {"address": "10.244.1.3:40000", "identity": "spiffe://a/ns/b/sa/other"}},
        {"destination": {"address": "10.244.2.3:8080"}},
        {"reporter": "waypoint"},
    ],
)
def test_of_no_other_request(changed: dict[str, Any]) -> None:
    flows = [ASKED, DECIDED | changed]
    assert agreed(flows) == flows
