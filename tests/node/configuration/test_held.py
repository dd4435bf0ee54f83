"""Rule 4 of `ambit.node.configuration.configuration`: an address of the cluster's is not passed through unknown."""

import asyncio
import ipaddress
from pathlib import Path

import msgspec
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from google.protobuf import any_pb2

from ambit.agent.envoy_server import EnvoyServer
from ambit.core.address import Address
from ambit.envoy import names
from ambit.model.service import Service, VirtualAddress, Visibility
from ambit.model.view import Snapshot
from ambit.model.workload import Port, Workload
from ambit.node.configuration import destinations
from ambit.node.configuration.configuration import Configuration
from ambit.node.state import keys
from ambit.plan.node import node_proxy
from ambit.plan.values import CLUSTER, LocalPods, NodeSettings
from tests.node.configuration.test_configuration import WEB, Changing, pod

RANGES = tuple(map(ipaddress.ip_network, ("10.96.0.0/16", "10.244.0.0/16", "fd00:10:96::/112")))
SETTINGS = NodeSettings(node="node1", cluster_ranges=RANGES)
ADDRESS = ipaddress.ip_address("10.96.7.7")
OUTSIDE = ipaddress.ip_address("10.97.0.1")


class Asking:
    """The configuration of a node with one pod, which asks for addresses."""

    def __init__(self, view: Snapshot) -> None:
        self.view = Changing(view)
        self.server = EnvoyServer(Path("/nonexistent"), lambda *_: None)
        self.configuration = Configuration(self.view, SETTINGS, self.server, lambda: True)
        self.web = pod("web", "10.244.1.5")
        self.configuration.add(self.web)

    def ask(self, address: Address) -> str:
        name = names.destination(self.web.key, address, 80)
        self.configuration.asked([name])
        return name

    def has(self, name: str) -> bool:
        """Whether the question is answered as it must be now."""
        found = self.server.store.get(CLUSTER, name)
        wanted = node_proxy.destination(name, self.view, LocalPods([self.web]), SETTINGS)
        assert found is None or found.version == wanted.version
        return found is not None

    def passes(self, name: str) -> bool:
        found = self.server.store.get(CLUSTER, name)
        return found is not None and is_passthrough(found.body)


def is_passthrough(body: bytes) -> bool:
    """Whether a cluster leads to the original destination, past the mesh."""
    cluster = cluster_pb2.Cluster.FromString(any_pb2.Any.FromString(body).value)
    return bool(cluster.type == cluster_pb2.Cluster.ORIGINAL_DST)


def service(address: Address, **others: object) -> Service:
    made = Service(
        "web", "shop", "web.shop.svc.cluster.local", (VirtualAddress("", address),), (Port(80, 8080),)
    )
    return msgspec.structs.replace(made, **others)


def workload(address: Address) -> Workload:
    return Workload(uid="far", name="far", namespace="shop", identity=WEB, addresses=(address,), node="node2")


async def test_a_service_that_comes_after_its_first_connection_gets_it() -> None:
    node = Asking(Snapshot())
    asked = node.ask(ADDRESS)
    assert not node.has(asked), "held"
    await node.configuration.changed({keys.RANGES})
    assert not node.has(asked), "a change of something else ends nothing"
    node.view.now = Snapshot([], [service(ADDRESS)])
    await node.configuration.changed({keys.address_of("", ADDRESS)})
    assert node.has(asked)
    assert not node.passes(asked)


async def test_what_does_not_come_is_refused_and_follows_it_when_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(destinations, "MOST_HELD", 0.01)
    node = Asking(Snapshot())
    asked = node.ask(ADDRESS)
    async with asyncio.timeout(60):
        while not node.has(asked):  # noqa: ASYNC110 - a timer of this loop changes it
            await asyncio.sleep(0.005)
    assert not node.passes(asked)
    refused = node.server.store.get(CLUSTER, asked)
    assert refused is not None
    assert b"no pod or Service is known at 10.96.7.7" in refused.body
    plain = ipaddress.ip_address("10.244.2.2")
    node.view.now = Snapshot([workload(plain)], [service(ADDRESS)])
    await node.configuration.changed({keys.address_of("", ADDRESS)})
    assert node.server.store.get(CLUSTER, asked) != refused


async def test_no_other_address_waits() -> None:
    """Outside the ranges, a plain pod that is known, and a Service that this pod may not see."""
    plain = ipaddress.ip_address("10.244.2.2")
    hidden = service(ADDRESS, visibility=Visibility.NAMESPACE)
    node = Asking(Snapshot([workload(plain)], [hidden]))
    for address in (OUTSIDE, ipaddress.ip_address("203.0.113.1"), plain, ADDRESS):
        asked = node.ask(address)
        assert node.has(asked), address
        assert node.passes(asked), address


async def test_a_pod_that_goes_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "MOST_HELD", 0.01)
    node = Asking(Snapshot())
    asked = node.ask(ADDRESS)
    node.configuration.remove(node.web.key)
    await asyncio.sleep(0.05)
    assert node.server.store.get(CLUSTER, asked) is None
