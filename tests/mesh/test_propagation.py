"""What is written to the API server reaches every node proxy, and the control plane counts what it sends, and what is
rejected."""

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from ambit.agent.channel import ControlPlane
from ambit.testing.mesh import Mesh
from ambit.xds import wire
from ambit.xds.client_session import ClientSession
from ambit.xds.frames import Node
from ambit.xds.messages import ADDRESS_TYPE
from tests.charts.test_alerts import RULES
from tests.mesh.pods import pod
from tests.mesh.scrape import scrape
from tests.mesh.test_identity import agents, control_plane, node_token, signing_port

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

SYSTEM = "ambit-system"
PUSHED = re.compile(r'^pilot_xds_pushes\{type="(?:wds|wads)"\} (\d+)$', re.MULTILINE)
READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


def names(mesh: Mesh, node: str, kind: str, namespace: str) -> list[str]:
    """What a node's proxy knows of a namespace."""
    return [each["name"] for each in mesh.dump(kind, "--node", node) if each["namespace"] == namespace]


def counters(mesh: Mesh) -> str:
    """What all control planes count."""
    words = ("get", "pod", "-n", SYSTEM, "-l", "app=istiod", "-o", "name")
    url = "http://localhost:15014/metrics"
    planes = mesh.kubectl(*words).stdout.split()
    return "".join(mesh.exec(SYSTEM, plane, "python3", "-c", READ, url).stdout for plane in planes)


def pushes(mesh: Mesh) -> int:
    return sum(int(count) for count in PUSHED.findall(counters(mesh)))


@pytest.mark.feature("F18", "F152")
def test_every_change_reaches_every_proxy(mesh: Mesh, namespace: str) -> None:
    def known(kind: str, count: int) -> None:
        mesh.wait(
            f"every node knows {count} {kind}",
            lambda: all(len(names(mesh, node, kind, namespace)) == count for node in mesh.nodes),
        )

    before = pushes(mesh)
    template = pod("web", mesh.nodes[0], ["sleep", "3600"], labels={"app": "web"})
    template["spec"]["restartPolicy"] = "Always"
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": template["spec"]},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]},
        },
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "nobody"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
        },
    ]
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(objects))
    known("workloads", 1)
    known("services", 1)
    known("policies", 1)
    after = pushes(mesh)
    assert after > before
    for replicas in (3, 1):
        mesh.kubectl("scale", "-n", namespace, "deployment/web", f"--replicas={replicas}")
        known("workloads", replicas)
    assert pushes(mesh) > after
    mesh.kubectl("delete", "-n", namespace, "service/web", "authorizationpolicy/nobody")
    known("services", 0)
    known("policies", 0)


async def _reject(plane: ControlPlane, node: str, error: str) -> None:
    """Asks for workloads as this node, and rejects the first answer."""
    session = ClientSession((ADDRESS_TYPE,), Node(node))
    async with plane.channel() as channel, asyncio.timeout(60):
        call = channel.stream_stream(wire.METHOD)(metadata=tuple(plane.metadata().items()))
        for request in session.connect():
            await call.write(wire.encode_request(request))
        data = await call.read()
        assert data is not grpc.aio.EOF, await call.details()
        for request in session.reject(session.receive(wire.decode_response(data)), error):
            await call.write(wire.encode_request(request))
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass


@pytest.mark.feature("F168")
def test_what_is_rejected_is_counted_so_that_the_alert_fires(mesh: Mesh, tmp_path: Path) -> None:
    """Whose `increase` sees the first rejection, because what was counted until then, nothing, can be read before."""
    (rule,) = (each for each in RULES if each["alert"] == "AmbitConfigurationRejected")
    name, answer = "ambit_xds_answers_total", 'answer="nack"'
    assert f"increase({name}{{{answer}}}[10m])" in rule["expr"]
    wanted = re.compile(rf'^{name}{{{answer},type="{re.escape(ADDRESS_TYPE)}"}} (\d+)$', re.MULTILINE)

    def rejected() -> list[int]:
        return [int(count) for count in wanted.findall(counters(mesh))]

    before = rejected()
    assert before, "nothing is to be read of an answer that nobody has given"
    agent = next(iter(agents(mesh).values()))
    with signing_port(mesh) as port:
        plane = control_plane(mesh, tmp_path, port, node_token(mesh, agent))
        named = f"ztunnel~1.1.1.1~{agent}.{SYSTEM}~{SYSTEM}.svc.cluster.local"
        asyncio.run(_reject(plane, named, "this is a test"))
    mesh.wait("one more is counted", lambda: sum(rejected()) == sum(before) + 1)
    # What a node's own Envoy refuses is counted there.
    by_nodes = "ambit_configuration_rejected_total"
    assert f"increase({by_nodes}[10m])" in rule["expr"]
    assert len([each for each in scrape(mesh) if each.name == by_nodes]) == len(mesh.nodes)
