"""Memory of the node proxy stays within what is asked for."""

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import apply_in, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]
CONNECTIONS = 1_000
MOST = 128 << 20
"""Bytes: what the chart asks of the scheduler for Envoy and agent together, `node.resources`."""
SERVER = """
import asyncio, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
async def main():
    server = await asyncio.start_server(echo, "", 8080, backlog=1000)
    await server.serve_forever()
asyncio.run(main())
"""
HOLDER = f"""
import asyncio, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
async def ask(reader, writer):
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
async def main():
    opened = []
    for _ in range({CONNECTIONS // 50}):
        opened += await asyncio.gather(*(asyncio.open_connection("server", 80) for _ in range(50)))
    while True:
        for one in opened:
            await ask(*one)
        print(len(opened), flush=True)
asyncio.run(main())
"""


def _serves(mesh: Mesh, node: str) -> bool:
    return [each["envoy"]["state"] for each in mesh.dump("node", "status", node)] == ["serving"]


@pytest.mark.feature("F146")
def test_a_thousand_open_connections_fit_into_what_the_chart_asks_for(mesh: Mesh, namespace: str) -> None:
    near, far = mesh.nodes[:2]
    for node in (near, far):
        # Whatever tests before used is gone with it, and so is an older one that still carries something of theirs.
        former = mesh.processes("envoy", node)
        for pid in former:
            mesh.end_process(node, pid)
        mesh.wait("another Envoy", lambda: not set(former) & set(mesh.processes("envoy", node)))  # noqa: B023
    mesh.wait("Envoys started anew", lambda: all(_serves(mesh, each) for each in (near, far)))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "server"},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    server = pod("server", far, ["python3", "-c", SERVER], labels={"app": "server"}, readinessProbe=probe)
    apply_in(mesh, namespace, [service, server])
    apply_in(mesh, namespace, [pod("holder", near, ["python3", "-uc", HOLDER])])
    mesh.wait(
        "all are open and were used twice",
        lambda: mesh.kubectl("logs", "-n", namespace, "holder").stdout.split()[1:] != [],
    )
    for node in (near, far):
        assert _serves(mesh, node)
        held = {part: mesh.anonymous_memory(part, node) for part in ("envoy", "node agent")}
        assert sum(held.values()) < MOST, held
