"""A control plane behind a link of one megabyte a second: what is known goes on, changes come as fast as they can."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ambit.testing.laptop import LaptopMesh
from tests.mesh.traffic import attempts, start_traffic

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only("narrows the wire of a node that tests of others use too"),
]
RATE = 1_000_000
"""Bytes a second."""
POLICIES, NAMES = 16, 1_600
SIZE = 80 * POLICIES * NAMES
"""Bytes of their names, at the least, for each node."""
CONTROL = ("-n", "ambit-system", "-l", "app=istiod", "-o", "jsonpath={.items[0].spec.nodeName}")


def policy(number: int) -> dict[str, object]:
    """One that is for nobody, and long."""
    names = [f"cluster.local/ns/somewhere-{number:02}/sa/{'x' * 80}-{each}" for each in range(NAMES)]
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": f"long-{number}"},
        "spec": {
            "selector": {"matchLabels": {"app": "nobody"}},
            "rules": [{"from": [{"source": {"principals": names}}]}],
        },
    }


@contextmanager
def narrow(mesh: LaptopMesh, node: str) -> Iterator[None]:
    """What leaves the node waits for its turn."""
    device = ("dev", "eth0", "root")
    shape = ("tbf", "rate", f"{RATE * 8}", "burst", "32kb", "latency", "400ms")
    mesh.on_node(node, "tc", "qdisc", "add", *device, *shape)
    try:
        yield
    finally:
        mesh.on_node(node, "tc", "qdisc", "del", *device)


def sent(mesh: LaptopMesh, node: str) -> int:
    """Bytes that have left it since it was made narrow."""
    shown = mesh.on_node(node, "tc", "-s", "-j", "qdisc", "show", "dev", "eth0").stdout
    return int(json.loads(shown)[0]["bytes"])


def acknowledged(mesh: LaptopMesh, namespace: str) -> None:
    condition = "--for=condition=ambit.io/Acknowledged"
    mesh.kubectl("wait", condition, "authorizationpolicy", "--all", "-n", namespace, "--timeout=110s")


@pytest.mark.timeout(300)
def test_changes_come_late_and_nothing_else_does(laptop: LaptopMesh, namespace: str) -> None:
    """Also when the agent that waits for them is killed: it begins with what it had."""
    start_traffic(laptop, namespace)
    sender = laptop.kubectl("get", "pod", *CONTROL).stdout
    (receiver,) = (node for node in laptop.nodes[:2] if node != sender)
    made = {"apiVersion": "v1", "kind": "List", "items": [policy(number) for number in range(POLICIES)]}
    with narrow(laptop, sender):
        begun = time.time()
        laptop.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(made))
        laptop.kill("node agent", receiver)
        acknowledged(laptop, namespace)
        assert sent(laptop, sender) > SIZE, "they did cross that link"
        laptop.wait("requests after it", lambda: attempts(laptop, namespace)[-1].at > begun + 5)
    lost = [each for each in attempts(laptop, namespace, since=begun) if each.result != 200]
    # While the agent is away nobody answers for names, and a resolver asks for ten seconds only.
    assert [each for each in lost if (each.kind, each.result) != ("fresh", "gaierror")] == []
    assert [each for each in attempts(laptop, namespace, "denied") if each.result == 200] == []
