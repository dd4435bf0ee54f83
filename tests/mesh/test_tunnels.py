"""Tunnels between two pods: few, however many connections they carry."""

import json
import math
from collections.abc import Iterator

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace, pod
from tests.mesh.talk import SERVER

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

AT_ONCE = 250
A_TUNNEL_CARRIES = 100
# Dials so often before it waits for any answer, then tells what the kernel knows of the pod's namespace: connections to
# the tunnels' port, and how many sockets take what the pod opens, one for each worker.
OPEN = """
import json, socket, sys
address, number = sys.argv[1], int(sys.argv[2])
six = ":" in address
made = [socket.socket(socket.AF_INET6 if six else socket.AF_INET) for _ in range(number)]
for each in made:
    each.setblocking(False)
    each.connect_ex((address, 9000))
for each in made:
    each.settimeout(30)
    assert each.recv(5) == b"hello"
found = [line.split()[1:4] for line in open("/proc/net/tcp6" if six else "/proc/net/tcp").read().splitlines()[1:]]
port = lambda end: int(end.split(":")[1], 16)
tunnels = sum(state == "01" and port(remote) == 15008 for _, remote, state in found)
workers = sum(state == "0A" and port(local) == 15001 for local, _, state in found)
print(json.dumps({"tunnels": tunnels, "workers": workers}))
"""


@pytest.fixture(scope="module")
def namespace(mesh: Mesh) -> Iterator[str]:
    near, far = mesh.nodes[:2]
    probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
    with make_namespace(mesh) as name:
        mesh.apply(
            [
                pod("client", near, ["sleep", "3600"], namespace=name),
                pod("server", far, ["python3", "-uc", SERVER], namespace=name, readinessProbe=probe),
            ]
        )
        mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        yield name


def opened(mesh: Mesh, namespace: str, address: str, number: int) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        mesh.exec(namespace, "client", "python3", "-c", OPEN, address, str(number)).stdout
    )
    return found


@pytest.mark.feature("F147")
@pytest.mark.parametrize("family", [0, -1])
def test_many_connections_of_a_pod_share_a_few_tunnels(mesh: Mesh, namespace: str, family: int) -> None:
    """At most as many tunnels as carry them, for each worker. What the first connections made, while the destination
    and the way there became known, stays for some minutes."""
    address = mesh.pod_addresses(namespace, "server")[family]
    seen: list[int] = []

    def is_warm() -> bool:
        seen.append(opened(mesh, namespace, address, 1)["tunnels"])
        return seen[-1] > 0 and seen[-5:] == seen[-1:] * 5

    mesh.wait("the way is known", is_warm)
    found = opened(mesh, namespace, address, AT_ONCE)
    assert found["workers"] > 0
    enough = seen[-1] + found["workers"] * math.ceil(AT_ONCE / A_TUNNEL_CARRIES)
    assert found["tunnels"] <= enough
    assert opened(mesh, namespace, address, AT_ONCE)["tunnels"] <= enough, "they are used again"
