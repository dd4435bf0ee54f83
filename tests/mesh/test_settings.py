"""Settings of the node proxy: made in one place, the same on each node."""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.testing.laptop import LaptopMesh
from ambit.testing.mesh import Mesh
from ambit.testing.plugin import start_mesh
from tests.mesh.traffic import attempts, start_traffic

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("on Kubernetes settings are values of the chart: tests/kubernetes/test_roll.py"),
]
NAMESPACE = "settings"
SET = {"AMBIT_CONCURRENCY": "2", "AMBIT_MAX_DRAIN": "599", "AMBIENT_DNS_CAPTURE": "false"}


@pytest.fixture(scope="module")
def own(kubectl_program: str | None) -> Iterator[LaptopMesh]:
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        mesh = start_mesh(Path(root), kubectl_program)
        try:
            mesh.create_namespace(NAMESPACE, {"istio.io/dataplane-mode": "ambient"})
            start_traffic(mesh, NAMESPACE)
            yield mesh
        finally:
            mesh.ambit("down")


def dumped(mesh: Mesh, node: str) -> dict[str, Any]:
    """The settings in the dump of a node's proxy."""
    url = "http://127.0.0.1:15000/config_dump"
    config: dict[str, Any] = json.loads(mesh.on_node(node, "curl", "-sS", url).stdout)["config"]
    return config


@pytest.mark.feature("F25")
def test_a_setting_of_the_daemonset_is_that_of_every_node(own: LaptopMesh) -> None:
    before = [dumped(own, node) for node in own.nodes]
    assert [each["localNode"] for each in before] == list(own.nodes)
    assert [(each["numWorkerThreads"], each["maxDrain"], each["dnsProxy"]) for each in before] == [
        (1, 3600, True)
    ] * 2
    words = (f"{key}={value}" for key, value in SET.items())
    own.kubectl("-n", "ambit-system", "set", "env", "daemonset/ambit-node", *words)
    own.kubectl("-n", "ambit-system", "rollout", "status", "daemonset/ambit-node", "--timeout=110s")
    changed = {"numWorkerThreads": 2, "maxDrain": 599, "dnsProxy": False}
    after = [each | changed for each in before]
    own.wait("each node has them", lambda: [dumped(own, node) for node in own.nodes] == after)

    def threads() -> bool:
        return [each["envoy"]["threads"] for each in own.dump("node", "status")] == [2, 2]

    own.wait("both Envoys have two threads", threads)
    moment = time.time()

    def served() -> bool:
        newest = attempts(own, NAMESPACE, since=moment)[-20:]
        return len(newest) == 20 and all(each.result == 200 for each in newest)

    own.wait("requests are served again", served)
