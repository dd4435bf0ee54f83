"""kill -9 of a waypoint's agent, and of its whole container, with requests under way the whole time."""

import json
import time
from collections.abc import Iterator

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace
from tests.mesh.test_control_plane import scale
from tests.mesh.traffic import Attempt, attempts, start_traffic
from tests.soak import long

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

ROUNDS = long(2, 20)
AWAY = 15.0
"""Seconds in which a container is back on a busy machine, without waiting for anybody."""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-routed, value: "yes"}]}}]
    backendRefs: [{name: web, port: 80}]
"""
# Numbers of the container's processes by what they are: `first`, its first process, `agent` and `envoy`.
PROCESSES = """
import json, os, signal, sys
found = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        words = open(f"/proc/{pid}/cmdline").read().split("\\0")[:-1]
    except OSError:
        continue
    if words and os.path.basename(words[0]) == "envoy":
        found["envoy"] = pid
    elif "proxy" in words and {"run", "keep"} & set(words):
        found["first" if any(word.endswith("keeper.py") for word in words) else "agent"] = pid
print(json.dumps(found), flush=True)
if sys.argv[1:]:
    os.kill(int(found[sys.argv[1]]), signal.SIGKILL)
"""
ASK = ("curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%header{x-routed}", "http://web/")


class Waypoint:
    """`client` sends requests to `web` all the time, through the waypoint `way` and its only pod."""

    def __init__(self, mesh: Mesh, namespace: str) -> None:
        self.mesh = mesh
        self.namespace = namespace

    def pod(self) -> str:
        selector = ("-l", "gateway.networking.k8s.io/gateway-name=way", "-o", "name")
        (name,) = self.mesh.kubectl("get", "pods", "-n", self.namespace, *selector).stdout.split()
        return name.removeprefix("pod/")

    def processes(self, *killed: str) -> dict[str, str]:
        """Kills one of them, if that is named."""
        done = self.mesh.exec(
            self.namespace, self.pod(), "python3", "-c", PROCESSES, *killed, check=not killed
        )
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def is_routed(self) -> bool:
        """Whether a new request passes the waypoint."""
        return self.mesh.exec(self.namespace, "client", *ASK, check=False).stdout == "yes"

    def failed(self, since: float) -> list[Attempt]:
        """The client's requests without an answer since then, once there have been some more."""
        now = time.time()
        self.mesh.wait("more requests", lambda: attempts(self.mesh, self.namespace, since=now + 1)[20:])
        found = attempts(self.mesh, self.namespace, since=since)
        assert {each.kind for each in found} == {"fresh", "kept"}
        return [each for each in found if each.result != 200]

    def agent_again(self, former: str) -> None:
        """Until another agent than this one says that all is well."""
        self.mesh.wait("another agent", lambda: self.processes().get("agent", former) != former)
        self.mesh.wait("it answers", lambda: self._is_healthy())

    def _is_healthy(self) -> bool:
        read = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:15021/healthz/ready').status)"
        done = self.mesh.exec(self.namespace, self.pod(), "python3", "-c", read, check=False)
        return done.stdout.strip() == "200"


@pytest.fixture(scope="module")
def waypoint(mesh: Mesh) -> Iterator[Waypoint]:
    with make_namespace(mesh) as namespace:
        made = Waypoint(mesh, namespace)
        mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=GATEWAY)
        start_traffic(mesh, namespace)
        wait = ("wait", "-n", namespace, "--for=condition=Programmed", "gateway/way", "--timeout=110s")
        mesh.kubectl(*wait)
        mesh.kubectl("label", "-n", namespace, "service", "web", "istio.io/use-waypoint=way")
        mesh.wait("requests pass the waypoint", made.is_routed)
        yield made


@pytest.fixture
def alone(mesh: Mesh, waypoint: Waypoint) -> Iterator[Waypoint]:
    """The same while the control plane is away."""
    scale(mesh, 0)
    try:
        yield waypoint
    finally:
        scale(mesh, 1)
        mesh.kubectl("rollout", "status", "-n", "ambit-system", "deployment/ambit-control", "--timeout=110s")


def kill_agents(waypoint: Waypoint) -> None:
    """Asserts that Envoy goes on, and that no request fails."""
    since = time.time()
    for _ in range(ROUNDS):
        before = waypoint.processes("agent")
        waypoint.agent_again(before["agent"])
        assert waypoint.processes()["envoy"] == before["envoy"]
    assert waypoint.failed(since) == []
    assert waypoint.is_routed()


@pytest.mark.soak
def test_no_request_fails_when_the_agent_is_killed(waypoint: Waypoint) -> None:
    kill_agents(waypoint)


@pytest.mark.soak
def test_no_request_fails_when_the_agent_is_killed_without_a_control_plane(alone: Waypoint) -> None:
    kill_agents(alone)


@pytest.mark.laptop_only("kills the first process of a container from inside, which no kernel lets a pod do")
def test_a_container_that_starts_again_serves_without_a_control_plane(alone: Waypoint) -> None:
    """With the configuration and the certificate that the former one has left."""
    before = alone.processes("first")
    killed = time.time()
    alone.mesh.wait(
        "another Envoy", lambda: alone.processes().get("envoy", before["envoy"]) != before["envoy"]
    )
    alone.mesh.wait("requests pass the waypoint", alone.is_routed)
    alone.agent_again(before["agent"])
    assert max(each.at for each in alone.failed(killed)) < killed + AWAY
