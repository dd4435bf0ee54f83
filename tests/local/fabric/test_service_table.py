"""The Service table: its text, which endpoints it takes, and what the kernel makes of it."""

import socket
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.fabric.network import load_table
from ambit.local.fabric.service_table import entries, service_table
from ambit.local.fabric.services import (
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
    read_service,
    read_slice,
)
from ambit.node.netns.enter import in_namespace
from tests.local.fabric.build import NODES, PATIENCE, delivered, fabric, receiver
from tests.local.fabric.objects import DRAINING, GONE, endpoint, endpoint_slice, service

GOLDEN = Path(__file__).parent / "services.nft"
HTTP = (ServicePort(80),)


def compiled(services: Iterable[Service], slices: Iterable[EndpointSlice], node: str = "node1") -> str:
    groups: dict[tuple[str, str], tuple[EndpointSlice, ...]] = {}
    for part in slices:
        groups[part.service] = (*groups.get(part.service, ()), part)
    return service_table(entries(services, groups, NODES, node))


def test_golden() -> None:
    services = [
        service("web", "10.96.0.20", "fd00:10:96::20", ports=HTTP),
        service("dns", "10.96.0.10", ports=(ServicePort(53, "udp", "UDP"), ServicePort(53, "tcp", "TCP"))),
        service("sticky", "10.96.0.21", ports=HTTP, session_affinity="ClientIP"),
        service("gateway", "10.96.0.22", ports=(ServicePort(80, node_port=30080),), type="LoadBalancer"),
        service("empty", "10.96.0.23", ports=HTTP),
        service("headless", "None", ports=HTTP),
        service("near", "10.96.0.24", ports=HTTP, internal_traffic_policy="Local"),
    ]
    pair = (endpoint("10.244.1.2"), endpoint("10.244.2.2", node="node2"), endpoint("10.244.2.3", GONE))
    slices = [
        endpoint_slice("web", *pair),
        endpoint_slice("web", endpoint("fd00:10:244:1::2"), family="IPv6"),
        endpoint_slice(
            "dns", endpoint("172.30.0.1"), ports=(EndpointPort("udp", 53, "UDP"), EndpointPort("tcp", 53))
        ),
        endpoint_slice("sticky", *pair),
        endpoint_slice("gateway", endpoint("10.244.1.9", DRAINING), endpoint("10.244.1.8", GONE)),
        endpoint_slice("empty", endpoint("10.244.1.5", GONE)),
        endpoint_slice("headless", *pair),
        endpoint_slice("near", *pair),
    ]
    assert compiled(services, slices) == GOLDEN.read_text()


@given(st.permutations(range(6)), st.sets(st.integers(2, 7)))
def test_order_of_objects_changes_nothing(order: list[int], hosts: set[int]) -> None:
    services = [service(f"s{index}", f"10.96.0.{index + 20}", ports=HTTP) for index in range(6)]
    slices = [
        endpoint_slice(f"s{index}", *(endpoint(f"10.244.1.{host}") for host in hosts)) for index in range(6)
    ]
    shuffled = [services[index] for index in order]
    assert compiled(shuffled, [slices[index] for index in order]) == compiled(services, slices)


def _answer(listener: socket.socket) -> str:
    connection, peer = listener.accept()
    with connection:
        connection.sendall(b"hello")
    return str(peer[0])


def _call(address: str, port: int) -> bytes:
    with closing(socket.create_connection((address, port), PATIENCE)) as connection:
        return connection.recv(10)


async def _load(pins: Path, services: Iterable[Service], slices: Iterable[EndpointSlice]) -> None:
    text = compiled(services, slices)
    for name in ("fabric", "node1", "node2"):
        in_namespace(pins / name, partial(load_table, text))


@pytest.mark.netns
@pytest.mark.parametrize("family", [0, 1])
async def test_pods_nodes_and_fabric_reach_a_service_and_keep_their_address(
    tmp_path: Path, family: int
) -> None:
    vip = ("10.96.0.20", "fd00:10:96::20")[family]
    node = (NODES[1].v4, NODES[1].v6)[family]
    async with fabric(tmp_path) as built:
        a, b, c = [
            await built.attach(name, at) for name, at in (("a", "node1"), ("b", "node1"), ("c", "node2"))
        ]
        with receiver(b.netns, b.addresses[family], socket.SOCK_STREAM) as listener:
            port = EndpointPort("", listener.getsockname()[1])
            part = endpoint_slice(
                "web", endpoint(str(b.addresses[family])), family=("IPv4", "IPv6")[family], ports=(port,)
            )
            web = service("web", vip, ports=(ServicePort(80, node_port=30080),))
            await _load(tmp_path, [web], [part])
            for place, source in ((a.netns, a.addresses[family]), (c.netns, c.addresses[family])):
                assert in_namespace(place, lambda: _dial(vip)) is not None
                assert _answer(listener) == str(source)
            for place in (built.pin, tmp_path / "node1", tmp_path / "node2"):
                assert in_namespace(place, lambda: _dial(vip)) is not None
                _answer(listener)
            assert in_namespace(b.netns, lambda: _dial(vip)) is not None
            assert _answer(listener) != str(b.addresses[family])  # a pod refuses packets from itself
            assert in_namespace(a.netns, lambda: _dial(str(node), 30080)) is not None
            assert _answer(listener) == str(a.addresses[family])


@pytest.mark.netns
async def test_a_service_without_endpoints_and_an_unknown_address_are_refused_at_once(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        a = await built.attach("a", "node1")
        await _load(tmp_path, [service("web", "10.96.0.20", "fd00:10:96::20", ports=HTTP)], [])
        for place in (a.netns, tmp_path / "node1", built.pin):
            for address in ("10.96.0.20", "10.96.0.99", "fd00:10:96::20", "172.30.1.9"):
                with pytest.raises(ConnectionRefusedError):
                    in_namespace(place, lambda address=address: _call(address, 80))


@pytest.mark.netns
async def test_many_endpoints_share_the_calls_and_affinity_keeps_one(tmp_path: Path) -> None:
    async with fabric(tmp_path) as built:
        a, b, c = [
            await built.attach(name, at) for name, at in (("a", "node1"), ("b", "node1"), ("c", "node2"))
        ]
        with (
            receiver(b.netns, b.addresses[0]) as one,
            receiver(c.netns, c.addresses[0]) as two,
        ):
            for at, sock in ((b, one), (c, two)):
                assert delivered(sock, a.netns, (str(at.addresses[0]), sock.getsockname()[1]))
            hits = {"random": [0, 0], "sticky": [0, 0]}
            for sock in (one, two):
                sock.settimeout(1)
            ports = {one: one.getsockname()[1], two: two.getsockname()[1]}
            slices, services = [], []
            for name, vip, affinity in (("random", "10.96.0.20", ""), ("sticky", "10.96.0.21", "ClientIP")):
                services.append(
                    service(name, vip, ports=(ServicePort(53, protocol="UDP"),), session_affinity=affinity)
                )
                for at, sock in ((b, one), (c, two)):
                    slices.append(
                        endpoint_slice(
                            name,
                            endpoint(str(at.addresses[0])),
                            ports=(EndpointPort("", ports[sock], "UDP"),),
                        )
                    )
            await _load(tmp_path, services, slices)
            for name, vip in (("random", b"10.96.0.20"), ("sticky", b"10.96.0.21")):
                for _ in range(40):
                    in_namespace(a.netns, lambda vip=vip: _datagram(vip.decode()))
                for number, sock in enumerate((one, two)):
                    while _received(sock):
                        hits[name][number] += 1
            assert sum(hits["random"]) == sum(hits["sticky"]) == 40
            assert min(hits["random"]) > 0
            assert min(hits["sticky"]) == 0


def _dial(address: str, port: int = 80) -> socket.socket:
    return socket.create_connection((address, port), PATIENCE)


def _datagram(address: str) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as out:
        out.sendto(b"x", (address, 53))


def _received(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(10))
    except TimeoutError:
        return False


ODD = ("999.1.1.1", "010.0.0.1", "10.0.0.9\n", "fd00::9", "", "fe80::1%x } ; }", "☃")


@pytest.mark.parametrize("text", ODD)
def test_what_is_no_address_or_port_is_left_out_alone(text: str) -> None:
    given = endpoint_slice(
        "web",
        endpoint(text, hostname="a.b\n"),
        endpoint("10.244.1.2", hostname="web-0"),
        ports=(EndpointPort("", 8080), EndpointPort("x", 70000), EndpointPort("y", -1)),
    )
    read = read_slice(msgspec.json.encode(given))
    assert [each.addresses for each in read.endpoints or ()] == [("10.244.1.2",)]
    assert [each.port for each in read.ports or ()] == [8080]
    odd = service("web", "10.96.0.20", ports=HTTP, type="LoadBalancer", external_ips=(text, "192.0.2.1"))
    kept = read_service(msgspec.json.encode(odd)).spec.external_ips
    assert "192.0.2.1" in kept and (text == "fd00::9" or text not in kept)
    compiled([read_service(msgspec.json.encode(odd))], [read])


@pytest.mark.parametrize(
    "address",
    ["10.96.0.21", "10.96.0.1", "172.30.0.1", "172.30.0.11", "172.30.1.9", "10.244.1.2", "fd00:10:96::1"],
)
def test_an_external_address_takes_nothing_that_is_the_clusters(address: str) -> None:
    thief = service("a", "10.96.0.20", "fd00:10:96::20", ports=HTTP, external_ips=(address, "192.0.2.9"))
    slices = [
        endpoint_slice("a", endpoint("10.244.1.3")),
        endpoint_slice("a", endpoint("fd00::3"), family="IPv6"),
    ]
    text = compiled([thief], slices)
    assert f"{address} . tcp . 80" not in text
    assert "192.0.2.9 . tcp . 80 : goto to-default/a/tcp/80/v4" in text
