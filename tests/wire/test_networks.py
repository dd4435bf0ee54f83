"""Tunnels inside of tunnels: our nodes, a gateway that is none of ours, and a server in the network behind it."""

import contextlib
from collections.abc import Iterator

import msgspec
import pytest

from ambit.core.identity import Identity
from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Rule, Scope
from ambit.model.service import Service
from ambit.model.view import Snapshot
from ambit.model.workload import GatewayAddress, Port, Workload
from tests.plan.dataplane.agent import until
from tests.plan.dataplane.conftest import Mesh, log_of, service, tunnel_log
from tests.plan.dataplane.network import REFUSED, Host, Network, read_all
from tests.wire.hbone import PORT, Client, Server, context

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
WEST, EAST = "west", "east"
GATEWAY = Identity("cluster.local", "gateways", "east")
SERVER = Identity("cluster.local", "default", "abroad")
VIRTUAL = "10.96.9.9"
HOST = "web.default.svc.cluster.local"
SERVED = 8900
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


class Served:
    """`far` as a server of the network that the gateway leads into: only its own node knows what it serves."""

    def __init__(self, mesh: Mesh, gateway: Server, outside: Host) -> None:
        self.mesh, self.pod = mesh, mesh.pods["far"]
        gateway.dial = lambda _: outside.connect(self.pod.four, PORT)
        mesh.services = [ENTRANCE, web(self.pod.identity.uri)]
        mesh.update()
        self.serve(SERVED)

    def serve(self, target: int, *policies: Authorization) -> None:
        """On this port of the pod."""
        node = self.pod.agent
        own = msgspec.structs.replace(
            self.pod.workload,
            services={f"default/{HOST}": (Port(80, target),)},
            policies=tuple(each.key for each in policies),
        )
        node.view = Snapshot([own], [web(self.pod.identity.uri)], policies)
        node.sync()


@pytest.fixture
def served(mesh: Mesh, gateway: Server, outside: Host) -> Iterator[Served]:
    made = Served(mesh, gateway, outside)
    with made.pod.listen(SERVED):
        yield made


def test_a_server_of_ours_is_asked_for_by_its_services_name(
    mesh: Mesh, outside: Host, served: Served, way: str
) -> None:
    """Through a gateway: the caller's identity is its own end to end, its address is the gateway's."""
    served.serve(SERVED)
    a, far = mesh.pods["a"], served.pod
    assert a.ask(VIRTUAL, 80) == f"{outside.four} 2"
    (entry, *_) = tunnel_log(mesh, far, SERVED, count=1)
    assert (entry.identity, entry.client) == (a.identity.uri, str(outside.four))
    assert entry.destination == f"{far.four}:{SERVED}"
    assert "k8s.namespace.name=default" in entry.baggage


def test_services_of_a_server_change_under_open_tunnels(mesh: Mesh, outside: Host, served: Served) -> None:
    """The name means another port for the next connection, and the open one goes on."""
    served.serve(SERVED)
    with served.pod.listen(SERVED + 1), mesh.pods["a"].connect(VIRTUAL, 80) as client:
        client.sendall(b"first")
        until(lambda: mesh.pods["a"].ask(VIRTUAL, 80).endswith(" 2"), "a connection")
        served.serve(SERVED + 1)
        assert mesh.pods["a"].ask(VIRTUAL, 80) == f"{outside.four} 2"
        tunnel_log(mesh, served.pod, SERVED + 1, count=1)
        client.shutdown(1)
        assert read_all(client) == f"{outside.four} 5".encode()


def test_policy_of_a_server_sees_its_own_port_and_the_caller(
    mesh: Mesh, outside: Host, served: Served, way: str
) -> None:
    def only(port: int) -> Authorization:
        match = Match(principals=(Exact(mesh.pods["a"].identity.principal),), destination_ports=(port,))
        rule = Rule((Clause((match,)),))
        return Authorization("only", "default", Scope.WORKLOAD_SELECTOR, Action.ALLOW, (rule,))

    served.serve(SERVED, only(SERVED))
    assert mesh.pods["a"].ask(VIRTUAL, 80) == f"{outside.four} 2"
    assert mesh.pods["b"].ask(VIRTUAL, 80) == REFUSED
    served.serve(SERVED, only(80))
    assert mesh.pods["a"].ask(VIRTUAL, 80) == REFUSED


@pytest.mark.parametrize(
    ("authority", "status"),
    [
        (f"{HOST}:80", "200"),
        (f"{HOST.upper()}:80", "200"),
        (f"{HOST}:81", "503"),
        ("somebody.test:80", "503"),
        (f"{HOST}:080", "400"),
        (HOST, "400"),
    ],
)
def test_names_that_are_not_the_pods_are_answered_as_by_a_ztunnel(
    mesh: Mesh, outside: Host, served: Served, authority: str, status: str
) -> None:
    served.serve(SERVED)
    made = context(mesh.authority, "spiffe://cluster.local/ns/default/sa/client", server=False)
    client = Client(outside.connect(served.pod.four, PORT), made)
    assert client.answered(client.request(authority)).status == status
    client.close()


def test_a_port_of_the_mesh_has_no_name(mesh: Mesh, outside: Host, served: Served) -> None:
    served.serve(15008)
    assert mesh.pods["a"].ask(VIRTUAL, 80) == REFUSED
