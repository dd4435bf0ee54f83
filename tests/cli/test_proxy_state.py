"""What `-n` leaves of a node proxy's dump."""

from ambit.cli.commands.proxy_state import only

LISTED = [{"namespace": "shop", "name": "web"}, {"namespace": "bank", "name": "web"}]
STATES = {"1": {"info": {"namespace": "shop"}}, "2": {"info": {"namespace": "bank"}}}


def test_one_namespace_is_left() -> None:
    assert only(LISTED, "shop") == LISTED[:1]
    assert only(STATES, "bank") == {"2": STATES["2"]}
    assert only(LISTED, "none") == []


def test_without_a_namespace_everything_is_left() -> None:
    assert only(LISTED, None) is LISTED
    assert only(STATES, None) is STATES
