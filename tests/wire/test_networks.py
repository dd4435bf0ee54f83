"""Tunnels inside of tunnels: our nodes, a gateway that is none of ours, and a server in the network behind it."""

import contextlib
from collections.abc import Iterator

import msgspec
import pytest

from ambit.core.identity import Identity
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress, Port, Workload
from tests.plan.dataplane.conftest import Mesh, log_of, service
from tests.plan.dataplane.network import REFUSED, Host, Network, read_all
from tests.wire.hbone import PORT, Server, context

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
WEST, EAST = "west", "east"
GATEWAY = Identity("cluster.local", "gateways", "east")
SERVER = Identity("cluster.local", "default", "abroad")
VIRTUAL = "10.96.9.9"
HOST = "web.default.svc.cluster.local"
ENTRANCE = Service(
    name="east", namespace="gateways", hostname="east.gateways.svc", ports=(Port(15008, 15008),)
)
BY_NAME = GatewayAddress(15008, namespace="gateways", hostname=ENTRANCE.hostname)


@pytest.fixture(scope="module")
def abroad(network: Network) -> Host:
    """A host of the other network."""
    return network.host("abroad")


@pytest.fixture
def server(mesh: Mesh, abroad: Host) -> Iterator[Server]:
    with Server(abroad, context(mesh.authority, SERVER.uri, server=True), greeting=b"hello") as server:
        yield server


@pytest.fixture
def gateway(mesh: Mesh, outside: Host, abroad: Host, server: Server) -> Iterator[Server]:
    """The gateway of the other network, the only way to it; our nodes know what an istiod would tell them."""
    for agent in mesh.agents.values():
        agent.settings = msgspec.structs.replace(agent.settings, network=WEST)
    pods = {name: pod.workload for name, pod in mesh.pods.items()}
    for pod in mesh.pods.values():
        pod.workload = msgspec.structs.replace(pod.workload, network=WEST)
    mesh.services = [ENTRANCE, web()]
    mesh.others = [entrance(outside), remote()]
    mesh.update()
    made = context(mesh.authority, GATEWAY.uri, server=True)
    with Server(outside, made, dial=lambda _: outside.connect(abroad.four, PORT)) as gateway:
        yield gateway
    for agent in mesh.agents.values():
        agent.settings = msgspec.structs.replace(agent.settings, network="")
    for name, pod in mesh.pods.items():
        pod.workload = pods[name]


def web(*identities: str) -> Service:
    made = service(VIRTUAL)
    addresses = tuple(msgspec.structs.replace(each, network=WEST) for each in made.addresses)
    return msgspec.structs.replace(
        made, addresses=addresses, ports=(Port(80, 8080),), subject_alt_names=identities or (SERVER.uri,)
    )


def entrance(host: Host) -> Workload:
    return Workload(
        uid="c2//Pod/gateways/east",
        name="east",
        namespace="gateways",
        identity=GATEWAY,
        addresses=host.addresses,
        network=EAST,
        services={ENTRANCE.key: ()},
    )


def remote(gateway: GatewayAddress = BY_NAME, **fields: object) -> Workload:
    """All endpoints of the other network in one, without an address."""
    return Workload(
        uid="east/default/web",
        name="web",
        namespace="default",
        identity=SERVER,
        network=EAST,
        network_gateway=gateway,
        services={f"default/{HOST}": (Port(80, 8080),)},
        **fields,  # type: ignore[arg-type]
    )


def test_both_tunnels_name_the_service_and_only_the_inner_one_has_what_is_said(
    mesh: Mesh, gateway: Server, server: Server, way: str
) -> None:
    """The gateway sees the caller and not its bytes; the server sees the caller's identity end to end."""
    a = mesh.pods["a"]
    with a.connect(VIRTUAL, 80) as client:
        assert client.recv(5) == b"hello"
        port = client.getsockname()[1]
        client.sendall(b"a secret")
        client.shutdown(1)
        assert read_all(client) == b" 8"
    (outer,), (inner,) = gateway.requests, server.requests
    assert outer.header(":authority") == inner.header(":authority") == f"{HOST}:80"
    assert outer.identity == inner.identity == a.identity.uri
    assert inner.header("x-forwarded-network") == WEST
    assert "x-forwarded-network" not in dict(outer.headers)
    for request in (outer, inner):
        assert request.header("forwarded").startswith(f'for="{a.four}:{port}"')
    assert inner.header("traceparent")[:35] == outer.header("traceparent")[:35], "one trace"
    assert "k8s.namespace.name=default" in inner.header("baggage")
    assert inner.heard == b"a secret"
    assert b"secret" not in outer.heard
    assert outer.peer.startswith(f"{a.four}:")
    entry = log_of(a.agent, "outbound", f"{VIRTUAL}:80")
    assert (entry.route, entry.target, entry.failure) == ("tunnel", f"{HOST}:80", "")


def test_every_connection_has_an_inner_tunnel_of_its_own(
    mesh: Mesh, gateway: Server, server: Server, way: str
) -> None:
    """So the gateway chooses a server for each. The tunnels to the gateway are shared."""
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(mesh.pods["a"].connect(VIRTUAL, 80))
            assert client.recv(5) == b"hello"
    assert len(gateway.requests) == len(server.requests) == server.connections == 10
    assert gateway.connections < 10


def test_much_goes_both_ways_and_either_side_may_end_first(
    mesh: Mesh, gateway: Server, server: Server, way: str
) -> None:
    said = b"x" * 300_000
    with mesh.pods["a"].connect(VIRTUAL, 80) as client:
        client.sendall(said)
        client.shutdown(1)
        assert read_all(client) == b"hello 300000"
    assert server.requests[0].heard == said


def test_a_gateway_can_be_named_by_its_address(mesh: Mesh, outside: Host, gateway: Server, way: str) -> None:
    mesh.others = [entrance(outside), remote(GatewayAddress(15008, network=EAST, address=outside.four))]
    mesh.update()
    assert mesh.pods["a"].ask(VIRTUAL, 80) == "hello 2"


@pytest.mark.parametrize("which", ["gateway", "server"])
def test_who_is_not_who_was_meant_gets_nothing(
    mesh: Mesh, outside: Host, gateway: Server, server: Server, way: str, which: str
) -> None:
    """The certificate of a trusted authority is not enough, at neither of the two ends."""
    somebody = Identity("cluster.local", "default", "somebody")
    if which == "gateway":
        mesh.others[0] = msgspec.structs.replace(mesh.others[0], identity=somebody)
    else:
        mesh.services = [ENTRANCE, web(somebody.uri)]
    mesh.update()
    assert mesh.pods["a"].ask(VIRTUAL, 80) == REFUSED
    assert server.requests == []
    assert bool(gateway.requests) == (which == "server")


def test_without_a_gateway_or_names_of_servers_connections_are_refused(
    mesh: Mesh, gateway: Server, server: Server, way: str
) -> None:
    """They are not tried in any other way."""
    a, there = mesh.pods["a"], list(mesh.others)
    for services, others in (
        ([ENTRANCE, web("not-spiffe")], there),
        ([web()], there),
        ([ENTRANCE, web()], [there[1]]),
        ([ENTRANCE, web()], [there[0], msgspec.structs.replace(there[1], network_gateway=None)]),
    ):
        mesh.services, mesh.others = services, others
        mesh.update()
        assert a.ask(VIRTUAL, 80) == REFUSED
    assert (gateway.requests, server.requests) == ([], [])
    mesh.services, mesh.others = [ENTRANCE, web()], there
    mesh.update()
    assert a.ask(VIRTUAL, 80) == "hello 2"


@pytest.mark.parametrize("status", ["401", "503"])
def test_a_refusal_at_either_end_ends_the_connection(
    mesh: Mesh, gateway: Server, server: Server, way: str, status: str
) -> None:
    server.status = status
    assert mesh.pods["a"].ask(VIRTUAL, 80) == REFUSED
    assert server.requests
    gateway.status, gateway.dial = status, None
    assert mesh.pods["a"].ask(VIRTUAL, 80) == REFUSED
