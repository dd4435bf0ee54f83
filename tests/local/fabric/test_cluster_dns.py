"""Cluster DNS and the Service table together: a pod asks 10.96.0.10, as its resolv.conf says."""

import asyncio
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.dns import Type, encode_query
from ambit.kube.client import Client
from ambit.local.fabric.catalog import ServiceCatalog
from ambit.local.fabric.cluster_dns import ClusterDns
from ambit.local.fabric.holders import Holders
from ambit.local.fabric.interface import PodNetwork
from ambit.local.fabric.service_proxy import ServiceProxy
from ambit.local.fabric.services import (
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
    SlicesByService,
)
from ambit.node.netns.enter import in_namespace
from tests.local.fabric import build
from tests.local.fabric.build import NODES, answered, fabric, receiver
from tests.local.fabric.objects import endpoint, endpoint_slice, service

PORTS = (ServicePort(53, "dns", "UDP"), ServicePort(53, "dns-tcp", "TCP"))
TARGETS = (EndpointPort("dns", 53, "UDP"), EndpointPort("dns-tcp", 53, "TCP"))
KUBE_DNS = service("kube-dns", "10.96.0.10", ports=PORTS)
DNS_ENDPOINTS = endpoint_slice("kube-dns", endpoint("172.30.0.1"), ports=TARGETS)


class Written(ServiceCatalog):
    """A catalog that a test writes."""

    def __init__(self, services: Iterable[Service], slices: Iterable[EndpointSlice]) -> None:
        self.written = list(services)
        self.written_slices = list(slices)
        self.synced, self.waited = asyncio.Event(), asyncio.Event()
        self.synced.set()
        self._callbacks: list[Callable[[], None]] = []
        self._holders: Holders = {}

    async def wait_synced(self) -> None:
        self.waited.set()
        await self.synced.wait()

    @property
    def is_synced(self) -> bool:
        return self.synced.is_set()

    def subscribe(self, changed: Callable[[], None]) -> None:
        self._callbacks.append(changed)

    def tell(self) -> None:
        for changed in self._callbacks:
            changed()

    @property
    def services(self) -> Iterator[Service]:
        return iter(self.written)

    def slices(self) -> SlicesByService:
        return {part.service: (part,) for part in self.written_slices}


def ask(netns: Path, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
    """By UDP again when nothing came: the kernel may drop a datagram right after a link came up."""
    query = dns.message.make_query(name, kind)
    if tcp:
        return in_namespace(netns, partial(dns.query.tcp, query, "10.96.0.10", timeout=60))
    for _ in range(12):
        with suppress(dns.exception.Timeout):
            return in_namespace(netns, partial(dns.query.udp, query, "10.96.0.10", timeout=5))
    pytest.fail(f"nobody answers what {name} is")


@given(st.binary(max_size=64), st.booleans(), st.integers(0, 255), st.integers(0, 40))
def test_any_bytes_get_a_reply_or_none_and_never_an_error(
    noise: bytes, over_tcp: bool, byte: int, position: int
) -> None:
    server = ClusterDns(Client.over_unix("/nowhere"), Written([KUBE_DNS], [DNS_ENDPOINTS]))
    damaged = bytearray(encode_query("_dns._udp.kube-dns.default.svc.cluster.local", Type.SRV, 7))
    damaged[position] = byte
    for data in (noise, bytes(damaged)):
        reply = server.handle(data, over_tcp)
        assert reply is None or isinstance(reply, bytes)
        assert reply is None or (reply[:2] == data[:2] and reply[2] & 0x80)


@pytest.mark.netns
async def test_a_pod_resolves_through_the_service_and_follows_changes(tmp_path: Path) -> None:
    catalog = Written([KUBE_DNS], [DNS_ENDPOINTS])
    async with fabric(tmp_path) as built:
        pod = await built.attach("a", "node2")
        server = asyncio.create_task(
            ClusterDns(Client.over_unix(tmp_path / "api"), catalog, netns=built.pin).serve()
        )
        proxy = ServiceProxy(catalog, NODES, tmp_path)
        await proxy.apply()
        try:
            for place in (pod.netns, tmp_path / "node1", built.pin):
                reply = await asyncio.to_thread(ask, place, "kube-dns.default.svc.cluster.local.")
                assert reply.answer[0][0].to_text() == "10.96.0.10"
                assert reply.flags & dns.flags.AA
            reply = await asyncio.to_thread(ask, pod.netns, "www.example.com.", tcp=True)
            assert reply.rcode() == dns.rcode.NXDOMAIN
            many = [f"10.244.1.{last}" for last in range(2, 80)]
            catalog.written.append(service("many", "None"))
            catalog.written_slices.append(endpoint_slice("many", *(endpoint(address) for address in many)))
            catalog.tell()
            short = await asyncio.to_thread(ask, pod.netns, "many.default.svc.cluster.local.")
            assert short.flags & dns.flags.TC
            whole = await asyncio.to_thread(ask, pod.netns, "many.default.svc.cluster.local.", tcp=True)
            assert sorted(item.to_text() for item in whole.answer[0]) == sorted(many)
            catalog.synced.clear()
            catalog.waited.clear()
            early = asyncio.create_task(
                asyncio.to_thread(ask, pod.netns, "kube-dns.default.svc.cluster.local.")
            )
            await catalog.waited.wait()
            catalog.synced.set()
            assert (await early).answer[0][0].to_text() == "10.96.0.10"
        finally:
            server.cancel()
            with suppress(asyncio.CancelledError):
                await server


@pytest.mark.netns
async def test_the_proxy_follows_the_catalog(tmp_path: Path) -> None:
    catalog = Written([KUBE_DNS], [])
    async with fabric(tmp_path):
        proxy = asyncio.create_task(ServiceProxy(catalog, NODES, tmp_path).run())
        try:
            async with asyncio.timeout(60):
                await _table_has(tmp_path / "node1", "translate")
                catalog.written_slices.append(DNS_ENDPOINTS)
                catalog.tell()
                await _table_has(tmp_path / "node2", "172.30.0.1:53")
        finally:
            proxy.cancel()
            with suppress(asyncio.CancelledError):
                await proxy


@pytest.mark.netns
@pytest.mark.parametrize("family", [0, 1])
async def test_udp_clients_leave_an_endpoint_that_is_gone(tmp_path: Path, family: int) -> None:
    vip, kind = ("10.96.0.20", "fd00:10:96::20")[family], ("IPv4", "IPv6")[family]
    async with fabric(tmp_path) as built:
        a, b, c = [await built.attach(name, "node1") for name in "abc"]
        with (
            receiver(b.netns, b.addresses[family]) as old,
            receiver(c.netns, c.addresses[family]) as new,
            in_namespace(
                a.netns, lambda: socket.socket(build.family(a.addresses[family]), socket.SOCK_DGRAM)
            ) as out,
        ):

            def serving(pod: PodNetwork, sock: socket.socket) -> EndpointSlice:
                port = EndpointPort("", sock.getsockname()[1], "UDP")
                return endpoint_slice("log", endpoint(str(pod.addresses[family])), family=kind, ports=(port,))

            catalog = Written(
                [service("log", vip, ports=(ServicePort(514, protocol="UDP"),))], [serving(b, old)]
            )
            proxy = ServiceProxy(catalog, NODES, tmp_path)
            await proxy.apply()
            assert answered(old, lambda: out.sendto(b"1", (vip, 514))) == str(a.addresses[family])
            catalog.written_slices[:] = [serving(c, new)]
            await proxy.apply()
            assert answered(new, lambda: out.sendto(b"2", (vip, 514))) == str(a.addresses[family])


async def _table_has(netns: Path, text: str) -> None:
    while text not in await asyncio.to_thread(in_namespace, netns, _list_table):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def _list_table() -> str:
    command = ["nft", "list", "table", "inet", "ambit_services"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
