"""A waypoint behind a node proxy: what arrives in tunnels is handed to it, with the PROXY protocol if it asks."""

import socket
import struct
from collections.abc import Iterator

import msgspec
import pytest

from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Rule, Scope
from ambit.model.service import Service
from ambit.model.workload import ApplicationTunnel, GatewayAddress, TunnelledAs
from tests.plan.dataplane.agent import until
from tests.plan.dataplane.conftest import Mesh, Pod, service, tunnel_log
from tests.plan.dataplane.network import REFUSED, Host, read_all
from tests.wire.hbone import PORT, Client, context

pytestmark = [pytest.mark.netns, pytest.mark.envoy]
VIRTUAL, VIRTUAL6 = "10.96.6.6", "fd99::66"
TOLD = 15088
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
WAYPOINT = Service(
    name="waypoint", namespace="default", hostname="waypoint.default.svc.cluster.local", ports=()
)
GATEWAY = GatewayAddress(15008, namespace="default", hostname=WAYPOINT.hostname)


class Header(msgspec.Struct):
    """The PROXY protocol's, version 2 (haproxy's proxy-protocol.txt, section 2.2)."""

    source: tuple[str, int]
    destination: tuple[str, int]
    values: dict[int, bytes]


def read_header(connection: socket.socket) -> Header:
    start = _exactly(connection, 16)
    assert start[:12] == SIGNATURE
    command, family, length = struct.unpack("!BBH", start[12:])
    assert command == 0x21, "version 2, PROXY"
    assert family in {0x11, 0x21}, "STREAM"
    size, kind = (4, socket.AF_INET) if family == 0x11 else (16, socket.AF_INET6)
    body = _exactly(connection, length)
    source, destination = (socket.inet_ntop(kind, body[at : at + size]) for at in (0, size))
    ports = struct.unpack_from("!HH", body, 2 * size)
    values, rest = {}, body[2 * size + 4 :]
    while rest:
        number, count = struct.unpack_from("!BH", rest)
        values[number], rest = rest[3 : 3 + count], rest[3 + count :]
    return Header((source, ports[0]), (destination, ports[1]), values)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part, "ended inside of the header"
        data += part
    return data


class Proxy:
    """The application in `far`: takes what it is handed on one port."""

    def __init__(self, mesh: Mesh, pod: Pod) -> None:
        self.mesh, self.pod = mesh, pod
        self.headers: list[Header] = []
        self.clients: list[str] = []

    def serve(self, connection: socket.socket, client: str) -> None:
        self.headers.append(read_header(connection))
        self.clients.append(client)
        connection.sendall(f"heard {len(read_all(connection))}".encode())

    def serve_plainly(self, connection: socket.socket, client: str) -> None:
        self.clients.append(client)
        connection.sendall(f"heard {len(read_all(connection))}".encode())

    def ask_for(self, protocol: TunnelledAs, port: int) -> None:
        """Its node has `web` bound to it."""
        bound = msgspec.structs.replace(service(VIRTUAL, VIRTUAL6), waypoint=GATEWAY)
        self.mesh.services = [WAYPOINT, bound]
        self.pod.workload = msgspec.structs.replace(
            self.pod.workload, application_tunnel=ApplicationTunnel(protocol, port)
        )
        self.mesh.serve(WAYPOINT.key, {self.pod.local.name: 0})


@pytest.fixture
def proxy(mesh: Mesh) -> Iterator[Proxy]:
    made = Proxy(mesh, mesh.pods["far"])
    yield made
    made.pod.workload = msgspec.structs.replace(made.pod.workload, application_tunnel=None)


@pytest.mark.parametrize("virtual", [VIRTUAL, VIRTUAL6])
def test_it_is_told_who_asks_for_what(mesh: Mesh, proxy: Proxy, way: str, virtual: str) -> None:
    """Client and what it dialled as addresses, its identity as a value; it comes on loopback."""
    a = mesh.pods["a"]
    proxy.ask_for(TunnelledAs.PROXY, TOLD)
    with proxy.pod.listen(TOLD, proxy.serve), a.connect(virtual, 80) as client:
        client.sendall(b"x" * 100_000)
        client.shutdown(1)
        assert read_all(client) == b"heard 100000"
    (header,) = proxy.headers
    family = 4 if virtual == VIRTUAL else 6
    (source,) = (each for each in a.addresses if each.version == family)
    assert header.source[0] == str(source)
    assert header.destination == (virtual, 80)
    assert header.values == {0xD0: a.identity.uri.encode()}
    assert proxy.clients == ["127.0.0.1"]


def test_without_a_port_of_its_own_it_gets_the_one_that_was_asked_for(
    mesh: Mesh, proxy: Proxy, way: str
) -> None:
    proxy.ask_for(TunnelledAs.PROXY, 0)
    with proxy.pod.listen(80, proxy.serve):
        assert mesh.pods["a"].ask(VIRTUAL, 80) == "heard 2"
    assert proxy.headers[0].destination == (VIRTUAL, 80)


@pytest.mark.parametrize("port", [0, 9080])
def test_without_the_protocol_only_the_port_may_be_another(
    mesh: Mesh, proxy: Proxy, way: str, port: int
) -> None:
    proxy.ask_for(TunnelledAs.NONE, port)
    with proxy.pod.listen(port or 80, proxy.serve_plainly):
        assert mesh.pods["a"].ask(VIRTUAL, 80) == "heard 2"
    assert proxy.clients == [str(proxy.pod.four)]


def test_also_from_its_own_node(mesh: Mesh, proxy: Proxy) -> None:
    """Whoever asks for the pod itself gets no further than the application's port either."""
    near = mesh.pods["far2"]
    proxy.ask_for(TunnelledAs.PROXY, TOLD)
    with proxy.pod.listen(TOLD, proxy.serve), proxy.pod.listen(9081):
        assert near.ask(VIRTUAL, 80) == "heard 2"
        assert near.ask(proxy.pod.four, 9081) == "heard 2"
    assert [each.destination for each in proxy.headers] == [(VIRTUAL, 80), (str(proxy.pod.four), 9081)]


def test_policy_sees_the_port_that_it_listens_on(mesh: Mesh, proxy: Proxy, way: str) -> None:
    """And the identity of who asks."""
    a, b = mesh.pods["a"], mesh.pods["b"]
    proxy.ask_for(TunnelledAs.PROXY, TOLD)
    proxy.pod.workload = msgspec.structs.replace(proxy.pod.workload, policies=("default/only",))

    def allow(port: int) -> None:
        only = Match(principals=(Exact(a.identity.principal),), destination_ports=(port,))
        rule = Rule((Clause((only,)),))
        mesh.policies = [Authorization("only", "default", Scope.WORKLOAD_SELECTOR, Action.ALLOW, (rule,))]
        mesh.update()

    with proxy.pod.listen(TOLD, proxy.serve):
        allow(TOLD)
        assert a.ask(VIRTUAL, 80) == "heard 2"
        assert b.ask(VIRTUAL, 80) == REFUSED
        told = {(a.identity.uri, False), (b.identity.uri, True)}
        until(
            lambda: (
                told <= {(each.identity, each.denied) for each in tunnel_log(mesh, proxy.pod, 80, count=2)}
            ),
            "lines of both",
        )
        allow(80)
        assert a.ask(VIRTUAL, 80) == REFUSED
    assert len(proxy.headers) == 1


@pytest.mark.parametrize("port", [15001, 15008, 15053])
def test_a_port_of_the_mesh_leads_nowhere(mesh: Mesh, proxy: Proxy, way: str, port: int) -> None:
    proxy.ask_for(TunnelledAs.PROXY, port)
    assert mesh.pods["a"].ask(VIRTUAL, 80) == REFUSED


@pytest.mark.parametrize(
    ("authority", "status"),
    [
        ("10.1.2.3:80", "200"),
        ("10.1.2.3:15001", "503"),
        ("10.1.2.3:080", "400"),
        ("10.1.2.3", "400"),
        ("somebody.test:80", "503"),
    ],
)
def test_what_tunnels_may_be_for(
    mesh: Mesh, proxy: Proxy, outside: Host, authority: str, status: str
) -> None:
    """Any address, as the control plane says that it stands for others; but nothing that is not one."""
    proxy.ask_for(TunnelledAs.PROXY, TOLD)
    made = context(mesh.authority, "spiffe://cluster.local/ns/default/sa/client", server=False)
    with proxy.pod.listen(TOLD, proxy.serve):
        client = Client(outside.connect(proxy.pod.four, PORT), made)
        stream = client.request(authority, [("forwarded", 'for="1.2.3.4:5"'), ("x-forwarded-for", "1.2.3.4")])
        assert client.answered(stream).status == status
        if status == "200":
            client.send(stream, b"hi", end=True)
            assert client.finished(stream).body == b"heard 2"
        client.close()
    assert [_place(each.destination) for each in proxy.headers] == ([authority] if status == "200" else [])
    assert all(each.source[0] == str(outside.four) for each in proxy.headers), "never a header's"


@pytest.mark.parametrize(
    "authority", ["[fd00::1]:80", "999.1.1.1:80", "1.2.3:80", "[::::]:80", "[1:2]:80", "1.2.3.4:65536"]
)
def test_what_the_protocol_cannot_say_is_refused_and_harms_nobody(
    mesh: Mesh, proxy: Proxy, outside: Host, authority: str
) -> None:
    """Addresses of two families, and what is none: other tunnels of the same node notice nothing."""
    proxy.ask_for(TunnelledAs.PROXY, TOLD)
    made = context(mesh.authority, "spiffe://cluster.local/ns/default/sa/client", server=False)
    with proxy.pod.listen(TOLD, proxy.serve):
        other = Client(outside.connect(proxy.pod.four, PORT), made)
        stream = other.request("10.1.2.3:80")
        assert other.answered(stream).status == "200"
        client = Client(outside.connect(proxy.pod.four, PORT), made)
        wrong = client.request(authority)
        client.send(wrong, b"hi", end=True)
        assert client.finished(wrong).status == "503"
        other.send(stream, b"hi", end=True)
        assert other.finished(stream).body == b"heard 2"
        client.close()
        other.close()
    assert [each.destination for each in proxy.headers] == [("10.1.2.3", 80)]


def _place(destination: tuple[str, int]) -> str:
    address, port = destination
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
