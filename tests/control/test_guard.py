"""Strangers on the TLS port: bounded in number and time, and nodes get through."""

import asyncio
import resource
import socket
import ssl
import time

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.control.identity.guard import ConnectionGuard, Limits, _connections, parse_peer, surplus
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.control.world import World, Ztunnel, pod_json

ENDS = 8192
LIMITS = Limits(silent=30, per_peer=5, strangers=20, few=0)


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("ipv4:10.0.0.1:4711", ("10.0.0.1", 4711)),
        ("ipv6:%5Bfd00::1%5D:1", ("fd00::1", 1)),
        ("ipv6:[::ffff:10.0.0.1]:4711", ("10.0.0.1", 4711)),
        ("unix:/run/x.sock", None),
        ("ipv4:nonsense:1", None),
        ("", None),
    ],
)
def test_other_ends(text, peer):
    assert parse_peer(text) == peer


peers = st.tuples(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 200))


@given(st.dictionaries(peers, st.floats(0, 100), max_size=80))
def test_no_address_and_no_crowd_has_too_much(seen):
    gone = surplus(seen, 100.0, LIMITS)
    kept = seen.keys() - gone
    assert len(kept) <= LIMITS.strangers
    for address in "abcd":
        theirs = [peer for peer in seen if peer[0] == address]
        assert len([peer for peer in theirs if peer in kept]) <= LIMITS.per_peer
        young = [peer for peer in theirs if 100.0 - seen[peer] < LIMITS.silent]
        # Who has little keeps it, however many others have.
        if len(young) <= LIMITS.strangers // 4:
            assert set(young[: LIMITS.per_peer]) <= kept or len(young) > LIMITS.per_peer
    assert all(100.0 - seen[peer] < LIMITS.silent for peer in kept)


@pytest.fixture
async def world():
    world = World()
    world.watch_pod(pod_json("agent", "ambit-system", "ztunnel"))
    async with world.serving():
        yield world


def silent(world, count):
    return [socket.create_connection(("127.0.0.1", world.port)) for _ in range(count)]


async def is_closed(connection):
    """Whether the server ended it; a read returns at once then."""
    connection.setblocking(False)
    try:
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 1), 60) == b""
    except ConnectionResetError:
        return True


async def held(world, count):
    """Wait until the process holds so many."""
    async with asyncio.timeout(60):
        while len(dict(_connections(world.port))) != count:  # noqa: ASYNC110 - grpc's threads accept and close
            await asyncio.sleep(0.01)


async def test_silent_connections_go_and_nodes_stay(world):
    now = time.monotonic()
    guard = ConnectionGuard(lambda: now, LIMITS)
    world.discovery.on_caller = world.signing.on_caller = guard.admit
    async with Ztunnel(world).connected() as node:
        assert (await node.receive()).type_url == AUTHORIZATION_TYPE
        old = silent(world, 10)
        await held(world, 11)
        assert guard.look(world.port) == 5, "of one address, five may stay"
        await held(world, 6)
        now += 1
        new = silent(world, 5)
        await held(world, 11)
        assert guard.look(world.port) == 5, "the oldest go"
        assert all(await asyncio.gather(*(is_closed(each) for each in old)))
        await held(world, 6)
        now += 31
        assert guard.look(world.port) == 5
        assert all(await asyncio.gather(*(is_closed(each) for each in new)))
        await held(world, 1)
        # The node's own connection is there, and so are new ones.
        assert (await node.receive()).type_url == ADDRESS_TYPE
        async with Ztunnel(world).connected() as another:
            await another.receive()
            assert guard.look(world.port) == 0
    assert guard.ended == 15
    for each in (*old, *new):
        each.close()


async def test_who_shakes_hands_and_says_nothing_is_a_stranger(world):
    now = time.monotonic()
    guard = ConnectionGuard(lambda: now, LIMITS)
    context = ssl.create_default_context(cadata=world.authority.roots)
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", world.port, ssl=context, server_hostname="istiod.istio-system.svc"
    )
    assert guard.look(world.port) == 0
    now += 31
    assert guard.look(world.port) == 1
    async with asyncio.timeout(60):
        while await reader.read(4096):
            pass
    writer.close()


@pytest.fixture
def many_files():
    """Both ends of thousands of connections are this process's: more files than users may open unless they ask."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < ENDS:
        pytest.skip(f"this machine allows a process {hard} open files, {ENDS} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, ENDS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def served(world):
    """A node at the strangers' own address gets through: it may be taken for one of them until it has shown its token,
    and tries again."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with Ztunnel(world).connected() as node:
                    await node.receive()
                    return
            except (EOFError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                continue


@pytest.mark.usefixtures("many_files")
async def test_thousands_of_silent_connections(world):
    """With the limits as they are: the process holds a few of them, and a node is served meanwhile."""
    guard = ConnectionGuard(time.monotonic)
    world.discovery.on_caller = guard.admit
    strangers = []
    watching = asyncio.create_task(guard.run(world.port))
    try:
        for _ in range(10):
            strangers += await asyncio.to_thread(silent, world, 200)
            await served(world)
        async with asyncio.timeout(60):
            while len(dict(_connections(world.port))) > 80:  # noqa: ASYNC110 - the guard ends them
                await asyncio.sleep(0.05)
        assert guard.ended >= 1900
    finally:
        watching.cancel()
        for each in strangers:
            each.close()


async def test_callers_that_have_gone_hide_no_strangers(world):
    """A pod may open many connections one after the other, with a valid token on each."""
    guard = ConnectionGuard(time.monotonic)
    for port in range(10_000, 15_000):
        guard.admit(f"ipv4:10.0.0.1:{port}")
    strangers = silent(world, 200)
    await held(world, 200)
    watching = asyncio.create_task(guard.run(world.port))
    try:
        async with asyncio.timeout(60):
            while len(dict(_connections(world.port))) > 64:  # noqa: ASYNC110 - others end them
                await asyncio.sleep(0.05)
        assert guard.ended, "these were not ended by gRPC, which waits 10 s for handshakes"
    finally:
        watching.cancel()
        for each in strangers:
            each.close()
