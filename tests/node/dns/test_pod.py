"""The pod's DNS proxy with real sockets: in a namespace, over UDP and TCP, and in front of a nameserver."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.agent.nameservers import Forwarder
from ambit.core.address import Address
from ambit.core.dns import Rcode, Record, Type, encode_query, encode_reply, parse_query
from ambit.model.service import Service
from ambit.node.dns.answer import Client, Settings
from ambit.node.dns.pod import PodDns
from ambit.node.dns.server import DnsServer, listen
from ambit.node.netns.enter import in_namespace
from tests.local.fabric.build import fabric
from tests.node.dns.build import Names, service
from tests.soak import fuzz

T = TypeVar("T")
WEB = service("web.default.svc.cluster.local", "10.96.0.20", "fd00:10:96::20")
MESH = Names([WEB])
PATIENT = Settings(forward_timeout=60)


async def inside(netns: Path, function: Callable[[], T]) -> T:
    return await asyncio.to_thread(in_namespace, netns, function)


@asynccontextmanager
async def nameserver(
    handler: Callable[[bytes, bool], bytes | None], netns: Path, address: str
) -> AsyncIterator[int]:
    """Listens on a free port of this address in this namespace, UDP and TCP."""
    udp, tcp = in_namespace(netns, lambda: listen([address], 5353))
    server = DnsServer(handler, udp, tcp)
    await server.start()
    try:
        yield 5353
    finally:
        await server.close()


@pytest.mark.netns
async def test_a_pod_gets_answers_and_its_nameserver_the_rest(tmp_path: Path) -> None:
    seen: list[tuple[bytes, bool]] = []
    resolved: list[tuple[Service, list[Address]]] = []
    prepared = asyncio.Event()

    async def prepare() -> None:
        await asyncio.sleep(0)
        prepared.set()

    def on_resolved(found: Service, addresses: Sequence[Address]) -> Awaitable[None] | None:
        resolved.append((found, list(addresses)))
        return prepare() if not prepared.is_set() else None

    def upstream(data: bytes, over_tcp: bool) -> bytes:
        seen.append((data, over_tcp))
        return encode_reply(parse_query(data), Rcode.NXDOMAIN)

    told: list[tuple[int, bool, float, bool]] = []
    async with fabric(tmp_path) as built:
        pod, other = await built.attach("a", "node1"), await built.attach("b", "node2")
        async with nameserver(upstream, other.netns, str(other.addresses[0])) as port:
            proxy = PodDns(
                pod.netns,
                Client("default"),
                MESH,
                [(other.addresses[0], port)],
                on_resolved=on_resolved,
                on_forwarded=lambda *forwarded: told.append(forwarded),
                settings=PATIENT,
            )
            await proxy.start()
            try:
                for loopback in ("127.0.0.1", "::1"):
                    for ask in (dns.query.udp, dns.query.tcp):
                        query = dns.message.make_query("Web.Default.svc.cluster.local.", "AAAA", use_edns=0)
                        reply = await inside(pod.netns, partial(ask, query, loopback, port=15053, timeout=60))
                        assert reply.flags & dns.flags.AA
                        assert reply.answer[0][0].to_text() == "fd00:10:96::20"
                assert resolved == [(WEB, [ip_address("fd00:10:96::20")])] * 4
                assert prepared.is_set()
                assert not seen
                question = dns.message.make_query("Nowhere.Example.", "TXT", use_edns=0, payload=1400)
                for number, ask in enumerate((dns.query.udp, dns.query.tcp)):
                    reply = await inside(
                        pod.netns, partial(ask, question, "127.0.0.1", port=15053, timeout=60)
                    )
                    assert reply.rcode() == dns.rcode.NXDOMAIN
                    assert reply.id == question.id
                    assert seen[number][0][2:] == question.to_wire()[2:]
                    assert seen[number][1] is bool(number)
                assert [each[:2] for each in told] == [(16, False), (16, True)]
                assert all(
                    0 < seconds < PATIENT.forward_timeout and answered for *_, seconds, answered in told
                )
            finally:
                await proxy.close()
            for group in in_namespace(pod.netns, lambda: listen(["127.0.0.1"], 15053)):
                assert len(group) == 1  # the port is free again
                group[0].close()


@pytest.mark.netns
async def test_an_absent_nameserver_gives_servfail_quickly_and_questions_stay_apart(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        pod = await built.attach("a", "node1")
        told: list[tuple[int, bool, float, bool]] = []
        proxy = PodDns(
            pod.netns,
            Client("default"),
            MESH,
            [(ip_address("172.30.0.1"), 5353)],
            on_forwarded=lambda *forwarded: told.append(forwarded),
            settings=PATIENT,
        )
        await proxy.start()
        try:
            query = dns.message.make_query("nowhere.example.", "A")
            for ask in (dns.query.udp, dns.query.tcp):
                reply = await inside(pod.netns, partial(ask, query, "127.0.0.1", port=15053, timeout=60))
                assert reply.rcode() == dns.rcode.SERVFAIL
            assert [(*each[:2], each[3]) for each in told] == [(1, False, False), (1, True, False)]
        finally:
            await proxy.close()


async def test_late_and_foreign_answers_are_not_taken() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        loop = asyncio.get_running_loop()
        forwarder = Forwarder([(ip_address("127.0.0.1"), server.getsockname()[1])], socket.socket, 60)
        try:
            first = asyncio.create_task(
                forwarder.ask(dns.message.make_query("a.example.", "A").to_wire(), False)
            )
            second = asyncio.create_task(
                forwarder.ask(dns.message.make_query("b.example.", "A").to_wire(), False)
            )
            questions = [await loop.sock_recvfrom(server, 512) for _ in range(2)]
            assert questions[0][0][:2] != questions[1][0][:2]
            (data_a, peer), (data_b, _) = questions
            if b"\1b" in data_a:
                data_a, data_b = data_b, data_a
            swapped = encode_reply(parse_query(data_a[:2] + data_b[2:]), Rcode.REFUSED)
            await loop.sock_sendto(server, swapped, peer)
            for data in (data_b, data_a):
                await loop.sock_sendto(server, encode_reply(parse_query(data), Rcode.NXDOMAIN), peer)
            for task in (first, second):
                reply = await task
                assert reply is not None
                assert dns.message.from_wire(reply).rcode() == dns.rcode.NXDOMAIN
        finally:
            forwarder.close()


@pytest.mark.soak
@pytest.mark.timeout(3600)
@fuzz()
@given(st.binary(max_size=64), st.booleans())
async def test_any_bytes_get_a_reply_or_none_and_never_an_error(noise: bytes, over_tcp: bool) -> None:
    proxy = PodDns(Path("/nowhere"), Client("default"), MESH, [])
    for data in (noise, encode_query("web", Type.A)[:4] + noise, encode_query("*.\\..web", Type.AAAA)):
        reply = proxy.handle(data, over_tcp)
        if reply is not None and not isinstance(reply, bytes):
            reply = await reply
        assert reply is None or (reply[:2] == data[:2] and reply[2] & 0x80)


@pytest.mark.netns
async def test_a_reply_is_changed_only_where_the_nameserver_cannot_know(tmp_path: Path) -> None:
    """An alias that ends in the mesh gets its addresses; a name of the mesh exists for every type; all other bytes,
    options and flags that nobody here understands included, are the nameserver's own."""

    def upstream(data: bytes, over_tcp: bool) -> bytes:
        query = parse_query(data)
        if query.name.startswith("alias"):
            target = "web.default.svc.cluster.local" if query.name == "alias.example" else "else.example"
            return encode_reply(query, answers=[Record(query.name, 7, target, Type.CNAME)])
        reply = bytearray(encode_reply(query, Rcode.NXDOMAIN))
        reply[3] |= 0x70
        return bytes(reply) + b"what follows"

    async with fabric(tmp_path) as built:
        pod, other = await built.attach("a", "node1"), await built.attach("b", "node2")
        async with nameserver(upstream, other.netns, str(other.addresses[0])) as port:
            nameservers = [(other.addresses[0], port)]
            proxy = PodDns(pod.netns, Client("default"), MESH, nameservers, settings=PATIENT)
            try:
                for over_tcp in (False, True):
                    query = dns.message.make_query("Alias.Example.", "A", use_edns=0, payload=1232)
                    finished = await replied(proxy, query.to_wire(), over_tcp)
                    reply = dns.message.from_wire(finished)
                    assert [rrset.to_text() for rrset in reply.answer] == [
                        "Alias.Example. 7 IN CNAME web.default.svc.cluster.local.",
                        "web.default.svc.cluster.local. 30 IN A 10.96.0.20",
                    ]
                    assert reply.id == query.id
                    assert not reply.flags & dns.flags.AA
                    for name, kind in (
                        ("alias-out.example", 1),
                        ("nowhere.example", 1),
                        ("nowhere.example", 65),
                    ):
                        asked = encode_query(name, kind, 4711)
                        assert await replied(proxy, asked, over_tcp) == upstream(asked, over_tcp)
                    asked = encode_query("web.default.svc.cluster.local", 65, 4711)
                    exists = bytearray(upstream(asked, over_tcp))
                    assert exists[3] & 15 == Rcode.NXDOMAIN
                    exists[3] &= 0xF0
                    assert await replied(proxy, asked, over_tcp) == bytes(exists)
            finally:
                await proxy.close()


@pytest.mark.netns
async def test_nothing_that_a_nameserver_says_breaks_or_stays() -> None:
    """Noise, noise behind the right beginning, and damage at one place. Nobody waits afterwards."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        loop = asyncio.get_running_loop()
        own = Path("/proc/self/ns/net")
        nameservers = [(ip_address("127.0.0.1"), server.getsockname()[1])]
        proxy = PodDns(own, Client("default"), MESH, nameservers)
        generator = random.Random(20)
        try:
            for number in range(200):
                asked = encode_query("alias.example", Type.A, number)
                waiting = asyncio.ensure_future(replied(proxy, asked, over_tcp=False))
                data, peer = await loop.sock_recvfrom(server, 4096)
                query = parse_query(data)
                chain = [
                    Record("alias.example", 7, "b.example", Type.CNAME),
                    Record("b.example", 7, "web.default.svc.cluster.local", Type.CNAME),
                ]
                reply = bytearray(encode_reply(query, answers=chain))
                noise = generator.randbytes(generator.randrange(40))
                if number % 2:
                    reply[12 + len(query.question) :] = noise
                else:
                    reply[generator.randrange(4 + len(query.question), len(reply))] = number
                reply[:2], reply[12 : 12 + len(query.question)] = data[:2], query.question
                await loop.sock_sendto(server, bytes(reply), peer)
                assert (await waiting)[:2] == asked[:2]
            assert proxy.waiting == 0
        finally:
            await proxy.close()


@pytest.mark.netns
@pytest.mark.feature("N27")
async def test_nameservers_that_are_silent_cost_the_time_that_is_set() -> None:
    """The question ends with SERVFAIL, after every one of them was asked."""
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as first,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as second,
    ):
        for server in (first, second):
            server.bind(("127.0.0.1", 0))
            server.setblocking(False)
        nameservers = [(ip_address("127.0.0.1"), each.getsockname()[1]) for each in (first, second)]
        settings = Settings(forward_timeout=0.2)
        proxy = PodDns(Path("/proc/self/ns/net"), Client("default"), MESH, nameservers, settings=settings)
        try:
            reply = await replied(proxy, encode_query("nowhere.example", Type.A, 7), over_tcp=False)
            assert (reply[:2], reply[3] & 15) == (b"\0\7", Rcode.SERVFAIL)
            for server in (first, second):
                server.settimeout(60)
                assert b"nowhere" in server.recv(512)
            assert proxy.waiting == 0
        finally:
            await proxy.close()


async def replied(proxy: PodDns, data: bytes, over_tcp: bool) -> bytes:
    reply = proxy.handle(data, over_tcp)
    if reply is not None and not isinstance(reply, bytes):
        reply = await reply
    assert reply is not None
    return reply
