"""What passes tunnels between nodes whose wire is narrower than pods are told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace, pod
from tests.mesh.recorder import Recording, recording

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

MTU = 1400
SIZE = 1_000_000
# Sends back what it gets, and the same again in the other order.
SERVER = """
import socket, threading

def mirror(connection):
    with connection, connection.makefile("rb") as file:
        connection.sendall(b"ready\\n")
        while size := file.readline():
            text = file.read(int(size))
            connection.sendall(text + text[::-1])

server = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=500)
while True:
    threading.Thread(target=mirror, args=[server.accept()[0]], daemon=True).start()
"""
EXCHANGE = """
import os, socket, sys
size, text = int(sys.argv[2]), os.urandom(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 9000), 60) as dialled, dialled.makefile("rb") as file:
    assert file.readline() == b"ready\\n"
    dialled.sendall(b"%d\\n" % size + text)
    print("same" if file.read(2 * size) == text + text[::-1] else "different")
"""
SET_MTU = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    request = struct.pack("16si12x", b"eth0", int(sys.argv[1]))
    former = fcntl.ioctl(any_socket, 0x8921, request)
    if int(sys.argv[1]):
        fcntl.ioctl(any_socket, 0x8922, request)
print(struct.unpack("16si12x", former)[1])
"""


@pytest.fixture(scope="module")
def pair(mesh: Mesh) -> Iterator[str]:
    """A client and a server on different nodes that know each other as members of the mesh."""
    probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
    with make_namespace(mesh) as name:
        near, far = mesh.nodes[:2]
        mesh.apply(
            [
                pod("client", near, ["sleep", "3600"], namespace=name),
                pod("server", far, ["python3", "-uc", SERVER], namespace=name, readinessProbe=probe),
            ]
        )
        mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        mesh.wait("it is reached through a tunnel", lambda: _is_tunnelled(mesh, name))
        yield name


def _is_tunnelled(mesh: Mesh, namespace: str) -> bool:
    address, *_ = mesh.pod_addresses(namespace, "server")
    mesh.exec(namespace, "client", "python3", "-c", EXCHANGE, address, "1", check=False)
    lines = mesh.ambit("flows", "--to", f"{namespace}/server", "-o", "json").stdout.splitlines()
    return any(flow.get("hop") == "tunnel" for flow in map(json.loads, lines))


@contextmanager
def narrow(mesh: Mesh, nodes: tuple[str, ...]) -> Iterator[None]:
    """The wire between these nodes takes packets of MTU bytes at most."""
    former = {node: mesh.on_node(node, "python3", "-c", SET_MTU, "0").stdout.strip() for node in nodes}
    try:
        for node in nodes:
            mesh.on_node(node, "python3", "-c", SET_MTU, str(MTU))
        yield
    finally:
        for node, mtu in former.items():
            mesh.on_node(node, "python3", "-c", SET_MTU, mtu)


@pytest.mark.feature("F149")
@pytest.mark.parametrize("family", [0, -1])
def test_a_megabyte_passes_a_wire_that_is_narrower_than_the_pods_are_told(
    mesh: Mesh, pair: str, family: int
) -> None:
    near, far = mesh.nodes[:2]
    address = mesh.pod_addresses(pair, "server")[family]
    with narrow(mesh, (near, far)):
        with recording(mesh, far, near) as recorded:
            words = ("python3", "-c", EXCHANGE, address, str(SIZE))
            assert mesh.exec(pair, "client", *words).stdout == "same\n"
        assert sum(len(frame) for frame in recorded.frames) > 3 * SIZE, "it did cross that wire"
        assert fragments(recorded) == 0


def fragments(recorded: Recording) -> int:
    """IPv4 packets that are parts of greater ones."""
    return sum(
        frame[12:14] == b"\x08\x00" and int.from_bytes(frame[20:22], "big") & 0x3FFF != 0
        for frame in recorded.frames
    )
