"""Pods that come and go, by themselves and again and again: captured from their first moment, and nothing is left."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace, pod
from tests.mesh.talk import SERVER

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

# Asks the server once, at once, and ends.
ONCE = """
import socket
with socket.create_connection(("server", 9000), 60) as dialled:
    assert dialled.recv(5) == b"hello"
"""
UNTIL_GREETED = 'until python3 -c "$0"; do sleep 0.2; done'
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: named}
spec:
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {serviceAccounts: [guest]}}]}]
"""
# Open files of the node agents.
COUNT = """
import os
def words(pid):
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().split("\\0")
found = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if words(pid)[1:5] == ["-m", "ambit", "node", "run"]:
            found += len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        pass
print(found)
"""
GUESTS = 20
RESTARTS = 2


@pytest.fixture(scope="module")
def inn(mesh: Mesh) -> Iterator[str]:
    """A namespace whose server, known on all nodes, lets in one account only: `guest`."""
    with make_namespace(mesh) as name:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest"}}
        spec = {"selector": {"app": "server"}, "ports": [{"name": "tcp", "port": 9000}]}
        probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
        command = ["python3", "-uc", SERVER]
        server = pod("server", mesh.nodes[1], command, labels={"app": "server"}, readinessProbe=probe)
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": spec}
        apply(mesh, name, account, service, server, yaml.safe_load(POLICY))
        wait = ("wait", "-n", name, "--timeout=110s")
        mesh.kubectl(*wait, "--for=condition=Ready", "pod/server")
        mesh.kubectl(*wait, "--for=condition=ambit.io/Acknowledged", "authorizationpolicy/named")
        apply(mesh, name, guest(mesh, "first", ["sh", "-c", UNTIL_GREETED, ONCE]))
        mesh.kubectl(*wait, "--for=jsonpath={.status.phase}=Succeeded", "pod/first")
        yield name


def apply(mesh: Mesh, namespace: str, *objects: dict[str, Any]) -> None:
    mesh.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(objects))


def guest(mesh: Mesh, name: str, command: list[str], account: str = "guest") -> dict[str, Any]:
    """A pod on the first node."""
    made = pod(name, mesh.nodes[0], command)
    made["spec"]["serviceAccountName"] = account
    return made


def phases(mesh: Mesh, namespace: str, names: list[str]) -> set[str]:
    found = json.loads(mesh.kubectl("get", "pods", "-n", namespace, *names, "-o", "json").stdout)["items"]
    return {each["status"]["phase"] for each in found}


def open_files(mesh: Mesh) -> int:
    return int(mesh.on_node(mesh.nodes[0], "python3", "-c", COUNT).stdout)


@pytest.mark.feature("F5", "N58")
def test_init_containers_have_their_identity_at_once_and_leave_nothing_open(mesh: Mesh, inn: str) -> None:
    """Theirs is the only one that the server lets in, and their first instruction asks for it."""
    before = open_files(mesh)
    made = []
    for number in range(GUESTS):
        each = guest(mesh, f"guest{number}", ["true"])
        each["spec"]["initContainers"] = [
            {**each["spec"]["containers"][0], "name": "early", "command": ["python3", "-c", ONCE]}
        ]
        made.append(each)
    stranger = guest(mesh, "stranger", ["python3", "-c", ONCE], account="default")
    apply(mesh, inn, *made, stranger)
    names = [each["metadata"]["name"] for each in made]
    over = {"Succeeded", "Failed"}
    mesh.wait("all have ended", lambda: phases(mesh, inn, [*names, "stranger"]) <= over)
    assert phases(mesh, inn, names) == {"Succeeded"}
    assert (
        mesh.kubectl("get", "pod", "stranger", "-n", inn, "-o", "jsonpath={.status.phase}").stdout == "Failed"
    )
    mesh.kubectl("delete", "pod", "-n", inn, *names, "stranger")
    mesh.wait("agents hold no more than before", lambda: open_files(mesh) < before + GUESTS)


@pytest.mark.feature("F5")
def test_a_container_that_ends_again_and_again_is_captured_each_time(mesh: Mesh, inn: str) -> None:
    again = guest(mesh, "again", ["python3", "-c", ONCE])
    again["spec"]["restartPolicy"] = "Always"
    apply(mesh, inn, again)

    def status() -> dict[str, Any]:
        found = json.loads(mesh.kubectl("get", "pod", "again", "-n", inn, "-o", "json").stdout)["status"]
        return dict((found.get("containerStatuses") or [{"restartCount": 0, "lastState": {}}])[0])

    seen: dict[int, int] = {}
    while len(seen) < RESTARTS:
        mesh.wait("it ended once more", lambda: status()["restartCount"] > max(seen, default=0))
        now = status()
        seen[now["restartCount"]] = now["lastState"]["terminated"]["exitCode"]
    assert set(seen.values()) == {0}
    mesh.kubectl("delete", "pod", "again", "-n", inn)
