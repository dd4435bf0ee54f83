"""What `-n` leaves of a node proxy's dump."""

from ambit.cli.commands.proxy_state import _policy_rows, only

LISTED = [{"namespace": "shop", "name": "web"}, {"namespace": "bank", "name": "web"}]
STATES = {"1": {"info": {"namespace": "shop"}}, "2": {"info": {"namespace": "bank"}}}


def test_one_namespace_is_left() -> None:
    assert only(LISTED, "shop") == LISTED[:1]
    assert only(STATES, "bank") == {"2": STATES["2"]}
    assert only(LISTED, "none") == []


def test_without_a_namespace_everything_is_left() -> None:
    assert only(LISTED, None) is LISTED
    assert only(STATES, None) is STATES


def test_a_policy_in_dry_run_does_not_look_enforced() -> None:
    said = {"namespace": "shop", "name": "try", "action": "Deny", "scope": "Namespace"}
    dump = {"policies": [said, said | {"dryRun": False}, said | {"dryRun": True}]}
    assert [row[2] for row in _policy_rows(dump)] == ["Deny", "Deny", "Deny (dry run)"]
