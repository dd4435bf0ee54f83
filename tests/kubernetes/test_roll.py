"""Node pods that are rolled, replaced, killed: nobody gets in against a policy, and a roll cuts and refuses nobody."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ambit.cli.mesh import in_charge
from ambit.core.names import REDIRECTION_ANNOTATION, REDIRECTION_ENABLED
from tests.kubernetes.inside import PATIENCE, Kubernetes

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]
SYSTEM, NAMESPACE = "ambit-system", "node-roll"
SERVER, SERVICE = "server", "10.96.77.77"
IMAGE = "localhost/ambit:dev"
SERVE = """
import socket, threading
def serve(connection):
    while data := connection.recv(100):
        connection.sendall(data)
with socket.create_server(("", 8080), backlog=100) as server:
    while True:
        threading.Thread(target=serve, args=[server.accept()[0]], daemon=True).start()
"""
ASK = """
import socket, sys, time
def answered(connection):
    connection.sendall(b"hello")
    return connection.recv(100) == b"hello"
target, keep = (sys.argv[1], 8080), sys.argv[2] == "keep"
connection = None
while True:
    try:
        if connection is None:
            connection = socket.create_connection(target, timeout=20)
        said = "in" if answered(connection) else "closed"
    except OSError as problem:
        said = type(problem).__name__
    if said != "in" or not keep:
        connection = connection and connection.close()
    print(said, flush=True)
    time.sleep(0.05)
"""
POLICY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "only-good"},
    "spec": {
        "selector": {"matchLabels": {"app": SERVER}},
        "action": "ALLOW",
        "rules": [{"from": [{"source": {"principals": [f"cluster.local/ns/{NAMESPACE}/sa/good"]}}]}],
    },
}
ALLOWED = {"good-1": "node1", "good-2": "node2"}
KEEPING = {"keep-1": "node1", "keep-2": "node2"}
DENIED = {"bad-1": "node1", "bad-2": "node2"}
OUTSIDE = {"outside-1": "node1", "outside-2": "node2"}


def pod(name: str, node: str, account: str, script: str, *words: str, **labels: str) -> dict[str, Any]:
    """It asks for time on the processors: else it would starve while others start."""
    container = {
        "name": "python",
        "image": IMAGE,
        "command": ["python3", "-u", "-c", script, *words],
        "resources": {"requests": {"cpu": "50m"}},
    }
    spec = {
        "nodeName": node,
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
    }
    metadata = {
        "name": name,
        "labels": {key.replace("__", "/").replace("_", "-"): labels[key] for key in labels},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def objects() -> list[dict[str, Any]]:
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        for name in (SERVER, "good", "bad")
    ]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVER},
        "spec": {"clusterIP": SERVICE, "selector": {"app": SERVER}, "ports": [{"port": 8080}]},
    }
    return [*accounts, service, POLICY, pod(SERVER, "node1", SERVER, SERVE, app=SERVER)]


def clients(address: str) -> list[dict[str, Any]]:
    return [
        *(pod(name, node, "good", ASK, SERVICE, "once") for name, node in ALLOWED.items()),
        *(pod(name, node, "good", ASK, SERVICE, "keep") for name, node in KEEPING.items()),
        *(pod(name, node, "bad", ASK, SERVICE, "once") for name, node in DENIED.items()),
        *(
            pod(name, node, "good", ASK, address, "once", **{"istio.io__dataplane_mode": "none"})
            for name, node in OUTSIDE.items()
        ),
    ]


class Watched:
    """A server, and clients that ask it without a pause."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes = kubernetes

    def apply(self, made: list[dict[str, Any]]) -> None:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
        self.kubernetes.kubectl("-n", NAMESPACE, "apply", "-f", "-", stdin=text)

    def said(self, client: str) -> list[str]:
        return self.kubernetes.kubectl("-n", NAMESPACE, "logs", client).split()

    def system(self) -> list[dict[str, Any]]:
        found = self.kubernetes.kubectl("-n", SYSTEM, "get", "pods", "-l", "app=ztunnel", "-o", "json")
        pods: list[dict[str, Any]] = json.loads(found)["items"]
        return pods

    def settled(self, former: set[str]) -> bool:
        """Whether each node has a ready agent in a pod that is none of the former ones."""
        now = in_charge(self.system())
        return len(now) == 2 and all(
            each["metadata"]["uid"] not in former
            and any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in each["status"].get("conditions", ())
            )
            for each in now
        )

    def rolled(self, *, by: Callable[[], object]) -> None:
        former = {each["metadata"]["uid"] for each in self.system()}
        by()
        for _ in range(3):
            try:
                self.kubernetes.wait("the new pods", lambda: self.settled(former))
            except AssertionError:
                continue
            break
        assert self.settled(former)
        self.asked_again()

    def asked_again(self) -> None:
        """Each client has asked a few times more, and those that may were let in last."""
        before = {name: len(self.said(name)) for name in (*ALLOWED, *KEEPING, *DENIED, *OUTSIDE)}
        for name, count in before.items():
            self.kubernetes.wait(
                f"{name} asks", lambda name=name, count=count: len(self.said(name)) > count + 10
            )
        for name in (*ALLOWED, *KEEPING):
            self.kubernetes.wait(f"{name} is let in", lambda name=name: self.said(name)[-1] == "in")

    def nobody_got_in(self) -> None:
        for name in (*DENIED, *OUTSIDE):
            assert "in" not in self.said(name), name

    def kill_agents(self) -> None:
        """Whatever of them there is at this moment, perhaps in the middle of its start."""
        script = (
            "import os,signal\n"
            "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
            "  try: line = open(f'/proc/{pid}/cmdline').read().split('\\0')\n"
            "  except OSError: continue\n"
            "  if line[1:5] == ['-m', 'ambit', 'node', 'run']: os.kill(int(pid), signal.SIGKILL)\n"
        )
        for each in self.system():
            self.kubernetes.execute(SYSTEM, each["metadata"]["name"], "python3", "-c", script)


@pytest.fixture(scope="module")
def watched(kubernetes: Kubernetes) -> Iterator[Watched]:
    labels = {"istio.io/dataplane-mode": "ambient"}
    with kubernetes.namespace(NAMESPACE, **labels):
        made = Watched(kubernetes)
        made.apply(objects())
        words = (
            "-n",
            NAMESPACE,
            "wait",
            "pod",
            "--all",
            "--for=condition=Ready",
            f"--timeout={PATIENCE:.0f}s",
        )
        kubernetes.kubectl(*words)
        kubernetes.kubectl(
            "-n", NAMESPACE, "wait", "authorizationpolicy/only-good", "--for=condition=ambit.io/Acknowledged",
            f"--timeout={PATIENCE:.0f}s",
        )  # fmt: skip
        address = kubernetes.kubectl("-n", NAMESPACE, "get", "pod", SERVER, "-o", "jsonpath={.status.podIP}")
        made.apply(clients(address))
        kubernetes.kubectl(*words)
        made.asked_again()
        yield made


def install(*values: str) -> None:
    command = [sys.executable, "-m", "ambit", "install", "--timeout", str(3 * PATIENCE)]
    command += [word for value in values for word in ("--set", value)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def maximal_drains() -> list[int]:
    """What each node's agent says of itself."""
    command = [sys.executable, "-m", "ambit", "node", "status", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return [each["settings"]["maxDrain"] for each in json.loads(done.stdout)]


@pytest.mark.feature("F24", "F25", "F146")
def test_a_roll_to_other_settings_lets_nobody_in_and_cuts_and_refuses_nobody(watched: Watched) -> None:
    watched.nobody_got_in()
    assert maximal_drains() == [600, 600]
    watched.rolled(by=lambda: install("node.maxDrain=599", "node.resources.requests.memory=129Mi"))
    watched.nobody_got_in()
    for name in (*ALLOWED, *KEEPING):
        assert set(watched.said(name)) == {"in"}, name
    assert maximal_drains() == [599, 599]
    for each in in_charge(watched.system()):
        (container,) = each["spec"]["containers"]
        assert container["resources"] == {"requests": {"cpu": "100m", "memory": "129Mi"}}


def test_agents_killed_while_they_start_let_nobody_in(watched: Watched) -> None:
    for _ in range(5):
        watched.kill_agents()
    watched.asked_again()
    watched.nobody_got_in()


def test_a_node_that_forgot_everything_lets_nobody_in(watched: Watched) -> None:
    def forget() -> None:
        script = "import glob,os\nfor file in glob.glob('/var/lib/ambit/node/mesh.sqlite*'): os.unlink(file)"
        for each in watched.system():
            watched.kubernetes.execute(SYSTEM, each["metadata"]["name"], "python3", "-c", script)
        watched.kubernetes.kubectl("-n", SYSTEM, "delete", "pod", "-l", "app=ztunnel", "--wait=false")

    watched.rolled(by=forget)
    watched.nobody_got_in()


@pytest.mark.feature("F56")
def test_pods_that_start_while_the_daemonset_is_replaced_wait_for_it(watched: Watched) -> None:
    def phase(name: str) -> str:
        return watched.kubernetes.kubectl(
            "-n", NAMESPACE, "get", "pod", name, "-o", "jsonpath={.status.phase}"
        )

    def replace() -> None:
        watched.kubernetes.kubectl("-n", SYSTEM, "delete", "daemonset", "ambit-node", "--wait=false")
        watched.apply([pod("late", "node1", SERVER, SERVE)])
        install()

    watched.rolled(by=replace)
    watched.kubernetes.wait("the pod runs", lambda: phase("late") == "Running")
    late = json.loads(
        watched.kubernetes.kubectl(
            "-n", NAMESPACE, "get", "pod", "late", "-o", "json", "--show-managed-fields"
        )
    )
    assert late["metadata"]["annotations"][REDIRECTION_ANNOTATION] == REDIRECTION_ENABLED
    (captured,) = (
        each["time"] for each in late["metadata"]["managedFields"] if REDIRECTION_ANNOTATION in str(each)
    )
    assert captured <= late["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    watched.nobody_got_in()
