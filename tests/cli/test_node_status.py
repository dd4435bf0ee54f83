"""What `ambit node status` says of a node's Envoys."""

from typing import Any

import pytest

from ambit.cli.commands.node import _older, _state


@pytest.mark.parametrize(
    ("held", "said"),
    [(None, "? connections"), (0, "0 connections"), (1, "1 connection"), (2, "2 connections")],
)
def test_after_a_restart_the_newest_serves_and_the_older_drains(held: int | None, said: str) -> None:
    envoy: dict[str, Any] = {"state": "draining", "pid": 2, "olderPid": 1, "olderConnections": held}
    assert _state(envoy) == "serving"
    assert _older(envoy) == f"pid 1: {said}"


def test_other_states_are_told_as_they_are() -> None:
    envoy: dict[str, Any] = {"state": "failed", "pid": None, "olderPid": None, "olderConnections": None}
    assert (_state(envoy), _older(envoy)) == ("failed", "")
