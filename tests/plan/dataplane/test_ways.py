"""The ways a connection can take, through real Envoys: tunnel, same node, plain; addresses and bytes
intact."""

import socket
from collections import Counter

import pytest

from ambit.model.workload import Workload
from tests.plan.dataplane.conftest import Mesh, log_of, service, tunnel_log
from tests.plan.dataplane.network import REFUSED, Host, ip, read_all
from tests.plan.dataplane.served import until

pytestmark = [pytest.mark.netns, pytest.mark.envoy, pytest.mark.usefixtures("way")]
VIP = "10.99.0.1"
VIP6 = "fd99::1"


@pytest.mark.parametrize("destination", ["far", "near"])
def test_source_address_is_kept(mesh: Mesh, destination: str) -> None:
    a, server = mesh.pods["a"], mesh.pods[destination]
    with server.listen(8080):
        assert a.ask(server.four, 8080) == f"{a.four} 2"
        assert a.ask(server.six, 8080) == f"{a.six} 2"


def test_pods_never_share_a_connection(mesh: Mesh) -> None:
    """Neither two identities nor two pods of one identity (`a` and `twin`), tunnels already open or not."""
    far = mesh.pods["far"]
    clients = [mesh.pods[name] for name in ("a", "b", "twin")]
    with far.listen(8090):
        for _ in range(3):
            for client in clients:
                assert client.ask(far.four, 8090) == f"{client.four} 2"
    entries = tunnel_log(mesh, far, 8090, count=9)
    assert {(entry.client, entry.identity) for entry in entries} == {
        (str(client.four), client.identity.uri) for client in clients
    }


def test_unknown_destinations_pass_through(mesh: Mesh, outside: Host) -> None:
    a = mesh.pods["a"]
    with outside.listen(8080):
        assert a.ask(outside.four, 8080) == f"{a.four} 2"
        assert a.ask(outside.six, 8080) == f"{a.six} 2"
    assert a.ask(outside.four, 8081) == REFUSED


def test_addresses_that_cannot_be_in_the_mesh_need_no_question(mesh: Mesh, outside: Host, way: str) -> None:
    """Until the mesh has an address nearby."""
    a, agent = mesh.pods["a"], mesh.agents["node1"]
    last = 5 if way == "straight" else 6  # Envoy never asks twice
    four, six = f"203.0.113.{last}", f"2001:db8::{last}"
    for address, bits in ((four, 32), (six, 128)):
        ip("-n", outside.netns.name, "addr", "replace", f"{address}/{bits}", "dev", "lo")
        gateway = outside.four if bits == 32 else outside.six
        ip("-n", a.netns.name, "route", "replace", f"{address}/{bits}", "via", str(gateway))
    with outside.listen(8084):
        assert a.ask(four, 8084) == f"{a.four} 2"
        assert a.ask(six, 8084) == f"{a.six} 2"
        assert not [name for name in agent.asked if four in name or six in name]
        entry = log_of(agent, "outbound", f"{four}:8084")
        assert (entry.route, entry.pod) == ("direct", a.local.key)
        assert a.ask(four, 15008) == REFUSED
        mesh.services = [service("203.0.113.77")]
        mesh.update()
        until(lambda: a.ask("203.0.113.77", 80) == REFUSED, "the new service to be known")
        assert a.ask(four, 8084) == f"{a.four} 2"
        assert [name for name in agent.asked if f"{four}:8084" in name]


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
def test_ports_of_the_mesh_are_refused(mesh: Mesh, outside: Host, port: int) -> None:
    a = mesh.pods["a"]
    with outside.listen(port):
        assert a.ask(outside.four, port) == REFUSED
        assert a.ask("127.0.0.1", 15001) == REFUSED


@pytest.mark.parametrize("destination", ["far", "near"])
def test_half_close_and_much_data(mesh: Mesh, destination: str) -> None:
    a, server = mesh.pods["a"], mesh.pods[destination]

    def serve(connection: socket.socket, _: str) -> None:
        heard = read_all(connection)
        connection.sendall(heard[::-1])

    sent = bytes(range(256)) * 4096
    with server.listen(8082, serve), a.connect(server.four, 8082) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == sent[::-1]


@pytest.mark.parametrize("destination", ["far", "near"])
def test_server_that_speaks_and_closes_first(mesh: Mesh, destination: str) -> None:
    a, server = mesh.pods["a"], mesh.pods[destination]
    banner = b"220 ready\r\n" * 100
    with server.listen(8083, lambda connection, _: connection.sendall(banner)):
        for _ in range(100):
            with a.connect(server.four, 8083) as connection:
                assert read_all(connection) == banner


@pytest.mark.parametrize("destination", ["far", "near"])
def test_much_data_of_a_server_that_closes_first(mesh: Mesh, destination: str) -> None:
    a, server = mesh.pods["a"], mesh.pods[destination]
    answer = bytes(range(256)) * 24576
    with server.listen(8085, lambda connection, _: connection.sendall(answer)):
        for _ in range(5):
            with a.connect(server.four, 8085) as connection:
                assert read_all(connection) == answer


def test_service_with_local_remote_and_plain_endpoints(mesh: Mesh, outside: Host) -> None:
    a, near, far, far2 = (mesh.pods[name] for name in ("a", "near", "far", "far2"))
    plain = Workload(
        uid="plain",
        name="plain",
        namespace="default",
        identity=far.identity,
        addresses=outside.addresses,
        services=service().ports_of(9001),
    )
    hosts = (near, far, far2, outside)
    mesh.others = [plain]
    mesh.services = [service(VIP, VIP6)]
    mesh.serve(service().key, {"near": 9001, "far": 9001, "far2": 9001})
    listeners = [host.listen(9001, _say_own(host)) for host in hosts]
    seen = Counter(a.ask(address, 80) for address in (VIP, VIP6) for _ in range(96))
    for listener in listeners:
        listener.close()
    assert set(seen) == {f"{host.four} {source}" for host in hosts for source in (a.four, a.six)}
    assert min(seen.values()) >= 2


def test_service_without_port_or_endpoint_is_refused(mesh: Mesh) -> None:
    a = mesh.pods["a"]
    mesh.services = [service(VIP)]
    mesh.serve(service().key, {"far": 9002})
    with mesh.pods["far"].listen(9002):
        assert a.ask(VIP, 80).startswith(str(a.four))
        assert a.ask(VIP, 81) == REFUSED
        mesh.serve(service().key, {})
        assert a.ask(VIP, 80) == REFUSED
        mesh.serve(service().key, {"far": 9002})
        assert a.ask(VIP, 80).startswith(str(a.four))


def test_a_pod_reaches_itself_through_a_service(mesh: Mesh) -> None:
    a = mesh.pods["a"]
    mesh.services = [service(VIP)]
    mesh.serve(service().key, {"a": 9003})
    with a.listen(9003):
        assert a.ask(VIP, 80) == f"{a.four} 2"
        assert a.ask(a.four, 9003) == f"{a.four} 2"


def _say_own(host: Host):  # type: ignore[no-untyped-def]
    def serve(connection: socket.socket, client: str) -> None:
        read_all(connection)
        connection.sendall(f"{host.four} {client}".encode())

    return serve


def test_an_endpoint_of_the_other_family_is_dialled_from_the_pods_own_address(
    mesh: Mesh, outside: Host
) -> None:
    a = mesh.pods["a"]
    mesh.services = [service(VIP, VIP6)]
    for address, source in ((outside.six, a.six), (outside.four, a.four)):
        only = Workload(
            uid=f"only-{address.version}",
            name="only",
            namespace="default",
            identity=a.identity,
            addresses=(address,),
            services=service().ports_of(9004),
        )
        mesh.others = [only]
        mesh.update()
        with outside.listen(9004):
            assert {a.ask(virtual, 80) for virtual in (VIP, VIP6)} == {f"{source} 2"}
