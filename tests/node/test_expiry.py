"""Certificates that expire while the control plane is away: what happens when it is back."""

import datetime as dt
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from ambit.agent import certificates
from tests.node.test_agent import ended, eventually, pair
from tests.node.world import World, making, until
from tests.plan.dataplane.network import REFUSED

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
LIFE = dt.timedelta(seconds=8)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


async def test_expired_certificates_are_renewed_as_soon_as_the_control_plane_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue = world.control.authority.issue
    monkeypatch.setattr(world.control.authority, "issue", partial(issue, lifetime=LIFE))
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    # As after some minutes without control plane.
    monkeypatch.setattr(certificates, "_FIRST_RETRY", 600.0)
    monkeypatch.setattr(certificates, "_LAST_RETRY", 600.0)
    await world.control.stop()
    agents = [agent for name in ("node1", "node2") if (agent := world.nodes[name].agent) is not None]

    def have_long_back_off() -> bool:
        now = time.time()
        return all(each.due > now + 300 for agent in agents for each in agent.certificates.states())

    await until(have_long_back_off)
    monkeypatch.setattr(world.control.authority, "issue", issue)
    await world.control.start()
    await until(lambda: all(agent.subscription.stream.connected for agent in agents))
    began = time.monotonic()
    await until(
        lambda: all(
            each.certificate is not None and each.certificate.valid(time.time())
            for agent in agents
            for each in agent.certificates.states()
        )
    )
    await eventually(client, server, f"{client.four} 2")
    assert time.monotonic() - began < 30, "it does not wait for the end of the back-off"


async def test_no_connection_opens_in_a_tunnel_whose_certificate_has_expired(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue = world.control.authority.issue
    monkeypatch.setattr(world.control.authority, "issue", partial(issue, lifetime=LIFE))
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    held = client.connect(server.four, 8080)
    held.sendall(b"half")
    await world.control.stop()
    await eventually(client, server, REFUSED)
    for _ in range(3):
        assert await client.says(server) == REFUSED
    held.settimeout(0.5)
    assert not ended(held), "what was open may end by itself"
    held.close()
    monkeypatch.setattr(world.control.authority, "issue", issue)
    await world.control.start()
    await eventually(client, server, f"{client.four} 2")
