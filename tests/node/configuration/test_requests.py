"""Destinations whose requests are routed on the node: `ambit.node.configuration.requests` within the configuration."""

import ipaddress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from envoy.config.route.v3 import route_pb2
from google.protobuf import any_pb2

from ambit.agent.envoy_server import EnvoyServer
from ambit.core.errors import AmbitError
from ambit.envoy import names
from ambit.model.http import Action, Backend, Entry, Host, RequestMatch
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import AppProtocol, Service, VirtualAddress
from ambit.model.workload import Port, TunnelProtocol, Workload
from ambit.node.configuration.configuration import Configuration
from ambit.node.state.mesh import MeshState
from ambit.plan.values import CLUSTER, LISTENER, ROUTES
from tests.node.configuration.test_configuration import SETTINGS, WEB, pod
from tests.node.state.meshes import store

ADDRESS = ipaddress.ip_address("10.96.0.1")
KEY = "default/web.default.svc.cluster.local"
CLIENT = pod("client", "10.1.0.1")
ASKED = names.Destination(CLIENT.key, ADDRESS, 80)
CLUSTER_NAME = names.destination(CLIENT.key, ADDRESS, 80)
READER = names.requests(ASKED)
SERVER = Workload(
    uid="Kubernetes//Pod/default/server",
    name="server",
    namespace="default",
    identity=WEB,
    addresses=(ipaddress.ip_address("10.1.9.1"),),
    tunnel=TunnelProtocol.HBONE,
    node="node2",
    services={KEY: (Port(80, 8080),)},
)


def web(status: int | None = None, **more: Any) -> Service:
    """Answers all requests with `status`, or sends them to the service itself."""
    action = Action(status=status) if status else Action((Backend(KEY, 80),))
    table = ServiceRoutes(KEY, 80, (Host(("*",), (Entry("e", RequestMatch(), action),)),))
    fields: dict[str, Any] = {
        "name": "web",
        "namespace": "default",
        "hostname": "web.default.svc.cluster.local",
        "addresses": (VirtualAddress("", ADDRESS),),
        "ports": (Port(80, 8080), Port(81, 8081)),
        "inline": (table,),
    }
    return Service(**{**fields, **more})


class Server(EnvoyServer):
    """Whose Envoy wants these tables."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"), lambda *_: None)
        self.wanted: set[str] = set()

    def is_asked_for(self, type_url: str, name: str) -> bool:
        return type_url == ROUTES and name in self.wanted


class Agent:
    """A configuration over a state file, with whatever an earlier agent noted there."""

    def __init__(self, path: Path) -> None:
        self.state = MeshState(path)
        self.server = Server()
        keep, kept = self.state.keep, self.state.kept
        self.configuration = Configuration(
            self.state, SETTINGS, self.server, lambda: True, keep=keep, kept=kept
        )
        self.configuration.begin()

    def want_table(self) -> None:
        """As Envoy does when it has the listener."""
        self.server.wanted.add(READER)
        self.configuration.asked_for_tables([READER])

    def has(self, type_url: str, name: str) -> bool:
        return name in self.server.store.resources(type_url)

    @property
    def backends(self) -> set[str]:
        return {name for name in self.server.store.resources(CLUSTER) if name.startswith("svc|")}

    @property
    def status(self) -> int:
        """With which the table answers; 0 when it goes on."""
        resource = self.server.store.resources(ROUTES)[READER]
        table = route_pb2.RouteConfiguration.FromString(any_pb2.Any.FromString(resource.body).value)
        return int(table.virtual_hosts[0].routes[-1].direct_response.status)

    async def put(self, *values: Any) -> None:
        await self.configuration.changed(store(self.state, list(values), []))


@pytest.fixture
async def agent(tmp_path: Path) -> Agent:
    made = Agent(tmp_path / "state.sqlite")
    await made.put(web(), SERVER)
    made.configuration.add(CLIENT)
    return made


async def test_the_answer_waits_until_envoy_has_the_listener(agent: Agent) -> None:
    agent.configuration.asked([CLUSTER_NAME])
    assert agent.has(LISTENER, READER) and len(agent.backends) == 1
    assert not agent.has(CLUSTER, CLUSTER_NAME) and not agent.has(ROUTES, READER)
    agent.want_table()
    assert agent.has(CLUSTER, CLUSTER_NAME) and agent.has(ROUTES, READER)


async def test_ports_without_requests_are_answered_as_ever(agent: Agent) -> None:
    other = names.destination(CLIENT.key, ADDRESS, 81)
    agent.configuration.asked([other])
    assert agent.has(CLUSTER, other)
    assert not agent.backends


async def test_a_change_of_routes_is_another_table_and_the_same_listener(agent: Agent) -> None:
    agent.configuration.asked([CLUSTER_NAME])
    agent.want_table()
    before = agent.server.store.resources(LISTENER)[READER]
    assert agent.status == 0
    await agent.put(web(404))
    assert agent.status == 404
    assert agent.server.store.resources(LISTENER)[READER] == before
    assert not agent.backends


async def test_endpoints_of_backends_are_followed(agent: Agent) -> None:
    agent.configuration.asked([CLUSTER_NAME])
    (name,) = agent.backends
    before = agent.server.store.resources(CLUSTER)[name]
    another = msgspec.structs.replace(
        SERVER, uid=f"{SERVER.uid}-2", addresses=(ipaddress.ip_address("10.1.9.2"),)
    )
    await agent.put(another)
    assert agent.server.store.resources(CLUSTER)[name] != before


async def test_a_service_becomes_inline_and_is_no_longer(agent: Agent) -> None:
    """Connections go on as bytes until requests can be read, and again afterwards."""
    await agent.put(web(inline=None))
    agent.configuration.asked([CLUSTER_NAME])
    bytes_only = agent.server.store.resources(CLUSTER)[CLUSTER_NAME]
    await agent.put(web(inline=(), app_protocols={80: AppProtocol.HTTP11}))
    assert agent.has(LISTENER, READER)
    assert agent.server.store.resources(CLUSTER)[CLUSTER_NAME] == bytes_only
    agent.want_table()
    assert agent.server.store.resources(CLUSTER)[CLUSTER_NAME] != bytes_only
    await agent.put(web(inline=None))
    assert not (agent.has(LISTENER, READER) or agent.has(ROUTES, READER) or agent.backends)
    assert agent.server.store.resources(CLUSTER)[CLUSTER_NAME] == bytes_only


@pytest.mark.parametrize("way", ["removed", "released"])
async def test_a_pod_that_goes_takes_everything_with_it(agent: Agent, way: str) -> None:
    agent.configuration.asked([CLUSTER_NAME])
    agent.want_table()
    leave = agent.configuration.remove if way == "removed" else agent.configuration.release
    leave(CLIENT.key)
    assert not (agent.has(LISTENER, READER) or agent.has(ROUTES, READER) or agent.backends)
    agent.configuration.add(CLIENT)
    agent.configuration.asked([CLUSTER_NAME])
    agent.want_table()
    assert agent.has(CLUSTER, CLUSTER_NAME) and agent.has(ROUTES, READER)


async def test_the_next_agent_offers_what_envoy_has(agent: Agent, tmp_path: Path) -> None:
    """Before Envoy connects: what is not there then, it would drop."""
    agent.configuration.asked([CLUSTER_NAME])
    agent.want_table()
    before = {each: dict(agent.server.store.resources(each)) for each in (CLUSTER, LISTENER, ROUTES)}
    agent.state.close()
    following = Agent(tmp_path / "state.sqlite")
    following.configuration.add(CLIENT)
    assert {each: dict(following.server.store.resources(each)) for each in before} == before


async def test_what_cannot_be_written_down_serves_nevertheless(agent: Agent) -> None:
    def full(*_: object) -> None:
        raise AmbitError("the disk is full")

    agent.configuration = Configuration(agent.state, SETTINGS, agent.server, lambda: True, keep=full)
    agent.configuration.add(CLIENT)
    agent.configuration.asked([CLUSTER_NAME])
    agent.want_table()
    assert agent.has(CLUSTER, CLUSTER_NAME)


async def test_a_listener_that_returns_may_find_its_table_at_envoy(agent: Agent) -> None:
    """Envoy has the former one while that drains, and does not ask again."""
    agent.configuration.asked([CLUSTER_NAME])
    agent.want_table()
    await agent.put(web(inline=None))
    before = agent.server.store.resources(CLUSTER)[CLUSTER_NAME]
    await agent.put(web())
    assert agent.has(ROUTES, READER)
    assert agent.server.store.resources(CLUSTER)[CLUSTER_NAME] != before
