"""What a pod can reach of the machine and of the mesh's own parts: nothing secret, and no name or address but its own.

Ports 15020 (metrics) and 15021 (readiness) of a node, 6443 (API server), and 15012 (these two want a credential), 15014
(metrics) and 8080 (readiness) of the control plane are open to pods, as on Kubernetes.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambit.testing.laptop import LaptopMesh
from ambit.testing.mesh import Mesh
from tests.mesh.pods import make_namespace, pod

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

ECHO = """
import socket
server = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
while True:
    connection, peer = server.accept()
    with connection:
        try:
            connection.recv(1000)  # what is unread when it closes would make its end a reset
            connection.sendall(peer[0].removeprefix("::ffff:").encode())
        except OSError:
            pass
"""
DIAL = """
import errno, json, socket, sys
from concurrent.futures import ThreadPoolExecutor

def dial(address, port, source=None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as dialled:
        dialled.settimeout(float(sys.argv[1]))
        if source is not None:
            dialled.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND, which everybody may
            dialled.bind((source, 0))
        dialled.connect((address, port))
        dialled.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        return dialled.recv(1000).decode(errors="replace")

def answer(question):
    try:
        return dial(*question)
    except OSError as problem:
        return errno.errorcode.get(problem.errno, "timeout")

with ThreadPoolExecutor(32) as several:
    answers = list(several.map(answer, json.load(sys.stdin)))
print(json.dumps(answers))
"""
FORBIDDEN = """
import errno, json, os, signal, socket, sys

def ended(action):
    try:
        return str(action())
    except OSError as problem:
        return errno.errorcode[problem.errno]

def option(level, name, value):
    with socket.socket() as made:
        made.setsockopt(level, name, value)

facts = json.load(sys.stdin)
print(json.dumps({
    "files": {path: ended(lambda: open(path, "rb").read(1)) for path in facts["files"]},
    "private": {path: ended(lambda: open(path, "rb").read(1)) for path in facts["private"]},
    "sockets": {path: ended(lambda: socket.socket(socket.AF_UNIX).connect(path)) for path in facts["sockets"]},
    "run": sorted(os.listdir("/run")),
    "signal": ended(lambda: os.kill(facts["supervisor"], 0)),
    "processes": [open(f"/proc/{pid}/cmdline").read() for pid in os.listdir("/proc") if pid.isdigit()],
    "first": ended(lambda: os.listdir("/proc/1/root")),
    "mark": ended(lambda: option(socket.SOL_SOCKET, 36, 0x539)),
    "transparent": ended(lambda: option(socket.SOL_IP, 19, 1)),
    "raw": ended(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 6)),
    "packet": ended(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)),
    "mount": os.system("mount -t tmpfs none /mnt 2>/dev/null") != 0,
    "uncover": os.system("umount /run 2>/dev/null || unshare -Urm umount /run 2>/dev/null") != 0,
    "capabilities": next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapBnd")),
}))
"""
PATIENT = 30.0
NET_BIND_SERVICE = f"{1 << 10:016x}"
UNREADABLE = ("EACCES", "ENOENT", "b''")


@pytest.fixture(scope="module")
def pods(mesh: Mesh) -> Iterator[dict[str, list[str]]]:
    """Addresses of an attacker in the mesh and one outside, and of pods beside and away from them."""
    with make_namespace(mesh) as namespace, make_namespace(mesh, enrolled=False) as outside:
        here, there = mesh.nodes[:2]
        made = {
            (namespace, "attacker"): (here, ["sleep", "3600"]),
            (namespace, "near"): (here, ["python3", "-uc", ECHO]),
            (namespace, "far"): (there, ["python3", "-uc", ECHO]),
            (outside, "attacker"): (here, ["sleep", "3600"]),
            (outside, "near"): (here, ["python3", "-uc", ECHO]),
        }
        for (place, name), (node, command) in made.items():
            mesh.apply(pod(name, node, command, namespace=place))
        found = {}
        for place in (namespace, outside):
            mesh.kubectl("wait", "-n", place, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
            for name in (name for where, name in made if where == place):
                found[f"{place}/{name}"] = list(mesh.pod_addresses(place, name))
        yield {"": [namespace, outside], **found}


def ask(mesh: Mesh, namespace: str, program: str, facts: Any, patience: float = 2) -> Any:
    """`patience` is that of DIAL: short where nobody is to answer, PATIENT where somebody is."""
    words = ("exec", "-i", "-n", namespace, "attacker", "--", "python3", "-c", program, str(patience))
    return json.loads(mesh.kubectl(*words, stdin=json.dumps(facts)).stdout)


def _is_private(path: Path) -> bool:
    """A file of the host that its owner alone may read: root's, since ordinary users have none below /etc."""
    return path.is_file() and path.stat().st_size > 0 and not path.stat().st_mode & 0o077


def is_refused(answer: str) -> bool:
    """The connection was not made, or ended without a byte."""
    return answer in ("", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "EHOSTUNREACH", "timeout")


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.laptop_only(
    "keeps pods from the instance's own files and processes; containers do so on Kubernetes"
)
def test_nothing_of_the_host_is_in_a_pods_hands(
    laptop: LaptopMesh, pods: dict[str, list[str]], which: int
) -> None:
    record = json.loads(laptop.state.instance.read_text())
    files = [str(path) for path in laptop.state.root.rglob("*") if path.is_file()]
    assert any(path.endswith("ca.key") for path in files)
    sockets = [
        f"/run/ambit/nodes/{node}/{name}.sock"
        for node in ("node1", "node2")
        for name in ("cni", "xds", "logs", "admin")
    ]
    private = [str(path) for path in Path("/etc").rglob("*") if _is_private(path)]
    facts = {
        "files": files,
        "private": private,
        "sockets": sockets,
        "supervisor": record["supervisor"]["pid"],
    }
    found = ask(laptop, pods[""][which], FORBIDDEN, facts)
    assert set(found["files"].values()) == {"ENOENT"}
    assert set(found["sockets"].values()) == {"ENOENT"}
    readable = {path: answer for path, answer in found["private"].items() if answer not in UNREADABLE}
    assert os.geteuid() != 0 or readable == {}
    assert found["run"] in ([], ["secrets"])
    assert found["signal"] == "ESRCH"
    assert not [each for each in found["processes"] if "envoy" in each or "cluster" in each]
    assert len(found["processes"]) <= 4
    refused = {name: found[name] for name in ("first", "mark", "transparent", "raw", "packet")}
    assert set(refused.values()) <= {"EPERM", "EACCES"}, refused
    assert found["mount"]
    assert found["uncover"]
    assert found["capabilities"] == NET_BIND_SERVICE


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.laptop_only("the pod runner and the host's side of the fabric, which Kubernetes does not have")
def test_no_part_of_the_laptop_cluster_tells_a_pod_anything(
    laptop: LaptopMesh, pods: dict[str, list[str]], which: int
) -> None:
    questions = [["172.30.0.1", port] for port in (15000, 15008, 15014, 10250)]
    questions += [[address, 10250] for node in laptop.nodes for address in laptop.node_addresses(node)]
    answers = ask(laptop, pods[""][which], DIAL, questions)
    told = [(each, answer) for each, answer in zip(questions, answers, strict=True) if not is_refused(answer)]
    assert told == []


@pytest.mark.parametrize("which", [0, 1])
def test_no_part_of_the_mesh_tells_a_pod_anything(mesh: Mesh, pods: dict[str, list[str]], which: int) -> None:
    control = mesh.kubectl(
        "get", "pods", "-n", "ambit-system", "-l", "app=istiod", "-o", "jsonpath={.items[*].status.podIP}"
    ).stdout.split()
    nodes = [address for node in mesh.nodes for address in mesh.node_addresses(node)] + ["169.254.7.127"]
    ports = [15000, 15001, 15006, 15008, 15010, 15053]
    questions = [[address, port] for address in nodes for port in (*ports, 15014)]
    # 15008 does not exist in a pod outside of the mesh.
    questions += [[address, port] for address in control for port in ports]
    answers = ask(mesh, pods[""][which], DIAL, questions)
    told = [(each, answer) for each, answer in zip(questions, answers, strict=True) if not is_refused(answer)]
    assert told == []


@pytest.mark.feature("F176")
@pytest.mark.parametrize("which", [0, 1])
def test_ports_of_the_proxy_lead_nowhere(mesh: Mesh, pods: dict[str, list[str]], which: int) -> None:
    """From a pod to its own and others' redirection ports: no application, no loop."""
    namespace, outside = pods[""]
    own = pods[f"{pods[''][which]}/attacker"]
    others = pods[f"{namespace}/near"] + pods[f"{namespace}/far"] + pods[f"{outside}/near"]
    ports = [15000, 15001, 15006, 15008, 15020, 15021, 15053]
    questions = [[address, port] for address in ["127.0.0.1", "::1", *own, *others] for port in ports]
    answers = ask(mesh, pods[""][which], DIAL, questions)
    told = [(each, answer) for each, answer in zip(questions, answers, strict=True) if not is_refused(answer)]
    assert told == []


@pytest.mark.feature("F176")
@pytest.mark.parametrize("which", [0, 1])
def test_nobody_gets_through_with_a_foreign_address(
    mesh: Mesh, pods: dict[str, list[str]], which: int
) -> None:
    namespace, outside = pods[""]
    own = dict(zip((4, 6), pods[f"{pods[''][which]}/attacker"], strict=False))
    stolen = dict(zip((4, 6), pods[f"{namespace}/far"], strict=False))
    targets = pods[f"{namespace}/near"] + pods[f"{namespace}/far"] + pods[f"{outside}/near"]
    unused = {4: own[4].rpartition(".")[0] + ".250"} | (
        {6: own[6].rpartition(":")[0] + ":fa"} if 6 in own else {}
    )
    probes = {4: "169.254.7.127", 6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"}
    families = [(address, 6 if ":" in address else 4) for address in targets]
    questions = [[address, 9000, own[family]] for address, family in families]
    honest = ask(mesh, pods[""][which], DIAL, questions, PATIENT)
    assert honest == [own[family] for _, family in families]
    for foreign in (stolen, unused, probes):
        questions = [[address, 9000, foreign[family]] for address, family in families]
        answers = ask(mesh, pods[""][which], DIAL, questions)
        assert [answer for answer in answers if not is_refused(answer)] == []


@pytest.mark.feature("F176")
@pytest.mark.laptop_only("Kubernetes' nodes have no address of probes that a pod could bind")
def test_a_pod_in_the_nodes_network_is_no_probe(mesh: Mesh, pods: dict[str, list[str]]) -> None:
    """Probes pass the proxy, and with it every policy."""
    namespace, outside = pods[""]
    near = pods[f"{namespace}/near"]
    spy = pod("spy", mesh.nodes[0], ["sleep", "3600"], namespace=outside)
    spy["spec"]["hostNetwork"] = True
    mesh.apply(spy)
    mesh.kubectl("wait", "-n", outside, "--for=condition=Ready", "pod/spy", "--timeout=110s")

    def dial(*sources: str | None) -> list[str]:
        questions = [[address, 9000, source] for address, source in zip(near, sources, strict=False)]
        words = ("exec", "-i", "-n", outside, "spy", "--", "python3", "-c", DIAL, str(PATIENT))
        answers: list[str] = json.loads(mesh.kubectl(*words, stdin=json.dumps(questions)).stdout)
        return answers

    assert not any(map(is_refused, dial(None, None)))
    assert all(map(is_refused, dial("169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff")))


@pytest.mark.feature("F176")
@pytest.mark.parametrize("bound", [False, True])
def test_nobody_takes_an_address_by_a_pods_status(
    mesh: Mesh, pods: dict[str, list[str]], bound: bool
) -> None:
    """A pod that runs nowhere, or elsewhere, says that `far`'s address is its own, and by which waypoint it is to be
    called."""
    namespace, _ = pods[""]
    far, near = pods[f"{namespace}/far"][0], pods[f"{namespace}/near"][0]
    use = "istio.io/use-waypoint"
    thief = pod("a-thief", mesh.nodes[0], ["sleep", "3600"], namespace=namespace, labels={use: "nobody"})
    if not bound:
        del thief["spec"]["nodeName"]
        thief["spec"]["schedulerName"] = "nobody"
        thief["metadata"]["annotations"] = {"ambient.istio.io/redirection": "enabled"}
    said = {"status": {"phase": "Running", "podIP": far, "podIPs": [{"ip": far}]}}
    mesh.apply(thief)
    try:
        if bound:
            mesh.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/a-thief", "--timeout=110s")
        change = ("--subresource=status", "--type=merge", "-p", json.dumps(said))
        mesh.kubectl("patch", "pod", "-n", namespace, "a-thief", *change)
        # What is said of pods afterwards counts, so that was heard before.
        mesh.kubectl("label", "pod", "-n", namespace, "near", f"{use}=nobody")
        mesh.wait("near is closed", lambda: is_refused(ask(mesh, namespace, DIAL, [[near, 9000]])[0]))
        assert not is_refused(ask(mesh, namespace, DIAL, [[far, 9000]], PATIENT)[0])
    finally:
        mesh.kubectl("delete", "pod", "-n", namespace, "a-thief", "--wait=false")
        mesh.kubectl("label", "pod", "-n", namespace, "near", f"{use}-")
        mesh.wait("near is open", lambda: not is_refused(ask(mesh, namespace, DIAL, [[near, 9000]])[0]))


@pytest.mark.feature("F176")
@pytest.mark.laptop_only("kube-proxy does whatever the status of a Service says (docs/limits.md)")
def test_nobody_takes_an_address_by_the_status_of_a_service(mesh: Mesh, pods: dict[str, list[str]]) -> None:
    """A load balancer that nobody has made says that it has the address of another one, and of a node."""
    namespace, outside = pods[""]
    elsewhere, ports = "203.0.113.77", {"taken": (9000, 9), "node": (15021, 9), "heard": (9001, 9000)}
    thief = _balancer("a-thief", outside, ports)
    thief["spec"]["loadBalancerClass"] = "example.com/nobody"
    for each in (thief, _balancer("web", namespace, {"web": (9000, 9000)})):
        mesh.apply(each)
    mesh.kubectl("label", "pod", "-n", outside, "near", "app=a-thief")
    mesh.kubectl("label", "pod", "-n", namespace, "near", "app=web")

    def given() -> str:
        path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
        return mesh.kubectl("get", "service", "-n", namespace, "web", "-o", path).stdout

    def answers(*places: tuple[str, int]) -> list[str]:
        found: list[str] = ask(mesh, namespace, DIAL, [list(each) for each in places], PATIENT)
        return found

    try:
        mesh.wait("the load balancer has an address", given)
        path = "jsonpath={.items[0].status.addresses[0].address}"
        web, node = given(), mesh.kubectl("get", "nodes", "-o", path).stdout
        mesh.wait("the load balancer is there", lambda: not is_refused(answers((web, 9000))[0]))
        said = {"status": {"loadBalancer": {"ingress": [{"ip": each} for each in (elsewhere, web, node)]}}}
        change = ("--subresource=status", "--type=merge", "-p", json.dumps(said))
        mesh.kubectl("patch", "service", "-n", outside, "a-thief", *change)
        mesh.wait("the status was heard", lambda: not is_refused(answers((elsewhere, 9001))[0]))
        assert not any(map(is_refused, answers((web, 9000), (node, 15021))))
    finally:
        mesh.kubectl("delete", "service", "-n", outside, "a-thief")
        mesh.kubectl("delete", "service", "-n", namespace, "web")


def _balancer(name: str, namespace: str, ports: dict[str, tuple[int, int]]) -> dict[str, Any]:
    listed = [{"name": each, "port": port, "targetPort": target} for each, (port, target) in ports.items()]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "LoadBalancer", "selector": {"app": name}, "ports": listed},
    }


def test_a_service_account_may_do_nothing_by_default(mesh: Mesh, pods: dict[str, list[str]]) -> None:
    program = """
import json, ssl, sys, urllib.request, urllib.error
base = "/var/run/secrets/kubernetes.io/serviceaccount"
context = ssl.create_default_context(cafile=f"{base}/ca.crt")
def status(path, token):
    request = urllib.request.Request("https://kubernetes.default.svc" + path)
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        return urllib.request.urlopen(request, timeout=60, context=context).status
    except urllib.error.HTTPError as problem:
        return problem.code
token = open(f"{base}/token").read()
print(json.dumps([[status(path, each) for each in (token, "", "x" + token)] for path in json.load(sys.stdin)]))
"""
    paths = [
        "/api/v1/secrets",
        "/api/v1/namespaces/ambit-system/secrets",
        "/api/v1/pods",
        "/api/v1/nodes",
        "/apis/security.istio.io/v1/authorizationpolicies",
    ]
    # Kubernetes lets nobody in as a user of its own, who may do as little.
    for own, nobody, wrong in ask(mesh, pods[""][0], program, paths):
        assert (own, wrong) == (403, 401)
        assert nobody in (401, 403)


@pytest.mark.laptop_only("`ambit local node exec` runs programs in the laptop's nodes")
def test_packets_of_a_node_are_captured_as_the_help_shows(laptop: LaptopMesh) -> None:
    """Also by an ordinary user, who has no other account to change to: `tests/mesh/test_rootless.py` runs this so."""
    words = ("local", "node", "exec", "node1", "--", "tcpdump", "-Z", "root", "-ni", "eth0", "-c", "1")
    with laptop.start_ambit(*words) as capture:

        def has_ended() -> bool:
            laptop.ambit("node", "status")  # its questions come to the node by eth0
            return capture.poll() is not None

        laptop.wait("a packet is captured", has_ended)
    assert capture.returncode == 0
