"""A certificate is revoked while it is in use: its tunnels are cut, and new connections are refused."""

import datetime as dt
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ambit.ca.authority import Authority
from ambit.ca.trust import Trust
from tests.ca.authorities import revoked_by
from tests.node.test_agent import ended, eventually, open_into, pair
from tests.node.world import World, making, until
from tests.plan.dataplane.network import REFUSED

pytestmark = [pytest.mark.netns, pytest.mark.envoy]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


def publish(world: World, authority: Authority, revoked: list[int]) -> None:
    """As the control plane does."""
    lists = revoked_by(authority, revoked, dt.datetime.now(dt.UTC), dt.timedelta(days=1))
    trust = Trust(authority.roots, lists, authority.signer)
    data = {"root-cert.pem": trust.roots, "ca-crl.pem": trust.revoked, "signer": trust.signer}
    world.api.put(
        "configmaps", {"metadata": {"namespace": "ambit-system", "name": "ambit-trust"}, "data": data}
    )


@pytest.mark.feature("N6")
async def test_a_revoked_certificate_is_refused_though_a_tunnel_is_open(world: World) -> None:
    client, server = await pair(world)
    await eventually(client, server, f"{client.four} 2")
    agents = [world.nodes[name].agent for name in ("node1", "node2")]
    authority = world.control.authority
    publish(world, authority, [])
    await until(lambda: all(agent is not None and agent.trust.trust is not None for agent in agents))
    await eventually(client, server, f"{client.four} 2")
    assert [agent.supervisor.status.current.epoch for agent in agents] == [0, 0]  # type: ignore[union-attr]

    [state] = agents[1].certificates.states()  # type: ignore[union-attr]
    assert state.certificate is not None
    held = client.connect(server.four, 8080)
    held.sendall(b"half")
    await until(lambda: bool(open_into(agents[1], server)))  # type: ignore[arg-type]
    world.control.refusal = "not now"
    publish(world, authority, [state.certificate.serial])
    began = time.monotonic()
    await until(lambda: not open_into(agents[1], server))  # type: ignore[arg-type]
    assert time.monotonic() - began < 10
    await eventually(client, server, REFUSED)
    await until(lambda: [agent.supervisor.status.current.epoch for agent in agents] == [1, 1])  # type: ignore[union-attr]
    for _ in range(3):
        assert await client.says(server) == REFUSED
    held.settimeout(0.2)
    await until(lambda: ended(held))
    held.close()

    # Its own node gets a new one for it.
    world.control.refusal = ""
    await eventually(client, server, f"{client.four} 2")
    assert agents[1].certificates.states()[0].certificate.serial != state.certificate.serial  # type: ignore[union-attr]
