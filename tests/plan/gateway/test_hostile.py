"""Clients of a gateway who mean harm: no policy is passed, no server hears what it should not, memory has bounds."""

import itertools
import random
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ingest.build import service
from tests.ingest.gateway.build import edge as gateway
from tests.ingest.gateway.build import listener, to, to_edge
from tests.ingest.gateway.pairs import https, secret
from tests.plan import hostile
from tests.plan.dataplane.served import until
from tests.plan.gateway import test_datagrams as datagrams
from tests.plan.gateway.conftest import Edge
from tests.plan.gateway.test_authorization import operation, policy
from tests.plan.gateway.test_datagrams import services, to_udp, udp_route
from tests.plan.gateway.test_https import AUTHORITY
from tests.plan.hostile import DENIED, END_HEADERS, END_STREAM, HOST, Strict, frame, get, harmful

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

TARGET = 8099
OPEN, NARROW, SECURE, UDP = 80, 8080, 443, 5300
"""Ports: what is not denied may pass; what is below `/public` may; the first by TLS and QUIC; datagrams."""
PUBLIC = "/public"
MOST_MEMORY = 64 << 20
"""More than all of this together may take; Envoy's heap has a limit of its own far above."""


@pytest.fixture(scope="module")
def server(edge: Edge) -> Iterator[Strict]:
    secured = https("https", "a", port=SECURE)
    secured["tls"]["options"] = {"ambit.io/http3": "true"}
    edge.apply(
        secret("a", AUTHORITY.pair(HOST)),
        gateway(listener(), listener("narrow", NARROW), secured, listener("udp", UDP, "UDP")),
        to_edge({"backendRefs": [to("strict", 81)]}),
        service("strict", {"app": "one"}, ip="10.96.7.97", port=81, target=TARGET),
        *services(edge),
        udp_route(to_udp("one")),
        policy("DENY", operation(ports=[*map(str, (OPEN, SECURE, NARROW))], paths=[DENIED, f"{DENIED}/*"])),
        policy(
            "ALLOW",
            operation(ports=[str(OPEN), str(SECURE), str(UDP)]),
            operation(ports=[str(NARROW)], paths=[PUBLIC, f"{PUBLIC}/*"]),
            name="narrow",
        ),
    )
    with Strict(edge.servers["one"], TARGET) as made:
        yield made


def connect(edge: Edge, port: int = OPEN) -> socket.socket:
    return edge.client.connect(edge.host.four, port)


def fence(edge: Edge) -> None:
    assert edge.get(HOST, "/fence").status == 200


def taken(server: Strict) -> list[str]:
    """Targets that reached the server, but those of fences."""
    return [each.target for each in server.take() if each.target != "/fence"]


def memory(edge: Edge) -> int:
    found = re.search(r'"allocated": "([0-9]+)"', edge.admin("/memory"))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("name", hostile.ATTACKS)
def test_bytes_have_one_meaning(edge: Edge, server: Strict, name: str) -> None:
    """What the gateway takes for a body nobody takes for a request, and the other way round."""
    attack = hostile.ATTACKS[name].replace(b"host:", f"x-attack: {name}\r\nhost:".encode(), 1)
    statuses = hostile.provoke(connect(edge), attack, lambda: fence(edge))
    heard = server.take()
    assert not [each for each in heard if harmful(each.target)]
    assert statuses.count(200) <= len([each for each in heard if ("x-attack", name) in each.headers]) <= 1
    assert 101 not in statuses


def test_two_hosts_are_answered_with_400(edge: Edge, server: Strict) -> None:
    """RFC 9112 section 3.2."""
    for other in ("other", HOST):
        attack = f"GET / HTTP/1.1\r\nhost: {HOST}\r\nhost: {other}\r\n\r\n".encode()
        assert hostile.provoke(connect(edge), attack, lambda: fence(edge)) == [400]
        assert not taken(server)


def test_no_spelling_of_a_path_passes_what_denies_or_allows(edge: Edge, server: Strict) -> None:
    for first, (port, before) in enumerate(((OPEN, ""), (NARROW, PUBLIC))):
        targets = hostile.spellings()[first::2]
        for begin in range(0, len(targets), 200):
            batch = targets[begin : begin + 200]
            connections = [connect(edge, port) for _ in batch]
            for connection, target in zip(connections, batch, strict=True):
                connection.sendall(f"GET {before}{target} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
            fence(edge)
            for connection in connections:
                connection.close()
        assert edge.get(HOST, f"{before}/harmless", port=port).status == 200
        heard = taken(server)
        assert f"{before}/harmless" in heard
        assert not [each for each in heard if harmful(each)]
        if before:
            assert {segment for each in heard for segment in hostile.readings(each)} == {"public"}


@pytest.mark.parametrize("name", hostile.BLOCKS)
def test_headers_of_http2_are_not_lines_of_http1(edge: Edge, server: Strict, name: str) -> None:
    """And what follows as data is a body, whatever length was promised."""
    frames = [
        frame(hostile.HEADERS, END_HEADERS, 1, hostile.BLOCKS[name]),
        frame(hostile.DATA, END_STREAM, 1, hostile.HIDDEN),
    ]
    statuses = hostile.provoke_http2(connect(edge), frames, lambda: fence(edge))
    assert not any(map(harmful, taken(server)))
    assert statuses.count(200) <= 1


def test_headers_have_a_size_and_a_number(edge: Edge, server: Strict) -> None:
    many = "".join(f"x-{index}: y\r\n" for index in range(10_000))
    for lines in (f"x: {'y' * (64 << 10)}\r\n", many, many[:3000]):
        attack = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n{lines}\r\n".encode()
        with connect(edge) as connection:
            connection.sendall(attack)
            assert re.match(rb"HTTP/1.1 (431|400) ", connection.recv(100))
    assert not taken(server)


LONG = hostile.block(*((f"x-{index}", "y" * 500) for index in range(30)))


def _requests(*more: bytes) -> Iterator[bytes]:
    for stream in range(1, 200_001, 2):
        after = [frame(hostile.RESET, 0, stream, each) for each in more]
        yield frame(hostile.HEADERS, END_HEADERS | END_STREAM, stream, get()) + b"".join(after)


def _after(first: bytes, *, flags: int, repeated: bytes) -> Iterator[bytes]:
    yield frame(hostile.HEADERS, flags, 1, first)
    yield from itertools.repeat(repeated * 1000, 1000)


def _repeated(one: bytes) -> Iterator[bytes]:
    return itertools.repeat(one * 1000, 1000)


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "requests that are taken back": lambda: _requests(bytes(4)),
    "requests nobody waits for": _requests,
    "headers without an end": lambda: _after(
        get(), flags=END_STREAM, repeated=frame(hostile.CONTINUATION, 0, 1, LONG[:10_000])
    ),
    "empty pieces of headers": lambda: _after(
        get(), flags=END_STREAM, repeated=frame(hostile.CONTINUATION, 0, 1)
    ),
    "empty data": lambda: _after(get(), flags=END_HEADERS, repeated=frame(hostile.DATA, 0, 1)),
    "settings": lambda: _repeated(frame(hostile.SETTINGS, 0, 0)),
    "tables of 4 GiB": lambda: _repeated(frame(hostile.SETTINGS, 0, 0, b"\0\1" + b"\xff" * 4)),
    "pings": lambda: _repeated(frame(hostile.PING, 0, 0, bytes(8))),
    "priorities": lambda: _repeated(frame(hostile.PRIORITY, 0, 1, bytes(5))),
    "windows": lambda: _repeated(frame(hostile.WINDOW, 0, 0, b"\0\0\0\1")),
}


def test_floods_end_their_connections_and_no_other(edge: Edge, server: Strict) -> None:
    """All at once."""
    before = memory(edge)
    with connect(edge) as other, ThreadPoolExecutor(len(FLOODS)) as threads:
        running = {
            name: threads.submit(hostile.flooded, connect(edge), frames(), seconds=120)
            for name, frames in FLOODS.items()
        }
        assert {name: each.result() for name, each in running.items()} == dict.fromkeys(FLOODS, True)
        other.sendall(f"GET /fence HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        assert other.recv(100).startswith(b"HTTP/1.1 200 ")
    assert memory(edge) - before < MOST_MEMORY
    assert not any(map(harmful, taken(server)))


def test_clients_that_stand_still_cost_little_and_hold_up_nobody(edge: Edge, server: Strict) -> None:
    """Half a head of almost the largest size each; they are cut off by and by (`defaults.HEADERS_TIMEOUT`)."""
    before = memory(edge)
    half = f"GET / HTTP/1.1\r\nhost: {HOST}\r\nx: {'y' * (50 << 10)}".encode()
    waiting = [connect(edge) for _ in range(150)]
    for each in waiting:
        each.sendall(half)
    fence(edge)
    assert memory(edge) - before < MOST_MEMORY
    for each in waiting:
        each.close()
    assert not taken(server)


def test_junk_reaches_nobody_and_ends_nothing(edge: Edge, server: Strict) -> None:
    """Where TLS, QUIC and datagrams are spoken."""
    chance, before = random.Random(1), memory(edge)
    hello = bytes.fromhex("16030100c8010000c40303")
    for size in (1, 5, 11, 300, 16_000):
        for start in (b"", hello, hello[:5], b"\x80\x2e\x01", f"GET {DENIED} HTTP/1.1\r\n\r\n".encode()):
            with connect(edge, SECURE) as connection:
                connection.sendall(start + chance.randbytes(size))
    initial = b"\xc3\0\0\0\1\x08" + bytes(8) + b"\x08" + bytes(8)
    for version in (initial, initial.replace(b"\0\0\0\1", b"\xfa\xce\xb0\x0c"), b"\x40", b"\xc0", b""):
        for size in (0, 1, 21, 1200, 1450):
            for _ in range(40):
                with edge.client.datagrams(edge.host.four, SECURE) as sending:
                    sending.send(version + chance.randbytes(size))
    with edge.servers["one"].listen_udp(7000, lambda asked: asked[:2]):
        for size in (0, 1, 65_507):
            for _ in range(100):
                with edge.client.datagrams(edge.host.four, UDP) as sending:
                    sending.send(chance.randbytes(size))
        # While what came before still fills the socket, the kernel drops what comes.
        until(lambda: datagrams.ask(edge, timeout=2) == "hi", "an answer")
    fence(edge)
    assert memory(edge) - before < MOST_MEMORY
    assert not taken(server)
    assert edge.generations == [True]
