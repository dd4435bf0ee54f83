"""The pauses between attempts to reach the control plane."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ambit.agent.control_stream import ControlStream
from ambit.core.errors import Unreachable
from ambit.xds.client_session import ClientSession
from ambit.xds.frames import Node
from ambit.xds.messages import TYPES

ATTEMPTS = 20


class Away:
    """A control plane to which no connection can be made."""

    address = "control:15012"

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[None]:
        raise Unreachable("away")
        yield


async def test_agent_tries_again_within_two_seconds_however_long_the_control_plane_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pod that became ready beside one node's agent is reachable from other nodes when their agents are back."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == ATTEMPTS:
            raise asyncio.CancelledError

    monkeypatch.setattr("ambit.agent.control_stream.asyncio.sleep", sleep)
    control: Any = Away()
    take: Any = None
    session = ClientSession(TYPES, Node(id="node"), lambda _: {})
    with pytest.raises(asyncio.CancelledError):
        await ControlStream(control, session, take, logging.getLogger("test")).run()
    assert pauses[0] <= 0.02
    assert max(pauses) <= 2.0
    assert pauses[-1] >= 1.0
