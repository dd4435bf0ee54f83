"""kill -9 of every process of an instance under light traffic: who goes on, and how soon the rest is back."""

import contextlib
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.local.instance.processes import Process, instance_processes
from ambit.local.instance.record import read_record
from ambit.node.supervise.table import back_off
from ambit.testing.laptop import LaptopMesh
from ambit.testing.plugin import start_mesh
from tests.mesh.sniffer import sniffing
from tests.mesh.traffic import MARKER, Attempt, attempts, denied_client, start_traffic
from tests.soak import long

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.kubectl,
    pytest.mark.laptop_only(
        "kills an instance's own processes; tests/kubernetes/test_outage.py does the same to a cluster's"
    ),
]

NAMESPACE = "faults"
PAUSE = 10.0  # seconds
AT_ONCE = 9.0
"""Seconds in which an Envoy is back that waits for nothing, on a busy machine; whatever is waited for takes longer."""
ENROLLED = {"istio.io/dataplane-mode": "ambient"}
FETCH_ON_COMMAND = """
import sys, urllib.error, urllib.request
print("ready", flush=True)
sys.stdin.readline()
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=60).status)
except urllib.error.URLError as problem:
    print(type(problem.reason).__name__)
"""
RESOLVERS_ASK = 10.0
"""Seconds in which a pod's resolver asks for a name, as often as it may."""


@pytest.fixture(scope="module")
def faulty(kubectl_program: str | None) -> Iterator[LaptopMesh]:
    """An instance of this file's own, with traffic in it."""
    with tempfile.TemporaryDirectory(prefix="ambit-") as root:
        mesh = start_mesh(Path(root), kubectl_program)
        try:
            mesh.create_namespace(NAMESPACE, ENROLLED)
            start_traffic(mesh, NAMESPACE)
            yield mesh
        finally:
            mesh.ambit("down")


@pytest.fixture(autouse=True)
def healthy_before_and_after(faulty: LaptopMesh) -> Iterator[None]:
    served(faulty)
    yield
    served(faulty)


def served(mesh: LaptopMesh) -> None:
    """Until the client was served ten times in a row, on new and on kept connections."""

    def recently() -> bool:
        found = attempts(mesh, NAMESPACE, since=time.time() - 5)[-10:]
        return len(found) == 10 and not failed(found)

    mesh.wait("the client is served again", recently)


def processes(mesh: LaptopMesh, part: str, containing: str = "") -> list[Process]:
    record = read_record(mesh.state)
    assert record is not None
    return [
        process
        for process in instance_processes(record)
        if process.part == part and containing in command_line(process.pid)
    ]


def command_line(pid: int) -> str:
    """Empty when the process is gone meanwhile."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def only(mesh: LaptopMesh, part: str, containing: str = "") -> int:
    # One that is about to become another program has still the name of who forked it.
    (found,) = mesh.wait(f"one {part} {containing}", lambda: _alone(processes(mesh, part, containing)))
    return int(found.pid)


def _alone(found: list[Process]) -> list[Process]:
    return found if len(found) == 1 else []


def kill(mesh: LaptopMesh, part: str, containing: str = "") -> float:
    """SIGKILL the one such process, wait until it is gone. Returns when that was."""
    pid = only(mesh, part, containing)
    descriptor = os.pidfd_open(pid)
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    mesh.wait(f"{part} is dead", lambda: pid not in [each.pid for each in processes(mesh, part)])
    os.close(descriptor)
    return killed


def back(mesh: LaptopMesh, part: str, containing: str = "") -> float:
    """When a new such process was there (the mesh's own time is not counted: only that it runs)."""
    mesh.wait(f"{part} is back", lambda: processes(mesh, part, containing))
    return time.time()


def until_served_after(mesh: LaptopMesh, moment: float) -> list[Attempt]:
    """The client's attempts since `moment`, once it has been served for a while after it."""

    def seen() -> list[Attempt]:
        found = attempts(mesh, NAMESPACE, since=moment)
        good = [attempt for attempt in found[-20:] if attempt.result == 200]
        return found if len(good) == 20 and found[-1].at > moment + 1.5 else []

    return list(mesh.wait("served for a while", seen))


def failed(found: list[Attempt]) -> list[Attempt]:
    return [attempt for attempt in found if attempt.result != 200]


def never_served_who_is_denied(mesh: LaptopMesh, pod: str = "denied") -> None:
    """This client tries all the time; any success of it is a way past the policy."""
    found = attempts(mesh, NAMESPACE, pod)
    assert len(found) > 20
    assert [attempt for attempt in found if attempt.result == 200] == []


def container_states(mesh: LaptopMesh) -> dict[str, Any]:
    """Restart count and start time of every container of every pod."""
    pods = json.loads(mesh.kubectl("get", "pods", "-A", "-o", "json").stdout)["items"]
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}/{status['name']}": (
            status["restartCount"],
            status["state"].get("running", {}).get("startedAt"),
            status.get("containerID"),
        )
        for pod in pods
        for status in pod["status"].get("containerStatuses", [])
    }


def test_cluster_process(faulty: LaptopMesh) -> None:
    before = container_states(faulty)
    moment = kill(faulty, "cluster")
    faulty.wait("kubectl works again", lambda: faulty.kubectl("get", "nodes", check=False).returncode == 0)
    assert failed(until_served_after(faulty, moment)) == []
    assert container_states(faulty) == before
    words = ("client", "echo", "hello")
    faulty.wait("what runs is found", lambda: faulty.exec(NAMESPACE, *words, check=False).stdout == "hello\n")
    faulty.kubectl("run", "after", "-n", NAMESPACE, "--image=busybox:1", "--command", "--", "sleep", "600")
    faulty.kubectl("wait", "-n", NAMESPACE, "pod/after", "--for=condition=Ready", "--timeout=110s")
    faulty.kubectl("delete", "pod", "after", "-n", NAMESPACE, "--grace-period=0")


def test_cluster_process_with_a_damaged_database(faulty: LaptopMesh) -> None:
    """It says what is wrong and leaves the file alone. The mesh goes on; with the file mended all pods are adopted."""
    before = container_states(faulty)
    pid = only(faulty, "cluster")
    os.kill(pid, signal.SIGSTOP)
    files = [file for file in faulty.state.root.glob("cluster.sqlite*") if not file.name.endswith("-shm")]
    kept = {file: file.read_bytes() for file in files}
    damaged = os.urandom(8192)
    for file in files:
        file.unlink()
    faulty.state.database.write_bytes(damaged)
    moment = kill(faulty, "cluster")
    log = faulty.state.logs / "cluster.log"
    faulty.wait("it says so", lambda: "cluster.sqlite cannot be opened" in log.read_text())
    assert faulty.state.database.read_bytes() == damaged
    # Who looks at any moment must not find the database without its log.
    mended = {file: file.with_name(f"kept-{file.name}") for file in sorted(kept, reverse=True)}
    for file, whole in mended.items():
        whole.write_bytes(kept[file])
    for file, whole in mended.items():
        whole.replace(file)
    faulty.wait("kubectl works again", lambda: faulty.kubectl("get", "nodes", check=False).returncode == 0)
    assert failed(until_served_after(faulty, moment)) == []
    assert container_states(faulty) == before


@pytest.mark.feature("F23")
def test_control_plane(faulty: LaptopMesh) -> None:
    moment = kill(faulty, "control plane")
    faulty.kubectl("rollout", "status", "-n", "ambit-system", "deployment/ambit-control", "--timeout=110s")
    back(faulty, "control plane")
    assert failed(until_served_after(faulty, moment)) == []


@pytest.mark.feature("F23", "F56")
@pytest.mark.parametrize("node", ["node1", "node2"])
def test_node_agent(faulty: LaptopMesh, node: str) -> None:
    """Known destinations and open connections go on; a name and a destination never used before wait, and so does
    a pod that is to start."""
    names = [f"late-{node}-{index}" for index in range(3)]
    early = f"early-{node}"
    for name in names:
        faulty.kubectl("create", "service", "clusterip", name, "-n", NAMESPACE, "--tcp=80:8080")
        faulty.kubectl("set", "selector", "service", name, "app=web", "-n", NAMESPACE)
    envoys = {process.pid for process in processes(faulty, "envoy")}
    with waiting_fetches(faulty, names) as fetches:
        moment = kill(faulty, "node agent", f"nodes/{node}")
        faulty.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=denied_client(early, node))
        answers = fetches()
    faulty.wait("the agent is ready", lambda: ready_proxies(faulty) == 2)
    away = time.time() - moment
    lost = failed(until_served_after(faulty, moment))
    if away > RESOLVERS_ASK and {"gaierror"} & {*answers, *(each.result for each in lost)}:
        pytest.skip("the machine was too slow: the agent was away for longer than resolvers ask")
    assert answers == ["200"] * len(names)
    assert lost == []
    assert {process.pid for process in processes(faulty, "envoy")} == envoys
    faulty.kubectl("wait", "-n", NAMESPACE, f"pod/{early}", "--for=condition=Ready", "--timeout=110s")
    faulty.wait("it has tried", lambda: len(attempts(faulty, NAMESPACE, early)) > 20)
    never_served_who_is_denied(faulty, early)
    faulty.kubectl("delete", "pod", early, "-n", NAMESPACE)


@pytest.mark.parametrize("damage", ["truncated", "garbage"])
def test_node_agent_with_a_damaged_state_file(faulty: LaptopMesh, damage: str) -> None:
    """It asks for everything again and takes its pods back; nobody passes the policy meanwhile."""
    node = "node1" if damage == "truncated" else "node2"
    file = faulty.state.node(node) / "mesh.sqlite"
    states = {key: value for key, value in container_states(faulty).items() if "/ambit-node" not in key}
    os.kill(only(faulty, "node agent", f"nodes/{node}"), signal.SIGSTOP)
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    else:
        file.write_bytes(os.urandom(file.stat().st_size))
    moment = kill(faulty, "node agent", f"nodes/{node}")
    faulty.wait("the agents are ready", lambda: ready_proxies(faulty) == 2)
    until_served_after(faulty, moment)
    never_served_who_is_denied(faulty)
    after = {key: value for key, value in container_states(faulty).items() if "/ambit-node" not in key}
    assert after == states


@pytest.mark.feature("F23")
def test_envoy(faulty: LaptopMesh) -> None:
    """Connections through it are lost; it is back at once, and nobody passes it by meanwhile."""
    for node in ("node1", "node2"):
        moment = kill(faulty, "envoy", f"nodes/{node}")
        found = until_served_after(faulty, moment)
        first = next(attempt for attempt in found if attempt.result == 200 and attempt.kind == "fresh")
        assert first.at + first.took - moment < AT_ONCE, found[:20]
    never_served_who_is_denied(faulty)


def test_both_envoys_at_once(faulty: LaptopMesh) -> None:
    moment = time.time()
    for process in processes(faulty, "envoy"):
        os.kill(process.pid, signal.SIGKILL)
    until_served_after(faulty, moment)
    never_served_who_is_denied(faulty)


def test_application(faulty: LaptopMesh) -> None:
    """The container is started again in the same sandbox, with the same address."""
    address = pod_field(faulty, "web", ".status.podIP")
    restarts = int(pod_field(faulty, "web", ".status.containerStatuses[0].restartCount"))
    os.kill(container_process(faulty, "ThreadingHTTPServer"), signal.SIGKILL)
    faulty.wait(
        "it was restarted",
        lambda: (
            int(pod_field(faulty, "web", ".status.containerStatuses[0].restartCount")) == restarts + 1
            and pod_field(faulty, "web", ".status.containerStatuses[0].ready") == "true"
        ),
    )
    assert pod_field(faulty, "web", ".status.podIP") == address


def test_shim(faulty: LaptopMesh) -> None:
    """Its containers die with it; the pod gets a new sandbox, enrolled again. Pods beside it notice nothing."""
    others = {key: value for key, value in container_states(faulty).items() if "/web/" not in key}
    application = container_process(faulty, "ThreadingHTTPServer")
    shim = parent(application)
    restarts = int(pod_field(faulty, "web", ".status.containerStatuses[0].restartCount"))
    os.kill(shim, signal.SIGKILL)
    faulty.wait(
        "the pod runs again",
        lambda: (
            int(pod_field(faulty, "web", ".status.containerStatuses[0].restartCount")) > restarts
            and pod_field(faulty, "web", ".status.containerStatuses[0].ready") == "true"
        ),
    )
    served(faulty)
    after = container_states(faulty)
    assert {key: value for key, value in after.items() if "/web/" not in key} == others
    never_served_who_is_denied(faulty)


def test_shim_and_cluster_process(faulty: LaptopMesh) -> None:
    """Who comes back finds a sandbox gone: restart counts go on, and what may run only once does not run again."""
    container = {"name": "main", "image": "busybox:1", "command": ["sleep", "3600"]}
    once = {"restartPolicy": "Never", "containers": [container]}
    faulty.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "once", "namespace": NAMESPACE},
            "spec": once,
        }
    )
    faulty.kubectl("wait", "-n", NAMESPACE, "pod/once", "--for=condition=Ready", "--timeout=110s")
    restarts = int(pod_field(faulty, "web", ".status.containerStatuses[0].restartCount"))
    shims = [parent(container_process(faulty, word)) for word in ("ThreadingHTTPServer", "3600")]
    os.kill(only(faulty, "cluster"), signal.SIGSTOP)
    for shim in shims:
        os.kill(shim, signal.SIGKILL)
    kill(faulty, "cluster")
    faulty.wait("kubectl works again", lambda: faulty.kubectl("get", "nodes", check=False).returncode == 0)
    faulty.wait(
        "the restart is counted",
        lambda: int(pod_field(faulty, "web", ".status.containerStatuses[0].restartCount")) == restarts + 1,
    )
    faulty.wait("it is not run again", lambda: pod_field(faulty, "once", ".status.phase") == "Failed")
    path = ".status.containerStatuses[0].state.terminated.reason"
    assert pod_field(faulty, "once", path) == "ContainerStatusUnknown"
    faulty.kubectl("delete", "pod", "once", "-n", NAMESPACE)


@pytest.mark.parametrize("part", ["control plane", "node agent", "envoy"])
def test_ten_seconds_of_standing_still(faulty: LaptopMesh, part: str) -> None:
    """Of Envoy's all wait, of the agent's who asks for names, of the control plane's nobody; then all go on."""
    moment = time.time()
    pids = [process.pid for process in processes(faulty, part)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        faulty.wait("it stood still", lambda: time.time() > moment + PAUSE, timeout=2 * PAUSE)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    found = until_served_after(faulty, moment)
    lost = [] if part == "envoy" else failed(found)
    # A resolver that asks no more after ten seconds, and began with the pause, may give up.
    assert [
        each for each in lost if (part, each.kind, each.result) != ("node agent", "fresh", "gaierror")
    ] == []
    faulty.wait("they are the same", lambda: [each.pid for each in processes(faulty, part)] == pids)
    never_served_who_is_denied(faulty)
    policy = {"metadata": {"name": "later", "namespace": NAMESPACE}, "spec": {"action": "DENY"}}
    faulty.apply({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", **policy})
    words = ("-n", NAMESPACE, "authorizationpolicy/later")
    faulty.kubectl("wait", "--for=condition=ambit.io/Acknowledged", *words, "--timeout=110s")
    faulty.kubectl("delete", *words)


@contextlib.contextmanager
def nothing_in_the_clear(mesh: LaptopMesh) -> Iterator[None]:
    """Nothing of the traffic crosses the wire between the nodes unencrypted, whoever says it."""
    near, far = mesh.nodes[:2]
    with sniffing(mesh, far, MARKER) as sniffer:
        yield
        assert sniffer.seen(near) == set()


def api_answers(mesh: LaptopMesh) -> None:
    """Also while the cluster process is away for a moment."""
    mesh.wait("kubectl", lambda: mesh.kubectl("get", "ns", check=False).returncode == 0)


def all_back(mesh: LaptopMesh) -> None:
    """Who died again and again waits up to a minute before it is started."""
    api_answers(mesh)
    rollout = ("rollout", "status", "-n", "ambit-system")
    for each in ("deployment/ambit-control", "daemonset/ambit-node"):
        mesh.kubectl(*rollout, each, "--timeout=120s", timeout=150)
    served(mesh)


def agents_work(mesh: LaptopMesh) -> None:
    """Each answers, and its Envoy serves."""

    def serving() -> bool:
        answer = mesh.ambit("node", "status", "-o", "json", check=False)
        found = json.loads(answer.stdout or "[]")
        return len(found) == 2 and all((each["envoy"] or {}).get("state") == "serving" for each in found)

    mesh.wait("the agents work", serving)


@pytest.mark.soak
@pytest.mark.timeout(long(300, 1800))
def test_each_by_itself_at_random(faulty: LaptopMesh) -> None:
    """What the loss of each costs, however often: of Envoy a moment, of the others nothing. An Envoy that dies again
    within half a minute waits for a moment more."""
    numbers = {
        ("envoy", "nodes/node1"): long(1, 16),
        ("envoy", "nodes/node2"): long(1, 16),
        ("cluster", ""): long(1, 8),
        ("control plane", ""): long(1, 3),
        ("node agent", "nodes/node1"): long(0, 3),
        ("node agent", "nodes/node2"): long(0, 3),
    }
    deaths = [which for which, number in numbers.items() for _ in range(number)]
    moments, gone = random.Random(20), Counter[str]()
    moments.shuffle(deaths)
    with nothing_in_the_clear(faulty):
        for part, containing in deaths:
            time.sleep(moments.random())  # at any moment
            moment = kill(faulty, part, containing)
            back(faulty, part, containing)
            api_answers(faulty)
            agents_work(faulty)
            found = until_served_after(faulty, moment)
            if part == "envoy":
                gone[containing] += 1
                first = next(each for each in found if each.result == 200 and each.kind == "fresh")
                allowed = AT_ONCE + back_off(gone[containing])
                assert first.at + first.took - moment < allowed, found[:20]
            else:
                assert failed(found) == [], f"after the death of the {part}"
        all_back(faulty)
        never_served_who_is_denied(faulty)


@pytest.mark.soak
@pytest.mark.timeout(long(400, 900))
def test_many_at_random(faulty: LaptopMesh) -> None:
    """Parts die while others are still on their way back. In the end all are there; nobody passed the policy, and
    nothing went in the clear."""
    moments = random.Random(20)
    parts = ["cluster", "control plane", "node agent", "envoy", "application"]
    end = time.monotonic() + long(3, 300)
    with nothing_in_the_clear(faulty):
        while time.monotonic() < end:
            part = moments.choice(parts)
            found = processes(faulty, part, "ThreadingHTTPServer" if part == "application" else "")
            if found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(moments.choice(found).pid, signal.SIGKILL)
            time.sleep(moments.random())  # nothing is waited for: the next one dies at any moment
        all_back(faulty)
        never_served_who_is_denied(faulty)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def container_process(mesh: LaptopMesh, word: str) -> int:
    return only(mesh, "application", word)


def pod_field(mesh: LaptopMesh, pod: str, path: str) -> str:
    return mesh.kubectl("get", "pod", pod, "-n", NAMESPACE, "-o", f"jsonpath={{{path}}}").stdout


def ready_proxies(mesh: LaptopMesh) -> int:
    words = ("get", "daemonset", "ambit-node", "-n", "ambit-system", "-o", "jsonpath={.status.numberReady}")
    return int(mesh.kubectl(*words, check=False).stdout or 0)


@contextlib.contextmanager
def waiting_fetches(mesh: LaptopMesh, names: list[str]) -> Iterator[Callable[[], list[str]]]:
    """Processes in the client's container that wait; the function lets each fetch its name, and gives the answers."""
    command = [str(mesh.kubectl_program), f"--kubeconfig={mesh.state.kubeconfig}", "exec", "-i"]
    command += ["-n", NAMESPACE, "client", "--", "python3", "-c", FETCH_ON_COMMAND]
    with contextlib.ExitStack() as stack:
        started = []
        for name in names:
            process = subprocess.Popen(
                [*command, f"http://{name}/"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

        def fetch() -> list[str]:
            for process in started:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            return [process.communicate(timeout=110)[0].strip() for process in started]

        yield fetch
