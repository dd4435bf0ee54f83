"""Parts of the mesh and of the cluster go away under traffic: who is served goes on, who is denied never gets in.

The API server is away for half a minute, not for the two that people fear: longer than the control plane's lease
lasts, than a token's review is remembered and than any of the mesh's own time limits, so nothing else would happen.
(After more than a minute Kubernetes takes all nodes for lost, and Services have no endpoints until kubelets report.)
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambit.testing.mesh import Mesh
from tests.kubernetes.cluster import control, processes, programs
from tests.kubernetes.cluster.settings import Node
from tests.kubernetes.inside import Kubernetes
from tests.mesh.pods import make_namespace
from tests.mesh.traffic import Attempt, denied_client, start_traffic

pytestmark = [pytest.mark.kubernetes, pytest.mark.kubectl, pytest.mark.timeout(300)]

SYSTEM = "ambit-system"
RETURN = 180.0
"""Seconds for Kubernetes' own controllers to work again."""
HANGS, AWAY = 10, 20
"""Seconds for which the API server does not answer, and then for which it is not there."""
AGENT = ["-m", "ambit", "node", "run"]
DENIED_TOO = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: denied-too}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{from: [{source: {serviceAccounts: [denied]}}]}]
"""


@pytest.fixture(scope="module")
def traffic(mesh: Mesh) -> Iterator[str]:
    """A namespace with `client`, which is served all the time, and `denied`, which tries all the time."""
    with make_namespace(mesh) as namespace:
        start_traffic(mesh, namespace)
        yield namespace


def attempts(kubernetes: Kubernetes, namespace: str, pod: str, since: float = 0) -> list[Attempt]:
    """What a client saw, from the files of its node, which are there without an API server."""
    lines = [
        line.split(" ", 3)[3]
        for node in kubernetes.cluster.nodes
        for path in sorted((node.home / "var-log/pods").glob(f"{namespace}_{pod}_*/main/*.log"))
        for line in path.read_text().splitlines()
        if line.endswith("]")
    ]
    return [found for found in map(Attempt, lines) if found.at >= since]


def failed(found: list[Attempt]) -> list[Attempt]:
    return [attempt for attempt in found if attempt.result != 200]


def served_until(kubernetes: Kubernetes, namespace: str, moment: float) -> None:
    """Waits until the client was served ten times in a row, on new and on kept connections, after `moment`."""

    def served() -> bool:
        found = attempts(kubernetes, namespace, "client", since=moment)[-10:]
        return len(found) == 10 and not failed(found)

    kubernetes.wait("the client is served", served)


def nobody_got_in(kubernetes: Kubernetes, namespace: str, pod: str = "denied") -> None:
    found = attempts(kubernetes, namespace, pod)
    assert len(found) > 20
    assert [attempt for attempt in found if attempt.result == 200] == []


def agent_process(node: Node) -> int:
    """The node agent's id on this machine."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_text().split("\0")
                if words[1:5] == AGENT and f"/{node.key}/" in (folder / "cgroup").read_text():
                    found.append(int(folder.name))
    (pid,) = found
    return pid


@contextlib.contextmanager
def api_server_stopped(kubernetes: Kubernetes) -> Iterator[int]:
    """The API server accepts connections and answers nobody; it may be killed meanwhile, and is started again."""
    pid = processes.recorded(kubernetes.cluster.state, control.API_SERVER)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        control.start_api_server(kubernetes.cluster, programs.bin_folder())
        # Kubernetes' controllers take half a minute to notice, and longer on a busy machine.
        with kubernetes.namespace("api-server-is-back", patience=RETURN):
            pass


@pytest.mark.feature("F23")
def test_the_api_server_is_away(kubernetes: Kubernetes, mesh: Mesh, traffic: str) -> None:
    moment = time.time()
    with api_server_stopped(kubernetes) as pid:
        served_until(kubernetes, traffic, moment + HANGS)
        os.kill(pid, signal.SIGKILL)
        served_until(kubernetes, traffic, moment + HANGS + AWAY)
        assert failed(attempts(kubernetes, traffic, "client", since=moment)) == []
    served_until(kubernetes, traffic, time.time())
    assert failed(attempts(kubernetes, traffic, "client", since=moment)) == []
    mesh.ambit("check", "--wait", "60", timeout=90)
    # Everything goes on: pods start captured, and policies reach every node.
    mesh.kubectl("apply", "-n", traffic, "-f", "-", stdin=denied_client("later", mesh.nodes[0]))
    mesh.kubectl("apply", "-n", traffic, "-f", "-", stdin=DENIED_TOO)
    mesh.kubectl(
        "wait", "-n", traffic, "authorizationpolicy/denied-too", "--for=condition=ambit.io/Acknowledged"
    )
    kubernetes.wait("the later one has tried", lambda: len(attempts(kubernetes, traffic, "later")) > 20)
    for pod in ("denied", "later"):
        nobody_got_in(kubernetes, traffic, pod)


def test_an_agent_starts_while_the_api_server_is_away(kubernetes: Kubernetes, traffic: str) -> None:
    """From what it wrote down: names and new connections of its pods wait for it, and for nothing else."""
    served_until(kubernetes, traffic, began := time.time())
    with api_server_stopped(kubernetes) as pid:
        os.kill(pid, signal.SIGKILL)
        node = kubernetes.cluster.nodes[0]
        before = agent_process(node)
        os.kill(before, signal.SIGKILL)
        moment = time.time()
        served_until(kubernetes, traffic, moment)
        assert agent_process(node) != before
    lost = failed(attempts(kubernetes, traffic, "client", since=began))
    assert [each for each in lost if each.kind == "kept"] == []
    nobody_got_in(kubernetes, traffic)


@pytest.mark.feature("F23")
def test_agents_are_killed(kubernetes: Kubernetes, mesh: Mesh, traffic: str) -> None:
    moment = time.time()
    for node in mesh.nodes:
        mesh.kill("node agent", node)
    served_until(kubernetes, traffic, time.time())
    assert failed(attempts(kubernetes, traffic, "client", since=moment)) == []
    nobody_got_in(kubernetes, traffic)


@pytest.mark.feature("F23")
def test_node_proxies_are_killed(kubernetes: Kubernetes, mesh: Mesh, traffic: str) -> None:
    """All of them; their connections are lost, and nobody passes by meanwhile."""
    moment = time.time()
    for node in mesh.nodes:
        mesh.kill("envoy", node)
    served_until(kubernetes, traffic, time.time())
    assert failed(attempts(kubernetes, traffic, "client", since=moment)) != []
    nobody_got_in(kubernetes, traffic)
    mesh.ambit("check", "--wait", "60", timeout=90)


@pytest.mark.feature("F23")
def test_the_control_plane_is_killed(kubernetes: Kubernetes, mesh: Mesh, traffic: str) -> None:
    def names() -> set[str]:
        return set(kubernetes.kubectl("get", "pods", "-n", SYSTEM, "-l", "app=istiod", "-o", "name").split())

    before, moment = names(), time.time()
    mesh.kubectl("delete", "pod", "-n", SYSTEM, "-l", "app=istiod", "--force", "--grace-period=0")
    kubernetes.wait("another one", lambda: bool(names() - before))
    kubernetes.rollout(SYSTEM, "deployment/ambit-control")
    served_until(kubernetes, traffic, time.time())
    assert failed(attempts(kubernetes, traffic, "client", since=moment)) == []
    nobody_got_in(kubernetes, traffic)
