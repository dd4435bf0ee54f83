import asyncio
import ipaddress
from contextlib import AsyncExitStack

import grpc
import pytest

from ambit.control.discovery import LONG_WRITES, Update
from ambit.core.identity import Identity
from ambit.model.policy import Action, Authorization, Scope
from ambit.model.service import Service, VirtualAddress
from ambit.model.workload import Workload
from ambit.xds import wire
from ambit.xds.frames import Request
from ambit.xds.messages import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    TYPES,
    decode_address,
    from_resource,
    to_resource,
)
from ambit.xds.wire import unpack
from tests.control.world import World, Ztunnel, peer_certificate, pod_json, review


def workload(name, **fields):
    return Workload(
        uid=f"Kubernetes//Pod/shop/{name}",
        name=name,
        namespace="shop",
        identity=Identity("cluster.local", "shop", "web"),
        cluster_id="Kubernetes",
        **fields,
    )


POLICY = Authorization(name="deny", namespace="shop", scope=Scope.WORKLOAD_SELECTOR, action=Action.DENY)


def updates(*values, removed=()):
    by_type = {AUTHORIZATION_TYPE: {}, ADDRESS_TYPE: {}}
    for value in values:
        kind = AUTHORIZATION_TYPE if isinstance(value, Authorization) else ADDRESS_TYPE
        by_type[kind][value.key] = to_resource(value)
    # Workloads first, to see that the server sorts them.
    return [
        Update(ADDRESS_TYPE, by_type[ADDRESS_TYPE], removed),
        Update(AUTHORIZATION_TYPE, by_type[AUTHORIZATION_TYPE]),
    ]


@pytest.fixture
async def world():
    world = World()
    async with world.serving():
        yield world


async def settled(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the condition is the server's own state
            await asyncio.sleep(0.001)


async def test_ztunnel_gets_everything_then_changes(world):
    web = workload("web-0", policies=("shop/deny",))
    world.discovery.publish(updates(web, POLICY))
    async with Ztunnel(world).connected() as node:
        first, second = await node.receive(), await node.receive()
        assert [first.type_url, second.type_url] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]
        assert [from_resource(ADDRESS_TYPE, each) for each in second.resources] == [web]
        other = workload("web-1")
        world.discovery.publish(updates(other, removed=[web.uid]))
        third = await node.receive()
        assert [each.name for each in third.resources] == [other.uid]
        assert third.removed == (web.uid,)
        await settled(lambda: world.discovery.status()[0].types[ADDRESS_TYPE].acknowledged == 2)
        [status] = world.discovery.status()
        assert status.node == "node1"
        assert status.types[ADDRESS_TYPE].sent == 2


async def test_an_empty_mesh_answers_both_types(world):
    async with Ztunnel(world).connected() as node:
        assert {(await node.receive()).type_url, (await node.receive()).type_url} == {
            ADDRESS_TYPE,
            AUTHORIZATION_TYPE,
        }
        assert node.session.synced


@pytest.mark.feature("N49")
async def test_a_reconnect_costs_only_the_difference(world):
    world.discovery.publish(updates(workload("same"), workload("gone"), POLICY))
    node = Ztunnel(world)
    async with node.connected():
        await node.receive()
        await node.receive()
    world.discovery.publish(updates(workload("new"), removed=["Kubernetes//Pod/shop/gone"]))
    async with node.connected():
        policies, workloads = await node.receive(), await node.receive()
        assert policies.resources == ()
        assert [each.name for each in workloads.resources] == ["Kubernetes//Pod/shop/new"]
        assert workloads.removed == ("Kubernetes//Pod/shop/gone",)


async def test_names_on_demand(world):
    web = workload("web-0")
    world.discovery.publish(updates(web, workload("web-1")))
    async with Ztunnel(world, named=[ADDRESS_TYPE]).connected() as node:
        assert (await node.receive()).type_url == AUTHORIZATION_TYPE
        await node.send(node.session.subscribe(ADDRESS_TYPE, [web.uid]))
        assert [each.name for each in (await node.receive()).resources] == [web.uid]
        await node.send(node.session.subscribe(ADDRESS_TYPE, ["nobody"]))
        assert (await node.receive()).removed == ("nobody",)


async def test_addresses_on_demand(world):
    """A stock ztunnel asks for `<network>/<ip>` and waits for a resource of exactly that name."""
    first, second = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::2")
    web = workload("web-0", addresses=(first,))
    vip = VirtualAddress("", ipaddress.ip_address("10.96.0.1"))
    service = Service(name="s", namespace="shop", hostname="s.shop.svc", addresses=(vip,))
    world.discovery.publish(updates(web, service))
    async with Ztunnel(world, named=[ADDRESS_TYPE]).connected() as node, Ztunnel(world).connected() as other:
        await node.receive()
        await other.receive()
        assert len((await other.receive()).resources) == 2

        async def ask_for(*names):
            await node.send(node.session.subscribe(ADDRESS_TYPE, names))
            return await node.receive()

        def values(response):
            return {each.name: decode_address(unpack(each.body)[1]) for each in response.resources}

        assert values(await ask_for("/10.0.0.1", "/10.96.0.1")) == {"/10.0.0.1": web, "/10.96.0.1": service}
        assert (await ask_for("/fd00::2")).removed == ("/fd00::2",)
        later = workload("web-1", addresses=(second,))
        world.discovery.publish(updates(later))
        assert values(await node.receive()) == {"/fd00::2": later}
        assert [each.name for each in (await other.receive()).resources] == [later.uid]
        heir = workload("web-2", addresses=(first,))
        world.discovery.publish(updates(heir, removed=[web.uid]))
        assert values(await node.receive()) == {"/10.0.0.1": heir}
        world.discovery.publish(updates(removed=[heir.uid]))
        assert (await node.receive()).removed == ("/10.0.0.1",)


async def test_rejections_are_shown(world, caplog):
    world.discovery.publish(updates(workload("web-0"), POLICY))
    async with Ztunnel(world).connected() as node:
        await node.receive()
        node.reject = "web-0: bad address"
        await node.receive()
        await settled(lambda: world.discovery.status()[0].types[ADDRESS_TYPE].error)
        assert world.discovery.status()[0].types[ADDRESS_TYPE].error == "web-0: bad address"
        assert world.counters.value("ambit_xds_answers_total", type=ADDRESS_TYPE, answer="nack") == 1
    assert any(each.message == "node rejected configuration" for each in caplog.records)


async def test_who_never_asks_for_policies_gets_workloads_after_a_while(world):
    world.discovery.publish(updates(workload("web-0")))
    node = Ztunnel(world)
    node.session.connect = lambda: [Request(type_url=ADDRESS_TYPE)]
    async with node.connected():
        node.session._stream, node.session._connected = 1, True
        assert len((await node.receive()).resources) == 1


async def ended(world, token):
    async with world.channel() as channel:
        call = channel.stream_stream(wire.METHOD)(metadata=(("authorization", f"Bearer {token}"),))
        return await call.code(), await call.details()


async def test_only_node_agents_may_listen(world):
    world.api.pods.append(pod_json("web-0"))
    world.api.reviews["web"] = review("shop", "web", "web-0", "uid-web-0")
    world.api.reviews["unbound"] = review("ambit-system", "ztunnel", "", "")
    assert await ended(world, "web") == (grpc.StatusCode.PERMISSION_DENIED, "the caller is no node agent")
    assert (await ended(world, "unbound"))[0] is grpc.StatusCode.PERMISSION_DENIED
    assert (await ended(world, "nonsense"))[0] is grpc.StatusCode.UNAUTHENTICATED
    world.api.away = True
    assert (await ended(world, "another"))[0] is grpc.StatusCode.UNAVAILABLE
    assert world.discovery.status() == []


async def test_nonsense_ends_the_stream(world):
    async with Ztunnel(world).connected() as node:
        await node.call.write(b"\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await node.call.read() is not grpc.aio.EOF:
                pass
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await settled(lambda: not world.discovery.status())


async def test_nodes_that_do_not_read_hold_up_nobody_and_miss_nothing(world):
    """As nodes that are stopped, or behind slow links, when all connect at once."""
    many = [workload(f"web-{number}", hostname="h" * 500) for number in range(wire.LONG)]
    world.discovery.publish(updates(*many))
    window = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536))
    slow = [Ztunnel(world, options=window) for _ in range(LONG_WRITES + 1)]
    async with AsyncExitStack() as stack:
        for node in slow:
            await stack.enter_async_context(node.connected())
        await settled(lambda: len(world.discovery.status()) == len(slow))
        async with Ztunnel(world).connected() as quick:
            await quick.receive()
            await quick.receive()
            assert len(quick.kept[ADDRESS_TYPE]) == len(many)
        late = workload("late")
        world.discovery.publish(updates(late, removed=[many[0].uid]))
        for node in slow:
            while late.uid not in node.kept[ADDRESS_TYPE]:
                await node.receive()
            assert node.kept[ADDRESS_TYPE].keys() == {late.uid, *(each.uid for each in many[1:])}


async def test_stopping_tells_nodes_to_come_back_at_once(world):
    async with Ztunnel(world).connected() as node:
        await node.receive()
        await node.receive()
        world.discovery.stop()
        with pytest.raises(grpc.aio.AioRpcError, match="transport is closing") as caught:
            await node.call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "host",
    [
        "istiod.istio-system.svc",
        "istiod.ambit-system.svc.cluster.local",
        "istiod.ambit-system.svc",
        "localhost",
    ],
)
async def test_the_server_is_known_by_all_its_names(world, host):
    certificate = await peer_certificate(world, host)
    assert ("DNS", host) in certificate["subjectAltName"]


async def test_a_policy_counts_as_taken_with_the_workloads_that_name_it(world):
    world.discovery.publish(updates(workload("web-0")))
    node = Ztunnel(world)
    async with node.connected():
        await node.receive()
        await node.receive()
        world.discovery.publish(updates(workload("web-0", policies=("shop/deny",)), POLICY))
        revisions = {kind: world.discovery.store.revision(kind) for kind in TYPES}

        def progress():
            return world.discovery.progress(revisions, [POLICY.key], ["node1"])

        assert (await node.receive()).type_url == AUTHORIZATION_TYPE
        await settled(lambda: world.discovery.status()[0].types[AUTHORIZATION_TYPE].unacknowledged == 0)
        assert progress().behind == ("node1",)
        assert (await node.receive()).type_url == ADDRESS_TYPE
        await settled(lambda: not progress().behind)
        assert progress().nodes == 1


async def test_whoever_waits_for_a_node_hears_that_it_is_gone(world):
    heard = []
    world.discovery.on_gone = lambda _: heard.append([each.node for each in world.discovery.standings()])
    node = Ztunnel(world)
    async with node.connected():
        await node.receive()
        assert heard == []
    await settled(lambda: heard == [[]])
