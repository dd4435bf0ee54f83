"""What `ambit node status` says of a node's Envoys."""

from typing import Any

import pytest

from ambit.cli.commands.node import _older, _state

SERVING: dict[str, Any] = {
    "state": "serving",
    "pid": 2,
    "olderPid": None,
    "olderConnections": None,
    "outdated": False,
}


@pytest.mark.parametrize(
    ("held", "said"),
    [(None, "? connections"), (0, "0 connections"), (1, "1 connection"), (2, "2 connections")],
)
def test_after_a_restart_the_newest_serves_and_the_older_drains(held: int | None, said: str) -> None:
    envoy = SERVING | {"state": "draining", "olderPid": 1, "olderConnections": held}
    assert _state(envoy) == "serving"
    assert _older(envoy) == f"pid 1: {said}"


def test_other_states_are_told_as_they_are() -> None:
    envoy = SERVING | {"state": "failed", "pid": None}
    assert (_state(envoy), _older(envoy)) == ("failed", "")


def test_an_envoy_that_is_not_the_installed_one_is_told() -> None:
    assert _state(SERVING | {"outdated": True}) == "serving, outdated"
