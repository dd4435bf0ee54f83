"""Clients of our nodes and a waypoint that is none of ours: it ends their tunnels and makes its own to the servers."""

import contextlib
from collections.abc import Iterator

import msgspec
import pytest

from ambit.core.identity import Identity
from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Rule, Scope
from ambit.model.service import Service, WeightedWaypoint
from ambit.model.workload import GatewayAddress, Port, TunnelProtocol, Workload
from tests.plan.dataplane.conftest import Mesh, log_of, service, tunnel_log
from tests.plan.dataplane.network import REFUSED, Host
from tests.wire.hbone import PORT, Client, Request, Server, carried, context

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
IDENTITY = Identity("cluster.local", "default", "waypoint")
VIRTUAL = "10.96.8.8"
SERVED = 8700
WAYPOINT = Service(
    name="waypoint",
    namespace="default",
    hostname="waypoint.default.svc.cluster.local",
    ports=(Port(15008, 15008),),
)
GATEWAY = GatewayAddress(15008, namespace="default", hostname=WAYPOINT.hostname)


@pytest.fixture
def waypoint(mesh: Mesh, outside: Host) -> Iterator[Server]:
    """It goes on to `far`, whatever it is asked for, as itself."""
    far = mesh.pods["far"]
    mesh.others = [
        Workload(
            uid="Kubernetes//Pod/default/waypoint",
            name="waypoint",
            namespace="default",
            identity=IDENTITY,
            addresses=outside.addresses,
            node="elsewhere",
            services={WAYPOINT.key: ()},
        )
    ]

    def dial(_: Request) -> object:
        client = Client(outside.connect(far.four, PORT), context(mesh.authority, IDENTITY.uri, server=False))
        stream = client.request(f"{far.four}:{SERVED}")
        assert client.answered(stream).status == "200"
        return carried(client, stream)

    made = context(mesh.authority, IDENTITY.uri, server=True)
    with far.listen(SERVED), Server(outside, made, dial=dial) as server:  # type: ignore[arg-type]
        yield server


def bind(mesh: Mesh, *services: Service) -> None:
    mesh.services = [WAYPOINT, *services]
    mesh.serve(service().key, {"far": SERVED})


def bound(**fields: object) -> Service:
    return msgspec.structs.replace(service(VIRTUAL), **{"waypoint": GATEWAY, **fields})


def test_a_service_is_reached_through_its_waypoint_and_in_no_other_way(
    mesh: Mesh, outside: Host, waypoint: Server, way: str
) -> None:
    """The waypoint sees the caller's identity and address and what it dialled, the server's node the waypoint's."""
    bind(mesh, bound())
    a, far = mesh.pods["a"], mesh.pods["far"]
    assert a.ask(VIRTUAL, 80) == f"{outside.four} 2"
    (request,) = waypoint.requests
    assert request.header(":authority") == f"{VIRTUAL}:80"
    assert request.header("forwarded").endswith('";host=web.default.svc.cluster.local')
    assert request.identity == a.identity.uri
    assert request.peer.startswith(f"{a.four}:")
    (entry, *_) = tunnel_log(mesh, far, SERVED, count=1)
    assert (entry.identity, entry.client) == (IDENTITY.uri, str(outside.four))
    assert log_of(a.agent, "outbound", f"{VIRTUAL}:80").identity == IDENTITY.uri


@pytest.mark.parametrize("family", [4, 6])
def test_a_workloads_address_is_reached_through_its_waypoint(
    mesh: Mesh, outside: Host, waypoint: Server, way: str, family: int
) -> None:
    """Its service is not: that one has no waypoint."""
    a, far = mesh.pods["a"], mesh.pods["far"]
    address = far.four if family == 4 else far.six
    far.workload = msgspec.structs.replace(far.workload, waypoint=GATEWAY)
    try:
        bind(mesh, service(VIRTUAL))
        assert a.ask(address, SERVED) == f"{outside.four} 2"
        (request,) = waypoint.requests
        assert request.header(":authority") == (
            f"{address}:{SERVED}" if family == 4 else f"[{address}]:{SERVED}"
        )
        assert a.ask(VIRTUAL, 80) == f"{a.four} 2"
        assert len(waypoint.requests) == 1
    finally:
        far.workload = msgspec.structs.replace(far.workload, waypoint=None)


def test_a_waypoint_on_the_callers_own_node_is_asked_as_any(
    mesh: Mesh, outside: Host, waypoint: Server, way: str
) -> None:
    """Its tunnel is its own; nothing of the node takes its place."""
    mesh.others = [msgspec.structs.replace(mesh.others[0], node="node1", tunnel=TunnelProtocol.HBONE)]
    bind(mesh, bound())
    assert mesh.pods["a"].ask(VIRTUAL, 80) == f"{outside.four} 2"


def test_a_waypoint_of_another_identity_is_not_believed(mesh: Mesh, waypoint: Server, way: str) -> None:
    impostor = Identity("cluster.local", "default", "somebody")
    mesh.others = [msgspec.structs.replace(mesh.others[0], identity=impostor)]
    bind(mesh, bound())
    assert mesh.pods["a"].ask(VIRTUAL, 80) == REFUSED
    assert waypoint.requests == []
    named = msgspec.structs.replace(WAYPOINT, subject_alt_names=(IDENTITY.uri,))
    mesh.services = [named, bound()]
    mesh.update()
    assert mesh.pods["a"].ask(VIRTUAL, 80) != REFUSED, "its service names it"


def test_without_a_waypoint_that_is_ready_nobody_gets_through(
    mesh: Mesh, outside: Host, waypoint: Server, way: str
) -> None:
    """Refused with the reason while it is away, and served again when it is back."""
    a, there = mesh.pods["a"], list(mesh.others)
    bind(mesh, bound())
    assert a.ask(VIRTUAL, 80) == f"{outside.four} 2"
    mesh.others = []
    mesh.update()
    assert a.ask(VIRTUAL, 80) == REFUSED
    failure = log_of(a.agent, "outbound", f"{VIRTUAL}:80", "waypoint").failure
    assert failure == f"waypoint {WAYPOINT.key} is not ready"
    mesh.others = there
    mesh.update()
    assert a.ask(VIRTUAL, 80) == f"{outside.four} 2"
    waypoint.status = "503"
    waypoint.dial = None
    assert a.ask(VIRTUAL, 80) == REFUSED


def test_weighted_waypoints_share_connections(mesh: Mesh, waypoint: Server, way: str) -> None:
    """One of the two is not there: the other has all, and nobody goes round it."""
    gone = GatewayAddress(15008, namespace="default", hostname="gone.test")
    both = (WeightedWaypoint(gone, 90), WeightedWaypoint(GATEWAY, 10))
    bind(mesh, bound(waypoint=None, weighted_waypoints=both))
    for _ in range(3):
        assert mesh.pods["a"].ask(VIRTUAL, 80) != REFUSED
    assert len(waypoint.requests) == 3


def test_a_policy_can_ask_that_everything_comes_through_the_waypoint(
    mesh: Mesh, outside: Host, waypoint: Server, way: str
) -> None:
    """What the waypoint decides holds for everybody when the server lets in nobody else."""
    a, far = mesh.pods["a"], mesh.pods["far"]
    only = Match(principals=(Exact(IDENTITY.principal),))
    mesh.policies = [
        Authorization(
            "only-waypoint", "default", Scope.WORKLOAD_SELECTOR, Action.ALLOW, (Rule((Clause((only,)),)),)
        )
    ]
    far.workload = msgspec.structs.replace(far.workload, policies=("default/only-waypoint",))
    bind(mesh, bound())
    assert a.ask(VIRTUAL, 80) == f"{outside.four} 2"
    assert a.ask(far.four, SERVED) == REFUSED


def test_many_at_once(mesh: Mesh, waypoint: Server, way: str) -> None:
    bind(mesh, bound())
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(mesh.pods["a"].connect(VIRTUAL, 80)) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(b"x" * (number + 1))
            client.shutdown(1)
        answers = [client.recv(100).split()[-1] for client in clients]
    assert answers == [str(number + 1).encode() for number in range(20)]
