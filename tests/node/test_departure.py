"""The end of a pod waits until Envoy has been told, and has said so, that the pod serves nobody any more."""

import asyncio
import ipaddress
from collections.abc import Iterable
from pathlib import Path

import pytest

from ambit.agent.publication import Publication
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.model.workload import Port, Workload, WorkloadStatus
from ambit.node import departure
from ambit.node.departure import Departures
from ambit.node.enrol.sandbox import Sandbox
from ambit.node.state import keys
from ambit.node.state.mesh import MeshState
from ambit.xds.messages import ADDRESS_TYPE, to_resource

SERVICE = "default/web.default.svc.cluster.local"
SANDBOX = Sandbox("default", "web-0", "u", "s", "/n", ("10.0.0.1",))


def workload(
    status: WorkloadStatus = WorkloadStatus.HEALTHY, name: str = "web-0", service: str = SERVICE
) -> Workload:
    return Workload(
        uid=f"Kubernetes//Pod/default/{name}",
        name=name,
        namespace="default",
        identity=Identity("cluster.local", "default", "web"),
        addresses=(ipaddress.ip_address("10.0.0.1"),),
        status=status,
        services={service: (Port(80, 8080),)} if service else {},
    )


class Node:
    """An agent's state, and an Envoy that acknowledges when it is told to."""

    def __init__(self, path: Path) -> None:
        self.state = MeshState(path / "mesh.sqlite")
        self.computed: set[str] = set()
        self.unacknowledged: list[asyncio.Future[None]] = []
        self.departures = Departures(self.state, "", self.changed, lambda: [Pending(self)])

    async def changed(self, touched: Iterable[str]) -> Publication:
        self.computed |= set(touched)
        return Publication({}, {})

    def hears(self, *workloads: Workload) -> None:
        self.state.apply(ADDRESS_TYPE, [to_resource(each) for each in workloads], [])

    def asked(self) -> "asyncio.Task[None]":
        return asyncio.ensure_future(self.departures.left(SANDBOX))


class Pending(Publication):
    """Settles when the test says that Envoy has acknowledged."""

    def __init__(self, node: Node) -> None:
        super().__init__({}, {})
        self._node = node

    async def settled(self) -> str | None:
        acknowledgement: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._node.unacknowledged.append(acknowledgement)
        await acknowledgement
        return None


async def turns() -> None:
    """Lets everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_it_waits_for_the_control_plane_and_then_for_envoy(node: Node) -> None:
    node.hears(workload())
    asked = node.asked()
    await turns()
    node.departures.applied()  # of something else
    await turns()
    assert not node.unacknowledged and not asked.done()
    node.hears(workload(WorkloadStatus.UNHEALTHY))
    node.departures.applied()
    await turns()
    assert len(node.unacknowledged) == 1 and not asked.done()
    assert keys.endpoints(SERVICE) in node.computed
    node.unacknowledged[0].set_result(None)
    async with asyncio.timeout(60):
        await asked


@pytest.mark.parametrize(
    "known", [[], [workload(service="")], [workload(name="other")], [workload(WorkloadStatus.UNHEALTHY)]]
)
async def test_who_serves_nobody_waits_for_envoy_only(node: Node, known: list[Workload]) -> None:
    node.hears(*known)
    asked = node.asked()
    await turns()
    assert len(node.unacknowledged) == 1 and not asked.done()
    node.unacknowledged[0].set_result(None)
    async with asyncio.timeout(60):
        await asked


async def test_it_does_not_wait_for_ever(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departure, "PATIENCE", 0.01)
    node.hears(workload())
    with pytest.raises(AmbitError, match="endpoint still"):
        await node.departures.left(SANDBOX)
