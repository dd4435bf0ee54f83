"""Connections through a waypoint by TCPRoutes and TLSRoutes: shares, names, and what stays open."""

import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from ambit.model.http import Backend
from ambit.model.proxy import ServiceRoutes
from ambit.model.streams import Stream
from ambit.model.workload import Port
from tests.plan.dataplane.network import REFUSED, read_all
from tests.plan.waypoint.conftest import EMPTY, TCP_PORT, V1, V2, WEB, Scene, service
from tests.plan.waypoint.placements import at_waypoints_only

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.netns,
    at_waypoints_only("a TCPRoute or TLSRoute for a service without a proxy between is refused"),
]

TO_V1, TO_V2 = Backend(V1.key, TCP_PORT), Backend(V2.key, TCP_PORT)
NOBODY = Backend("", 0)
TLS_TARGET = 9443
TLS = {
    name: service(f"tls-{name}", number, bound=False, ports=(Port(TCP_PORT, TLS_TARGET),))
    for name, number in (("v1", 7), ("v2", 8))
}


@pytest.fixture(autouse=True)
def servers(scene: Scene) -> Iterator[None]:
    """On v2. v1 has one, which tells who asks."""

    def serve(connection: socket.socket, _: str) -> None:
        connection.sendall(b"v2 " if read_all(connection) else b"")

    with scene.mesh.pods["v2"].listen(9000, serve):
        yield


@pytest.fixture
def hearers(scene: Scene) -> Iterator[None]:
    """On both: they say who they are when they have heard anything, as a server of TLS does."""
    mesh = scene.mesh
    before = {name: mesh.pods[name].workload for name in TLS}
    with contextlib.ExitStack() as stack:
        for name, of in TLS.items():

            def serve(connection: socket.socket, _: str, name: str = name) -> None:
                if connection.recv(65536):
                    connection.sendall(name.encode())

            pod = mesh.pods[name]
            stack.enter_context(pod.listen(TLS_TARGET, serve))
            services = {**before[name].services, of.key: of.ports}
            pod.workload = msgspec.structs.replace(before[name], services=services)
            mesh.services.append(of)
        yield
        for name, of in TLS.items():
            mesh.pods[name].workload = before[name]
            mesh.services.remove(of)


def stream(scene: Scene, *backends: Backend) -> None:
    streams(scene, Stream("default/route/0", backends))


def streams(scene: Scene, *given: Stream) -> None:
    scene.bind(ServiceRoutes(WEB.key, TCP_PORT, streams=given))


def hello(name: str | None) -> bytes:
    """What a TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def server(scene: Scene) -> str:
    """Who answers."""
    said = scene.client.ask(WEB.addresses[0].address, TCP_PORT)
    return said if said == REFUSED else "v2" if said.startswith("v2") else "v1"


def greeted(scene: Scene, name: str | None) -> str:
    """Who answers a client that asks for this name."""
    try:
        with scene.client.connect(WEB.addresses[0].address, TCP_PORT) as connection:
            connection.sendall(hello(name))
            return connection.recv(16).decode() or REFUSED
    except ConnectionError:
        return REFUSED


def test_connections_are_shared_out_by_weight(scene: Scene) -> None:
    stream(scene, TO_V1, Backend(V2.key, TCP_PORT, weight=3), Backend(EMPTY.key, TCP_PORT, weight=0))
    found = Counter(server(scene) for _ in range(120))
    # Further off than this is one run in a hundred million.
    assert set(found) == {"v1", "v2"}
    assert 7 <= found["v1"] <= 62


@pytest.mark.parametrize("backends", [(NOBODY,), (), (Backend(V2.key, TCP_PORT, weight=0),)])
def test_without_a_backend_connections_are_refused(scene: Scene, backends: tuple[Backend, ...]) -> None:
    stream(scene, *backends)
    assert [server(scene) for _ in range(3)] == [REFUSED] * 3


def test_the_share_of_a_backend_that_does_not_exist_is_refused(scene: Scene) -> None:
    stream(scene, TO_V2, NOBODY)
    assert {server(scene) for _ in range(40)} == {"v2", REFUSED}
    stream(scene, TO_V2, Backend("default/gone.default.svc.cluster.local", TCP_PORT))
    assert {server(scene) for _ in range(40)} == {"v2", REFUSED}


def test_the_first_of_several_has_all(scene: Scene) -> None:
    streams(scene, Stream("default/first/0", (TO_V2,)), Stream("default/second/0", (TO_V1,)))
    assert {server(scene) for _ in range(5)} == {"v2"}


def test_other_backends_cut_no_connection(scene: Scene) -> None:
    stream(scene, TO_V1)
    with scene.client.connect(WEB.addresses[0].address, TCP_PORT) as connection:
        connection.sendall(b"12")
        stream(scene, TO_V2)
        assert server(scene) == "v2"
        connection.sendall(b"345")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).endswith(b" 5")


def test_names_in_hellos_choose(scene: Scene, hearers: None) -> None:
    one, two = ((Backend(of.key, TCP_PORT),) for of in TLS.values())
    streams(
        scene,
        Stream("default/one/0", one, ("one.example.com", "*.example.org")),
        Stream("default/two/0", two, ("two.example.com", "one.example.com", "a.example.org")),
    )
    asked = ("one.example.com", "TWO.example.com", "a.example.org", "b.a.example.org", "example.org", None)
    found = [greeted(scene, each) for each in asked]
    assert found == ["v1", "v2", "v2", "v1", REFUSED, REFUSED]


def test_without_routes_bytes_go_to_the_service_itself(scene: Scene) -> None:
    stream(scene, TO_V2)
    assert server(scene) == "v2"
    scene.bind()
    assert server(scene) == "v1"
