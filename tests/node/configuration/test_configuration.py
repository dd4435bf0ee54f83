"""The node's configuration: rules 1 to 3 of `ambit.node.configuration.configuration`."""

import asyncio
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.agent.envoy_server import EnvoyServer
from ambit.agent.publication import Publication
from ambit.core.address import Address
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.service import Service, VirtualAddress
from ambit.model.view import MeshView, Snapshot
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.node.configuration import configuration, destinations, detours, turnover
from ambit.node.configuration.configuration import Configuration
from ambit.node.state import keys
from ambit.node.state.mesh import MeshState
from ambit.plan.node import node_proxy
from ambit.plan.values import CLUSTER, EXTENSION, LISTENER, LocalPod, LocalPods, NodeSettings
from ambit.xds.messages import Value
from tests.node.state.meshes import ADDRESSES, steps, store

WEB = Identity("cluster.local", "default", "web")
SETTINGS = NodeSettings(node="node1")


def pod(name: str, *addresses: str) -> LocalPod:
    found = tuple(ipaddress.ip_address(each) for each in addresses)
    return LocalPod(f"uid-{name}", "default", name, f"s-{name}", WEB, found, f"/run/netns/{name}")


class Node:
    """A configuration over a view; `complete` is what the rest of the agent knows."""

    def __init__(self, view: MeshView, noted: Callable[[LocalPod], None] = lambda _: None) -> None:
        self.view = view
        self.complete = True
        self.server = EnvoyServer(Path("/nonexistent"), lambda *_: None)
        self.configuration = Configuration(view, SETTINGS, self.server, lambda: self.complete, noted)
        self.configuration.begin()

    def versions(self, type_url: str) -> dict[str, str]:
        return {name: each.version for name, each in self.server.store.resources(type_url).items()}


async def test_1_inbound_listeners_and_answers_wait_for_a_complete_mesh() -> None:
    node = Node(Snapshot())
    node.complete = False
    web = pod("web", "10.1.0.1")
    node.configuration.add(web)
    asked = names.destination(web.key, ipaddress.ip_address("10.9.0.1"), 80)
    node.configuration.asked([asked])
    assert names.outbound_listener(web.key) in node.versions(LISTENER)
    assert names.hbone_listener(web.key) not in node.versions(LISTENER)
    assert asked not in node.versions(CLUSTER)
    node.complete = True
    node.configuration.open()
    assert names.hbone_listener(web.key) in node.versions(LISTENER)
    assert asked in node.versions(CLUSTER)


@settings(max_examples=50, deadline=None)
@given(changes=steps, data=st.data())
def test_2_answers_follow_every_change(
    tmp_path_factory: pytest.TempPathFactory,
    changes: list[tuple[list[Value], list[Value]]],
    data: st.DataObject,
) -> None:
    """Clusters, and the outbound listener's knowledge of what goes straight into a tunnel."""
    state = MeshState(tmp_path_factory.mktemp("state") / "state.sqlite")
    pods = {each.name: each for each in (pod("x", "10.1.0.1"), pod("y", "10.1.0.2", "fd00::1"))}
    here: dict[str, LocalPod] = {}
    wanted = [*ADDRESSES, ipaddress.ip_address("10.1.7.7"), ipaddress.ip_address("10.200.0.1")]

    async def run() -> None:
        node = Node(state)
        for put, remove in changes:
            name = data.draw(st.sampled_from(sorted(pods)))
            if name in here:
                here.pop(name)
                node.configuration.release(pods[name].key)
            else:
                here[name] = pods[name]
                node.configuration.add(pods[name])
                for form in (names.destination, names.tunnelled):
                    asked = [form(pods[name].key, each, 80) for each in wanted]
                    node.configuration.asked(asked)
            touched = store(state, put, remove)
            if data.draw(st.booleans()):
                for each in here.values():
                    node.configuration.prepare(each.key, [(address, 80) for address in wanted])
            await node.configuration.changed(touched)
            clusters, table = node.versions(CLUSTER), LocalPods(here.values())
            shares = {
                each.key: {
                    (address, 80): share
                    for address in wanted
                    if (share := node_proxy.tunnelled_share(_to(each, address), state, table, SETTINGS))
                }
                for each in here.values()
            }
            for each in here.values():
                for planned in node_proxy.pod_resources(each, state, SETTINGS, tunnelled=shares[each.key]):
                    assert node.versions(planned.type_url)[planned.name] == planned.version
            for cluster in clusters:
                asked_for = names.parse_cluster(cluster) if cluster.startswith(("dst|", "tun|")) else None
                if (
                    isinstance(asked_for, names.Destination)
                    and cluster not in node.configuration.moves.detours
                ):
                    is_divided = (asked_for.address, 80) in shares.get(asked_for.source, {})
                    answer = node_proxy.destination(cluster, state, table, SETTINGS, is_divided=is_divided)
                    assert clusters[cluster] == answer.version, cluster

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(configuration, "LISTENER_DELAY", 0)
        asyncio.run(run())
    state.close()


def _to(source: LocalPod, address: Address) -> names.Destination:
    return names.Destination(source.key, address, 80)


async def test_2_a_way_that_ends_stays_until_connections_go_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A pod on another node leaves the mesh: what Envoy has sent into the tunnel still gets there."""
    monkeypatch.setattr(detours, "GRACE", 0.0)
    far = _far()
    view = Changing(Snapshot([far]))
    node = Node(view)
    web = pod("web", "10.1.0.1")
    node.configuration.add(web)
    asked, tunnelled = (form(web.key, far.addresses[0], 80) for form in (names.destination, names.tunnelled))
    node.configuration.prepare(web.key, [(far.addresses[0], 80)])
    node.configuration.asked([asked, tunnelled])
    before = node.versions(CLUSTER)
    listener = node.versions(LISTENER)[names.outbound_listener(web.key)]

    view.now = Snapshot([msgspec.structs.replace(far, tunnel=TunnelProtocol.NONE)])
    await node.configuration.changed({keys.resource("far"), keys.address_of("", far.addresses[0])})
    assert node.versions(LISTENER)[names.outbound_listener(web.key)] != listener
    assert node.versions(CLUSTER)[asked] != before[asked]
    assert node.versions(CLUSTER)[tunnelled] == before[tunnelled]
    await node.configuration.changed({keys.resource("far")})
    assert node.versions(CLUSTER)[tunnelled] == before[tunnelled], "another change does not end it"

    monkeypatch.setattr(Publication, "settled", _acknowledged)
    work = asyncio.ensure_future(node.configuration.moves.detours.run())
    async with asyncio.timeout(60):
        while tunnelled in node.configuration.moves.detours:  # noqa: ASYNC110 - a task of ours changes it
            await asyncio.sleep(0)
    work.cancel()
    answer = node_proxy.destination(tunnelled, view, LocalPods([web]), SETTINGS)
    assert node.versions(CLUSTER)[tunnelled] == answer.version != before[tunnelled]


def _far(tunnel: TunnelProtocol = TunnelProtocol.HBONE) -> Workload:
    """A pod on another node."""
    return Workload(
        uid="far",
        name="far",
        namespace="default",
        identity=WEB,
        addresses=(ipaddress.ip_address("10.9.0.1"),),
        tunnel=tunnel,
        node="node2",
    )


class Way:
    """The way of a pod to one on another node, which has a tunnel or none; `now` changes what is stored of that, and
    `follow` computes what follows from it, which happens a moment later."""

    def __init__(self) -> None:
        self.far = _far()
        self._view = Changing(Snapshot([self.far]))
        self.node = Node(self._view)
        self.web = pod("web", "10.1.0.1")
        self.node.configuration.add(self.web)
        self.asked, self.tunnelled = (
            form(self.web.key, self.far.addresses[0], 80) for form in (names.destination, names.tunnelled)
        )

    def now(self, tunnel: TunnelProtocol) -> None:
        self._view.now = Snapshot([_far(tunnel)])

    async def follow(self) -> None:
        touched = {keys.resource("far"), keys.address_of("", self.far.addresses[0])}
        await self.node.configuration.changed(touched)

    async def ask(self, name: str) -> None:
        """As Envoy, for the first time; returns when the pod's listener has changed."""
        before = self.listener()
        self.node.configuration.asked([name])
        async with asyncio.timeout(60):
            while self.listener() == before:  # noqa: ASYNC110 - the event loop changes it
                await asyncio.sleep(0)

    async def settle(self) -> None:
        """Until nothing waits for Envoy any more."""
        work = asyncio.ensure_future(self.node.configuration.moves.detours.run())
        async with asyncio.timeout(60):
            while self.tunnelled in self.node.configuration.moves.detours:  # noqa: ASYNC110 - a task of ours changes it
                await asyncio.sleep(0)
        work.cancel()

    def listener(self) -> str:
        return self.node.versions(LISTENER)[names.outbound_listener(self.web.key)]

    def into(self) -> str:
        """The version of what the tunnelled name leads to."""
        return self.node.versions(CLUSTER)[self.tunnelled]

    def right(self) -> str:
        """Its version as it is to be now."""
        pods = LocalPods([self.web])
        return node_proxy.destination(self.tunnelled, self._view, pods, SETTINGS).version


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Way]:
    monkeypatch.setattr(detours, "GRACE", 0.0)
    monkeypatch.setattr(configuration, "LISTENER_DELAY", 0)
    monkeypatch.setattr(Publication, "settled", _acknowledged)
    return Way


async def test_2_a_listener_that_sends_into_a_tunnel_early_brings_the_tunnel(way: Callable[[], Way]) -> None:
    """It is computed from what is stored, the other answers only when what follows from a change is."""
    it = way()
    it.now(TunnelProtocol.NONE)
    it.node.configuration.asked([it.tunnelled])
    refused = it.into()
    it.now(TunnelProtocol.HBONE)
    await it.ask(it.asked)
    assert it.into() == it.right() != refused


async def test_2_a_tunnel_stays_for_a_listener_that_left_it_early(way: Callable[[], Way]) -> None:
    it = way()
    await it.ask(it.tunnelled)
    before = it.into()
    it.now(TunnelProtocol.NONE)
    await it.ask(it.asked)
    assert it.into() == before, "Envoy may not have taken the listener yet"
    await it.follow()
    assert it.into() == before
    await it.settle()
    assert it.into() == it.right() != before


async def test_2_a_tunnel_stays_when_its_end_comes_again_as_the_former_one_is_over(
    way: Callable[[], Way],
) -> None:
    it = way()
    await it.ask(it.tunnelled)
    before = it.into()
    for tunnel in (TunnelProtocol.NONE, TunnelProtocol.HBONE):
        it.now(tunnel)
        await it.follow()
    assert it.into() == before
    kept = []
    original = it.node.configuration.moves.detours._answer

    def answer(over: frozenset[str]) -> None:
        original(over)
        kept.append(it.into() == before)

    it.node.configuration.moves.detours._answer = answer
    it.now(TunnelProtocol.NONE)
    await it.settle()
    assert kept == [True, False]
    assert it.into() == it.right()


async def test_2_a_destination_that_is_gone_is_refused_at_once() -> None:
    far = Workload(
        uid="far",
        name="far",
        namespace="default",
        identity=WEB,
        addresses=(ipaddress.ip_address("10.9.0.1"),),
        tunnel=TunnelProtocol.HBONE,
        node="node2",
        services={"default/web.default.svc": (Port(80, 80),)},
    )
    virtual = ipaddress.ip_address("10.200.0.9")
    web_service = Service(
        "web", "default", "web.default.svc", addresses=(VirtualAddress("", virtual),), ports=(Port(80, 80),)
    )
    view = Changing(Snapshot([far], [web_service]))
    node = Node(view)
    web = pod("web", "10.1.0.1")
    node.configuration.add(web)
    tunnelled = names.tunnelled(web.key, virtual, 80)
    node.configuration.asked([tunnelled])
    before = node.versions(CLUSTER)[tunnelled]
    view.now = Snapshot([], [web_service])
    await node.configuration.changed({keys.endpoints(web_service.key)})
    assert node.versions(CLUSTER)[tunnelled] != before
    assert tunnelled not in node.configuration.moves.detours


class Changing:
    """A view of what is there now."""

    def __init__(self, now: Snapshot) -> None:
        self.now = now

    def __getattr__(self, name: str) -> Any:
        return getattr(self.now, name)


async def test_2_an_ended_sandbox_leaves_nothing() -> None:
    node = Node(Snapshot())
    before = {kind: node.versions(kind) for kind in (CLUSTER, LISTENER, EXTENSION)}
    web = pod("web", "10.1.0.1")
    node.configuration.add(web)
    node.configuration.asked([names.destination(web.key, ADDRESSES[1], 80)])
    node.configuration.remove(web.key)
    assert {kind: node.versions(kind) for kind in before} == before
    assert len(node.configuration.destinations) == 0


async def test_a_pod_that_is_gone_is_known_by_key_to_its_last_records() -> None:
    node = Node(Snapshot())
    web = pod("web", "10.1.0.1")
    node.configuration.add(web)
    node.configuration.remove(web.key)
    table = node.configuration.table
    assert table.by_key(web.key) == web
    assert table.by_address(web.addresses[0]) is None and list(table) == []


async def _acknowledged(_: Publication) -> None:
    """Envoy took it."""


async def test_2_a_pod_at_its_limit_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """New connections ask for other names; the old ones go when nothing can wait for them any more."""
    monkeypatch.setattr(destinations, "MAX_DESTINATIONS", 2)
    monkeypatch.setattr(turnover, "GRACE", 0.0)
    noted: list[tuple[int, ...]] = []
    node = Node(Snapshot(), lambda pod: noted.append(pod.generations))
    web = pod("web", "10.1.0.1")
    node.configuration.add(web)
    wanted = [names.destination(web.key, ADDRESSES[1], port) for port in (81, 82, 83)]
    node.configuration.asked(wanted)
    assert node.configuration.destinations.capped == set() and set(noted) == {(0, 1)}
    anew = msgspec.structs.replace(web, generations=(0, 1))
    (outbound,) = node_proxy.outbound_resources(anew, Snapshot(), SETTINGS)
    assert node.versions(LISTENER)[outbound.name] == outbound.version
    for name in wanted:
        answer = node_proxy.destination(name, Snapshot(), LocalPods([anew]), SETTINGS)
        assert node.versions(CLUSTER)[name] == answer.version
    assert len(node.configuration.destinations) == 0
    again = names.destination(web.key, ADDRESSES[1], 81, 1)
    node.configuration.asked([again])
    assert len(node.configuration.destinations) == 1
    # No Envoy has acknowledged the listener yet, so nothing goes.
    work = asyncio.ensure_future(node.configuration.turnover.run())
    await asyncio.sleep(0)
    assert set(wanted) <= node.versions(CLUSTER).keys()
    monkeypatch.setattr(Publication, "settled", _acknowledged)
    node.configuration.turnover.begun(anew, Publication({}, {}))
    async with asyncio.timeout(60):
        while set(wanted) & node.versions(CLUSTER).keys():  # noqa: ASYNC110 - a task of ours changes it
            await asyncio.sleep(0)
    work.cancel()
    assert again in node.versions(CLUSTER)
    # An old name that Envoy remembers is no question any more.
    node.configuration.asked(wanted)
    assert not set(wanted) & node.versions(CLUSTER).keys()
    node.configuration.remove(web.key)
    assert not [name for name in node.versions(CLUSTER) if name.startswith("dst")]


async def test_2_a_pod_that_left_and_comes_back_goes_on_with_its_names() -> None:
    """Envoy does not ask again for those of an earlier generation."""
    node = Node(Snapshot())
    web = pod("web", "10.1.0.1")
    node.configuration.add(msgspec.structs.replace(web, generations=(2,)))
    node.configuration.release(web.key)
    node.configuration.add(web)
    assert [each.generations for each in node.configuration.pods] == [(2,)]


async def test_2_destinations_of_a_pod_are_capped_when_it_began_anew_lately(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(destinations, "MAX_DESTINATIONS", 2)
    monkeypatch.setattr(turnover, "KEPT", 1)
    node = Node(Snapshot())
    web = pod("web", "10.1.0.1")
    node.configuration.add(web)
    wanted = [names.destination(web.key, ADDRESSES[1], port) for port in (81, 82, 83)]
    node.configuration.asked(wanted)
    refused = node_proxy.destination(wanted[2], Snapshot(), LocalPods(), SETTINGS)
    assert node.versions(CLUSTER)[wanted[2]] == refused.version
    assert node.configuration.destinations.capped == {web.key}
    only = [(ADDRESSES[1], 81), (ADDRESSES[1], 82)]
    (limited,) = node_proxy.outbound_resources(web, Snapshot(), SETTINGS, only)
    assert node.versions(LISTENER)[limited.name] == limited.version
    node.configuration.remove(web.key)
    assert not [name for name in node.versions(CLUSTER) if name.startswith("dst|")]


async def test_2_all_pods_together_are_capped_at_a_fair_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "NODE_DESTINATIONS", 6)
    monkeypatch.setattr(destinations, "LEAST_SHARE", 2)
    monkeypatch.setattr(turnover, "KEPT", 1)
    node = Node(Snapshot())
    greedy, modest = pod("greedy", "10.1.0.1"), pod("modest", "10.1.0.2")
    for each, ports in ((greedy, range(81, 91)), (modest, range(81, 84))):
        node.configuration.add(each)
        node.configuration.asked([names.destination(each.key, ADDRESSES[1], port) for port in ports])
    assert node.configuration.destinations.capped == {greedy.key}
    assert names.destination(modest.key, ADDRESSES[1], 83) in node.versions(CLUSTER)


async def test_3_changes_that_come_together_are_one_publication() -> None:
    node = Node(Snapshot())
    node.configuration.add(pod("web", "10.1.0.1"))
    first, second = await asyncio.gather(
        node.configuration.changed({"p:default"}), node.configuration.changed({"p:*"})
    )
    assert first is second
