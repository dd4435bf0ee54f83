"""Pods that have addresses of one family only, as in clusters of one family, among those that have both."""

import asyncio
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ambit.core.dns import Type
from ambit.model.service import Service, VirtualAddress
from ambit.model.workload import Port
from ambit.node.capture import apply as capture
from ambit.node.netns.enter import in_namespace
from tests.node.test_agent import deny, eventually
from tests.node.world import World, making, until
from tests.plan.dataplane.network import REFUSED

pytestmark = [pytest.mark.netns, pytest.mark.envoy, pytest.mark.feature("F86")]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with making(tmp_path) as world:
        yield world


@pytest.mark.parametrize("method", ["nat", "tproxy"])
@pytest.mark.parametrize("family", [4, 6])
async def test_a_pod_of_one_family_is_captured_like_others(world: World, family: int, method: str) -> None:
    one, two = await world.node("node1", capture=method), await world.node("node2", capture=method)
    client = await world.pod("client", one, "client", family=family)
    near = await world.pod("near", one, "near", family=family)
    both = await world.pod("both", two, "both")
    far = await world.pod("far", two, "far", family=family)
    v6 = family == 6
    own = str(client.addresses[0])
    for server in (near, both, far):
        server.listen(8080)
        await eventually(client, server, f"{own} 2", v6=v6)
    for pod in (client, far):
        assert pod.node.agent is not None
        sandbox = pod.node.agent.enroller.sandboxes[pod.uid]
        assert sandbox.transparent is (method == "tproxy")
        assert await capture.is_redirected(sandbox.netns, sandbox.capture)
    # Plain text from outside meets policy as well, and what is denied is refused.
    outside = await asyncio.to_thread(world.network.host, "outside")
    address = far.addresses[0]
    assert await asyncio.to_thread(outside.ask, address, 8080) == f"{outside.addresses[v6]} 2"
    await world.control.put(deny("client"))
    await eventually(client, far, REFUSED, v6=v6)
    assert await near.says(far, v6=v6) == f"{near.addresses[0]} 2"


@pytest.mark.parametrize("family", [4, 6])
async def test_its_questions_are_answered_and_it_reaches_the_service(world: World, family: int) -> None:
    node = await world.node("node1")
    client = await world.pod("client", node, "client", family=family)
    server = await world.pod("server", node, "server", family=family)
    server.listen(8080)
    virtual = ipaddress.ip_address({4: "10.99.0.1", 6: "fd99::1"}[family])
    await world.control.put(
        Service(
            name="web",
            namespace="default",
            hostname="web.default.svc.cluster.local",
            addresses=(VirtualAddress("", virtual),),
            ports=(Port(80, 8080),),
        )
    )
    assert node.agent is not None
    await until(lambda: bool(list(node.agent.state.services_by_hostname("web.default.svc.cluster.local"))))
    resolver = {4: "10.77.255.254", 6: "fd77::ffff"}[family]
    answer = await asyncio.to_thread(in_namespace, client.netns, lambda: question(resolver, family))
    assert answer.endswith(virtual.packed)


def question(resolver: str, family: int) -> bytes:
    """What a resolver says about web.default.svc.cluster.local, in the addresses of this family."""
    name = b"".join(bytes([len(each)]) + each for each in b"web.default.svc.cluster.local".split(b"."))
    kind = Type.A if family == 4 else Type.AAAA
    with socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        asking.settimeout(60)
        asking.sendto(
            struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack(">BHH", 0, kind, 1), (resolver, 53)
        )
        return asking.recv(4096)
