"""Containers inside of a captured pod, as Docker in Docker makes them: what they open has the identity of the pod."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambit.testing.mesh import Mesh
from tests.mesh.inside import in_pod
from tests.mesh.pods import make_namespace, pod
from tests.mesh.talk import SERVER

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

# A network namespace of its own behind the interface `docker0` of the pod, and connections from there.
NESTED = """
import ctypes, errno, json, os, socket, struct, subprocess, sys, time

NETWORK = 0x40000000
libc = ctypes.CDLL(None)
pod = os.open("/proc/{pid}/ns/net", os.O_RDONLY)

def ip(words, enter=None):
    subprocess.run(["ip", *words.split()], check=True, preexec_fn=enter)

def in_pod(words):
    ip(words, lambda: libc.setns(pod, NETWORK) and os._exit(1))

def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)

def make_pair():
    # By rtnetlink(7), as BusyBox's ip cannot: RTM_NEWLINK, IFLA_IFNAME 3, IFLA_LINKINFO 18, IFLA_NET_NS_FD 28.
    peer = bytes(16) + attribute(3, b"docker0") + attribute(28, struct.pack("=I", pod))
    kind = attribute(1, b"veth") + attribute(2, attribute(1, peer))
    link = bytes(16) + attribute(3, b"eth0") + attribute(18, kind)
    until, error = time.monotonic() + 30, -errno.EEXIST
    # The kernel takes its time to clear away what was there before.
    while error == -errno.EEXIST and time.monotonic() < until:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as asked:
            asked.send(struct.pack("=IHHII", 16 + len(link), 16, 0x605, 1, 0) + link)
            (error,) = struct.unpack_from("=i", asked.recv(4096), 16)
    assert error == 0, error

def ask(address):
    try:
        with socket.create_connection((address, 9000), 5) as dialled:
            return dialled.recv(5).decode()
    except OSError as problem:
        return type(problem).__name__

assert libc.unshare(NETWORK) == 0
make_pair()
in_pod("addr add 172.31.0.1/24 dev docker0")
in_pod("link set docker0 up")
ip("addr add 172.31.0.2/24 dev eth0")
ip("link set eth0 up")
ip("route add default via 172.31.0.1")
if any(":" in each for each in sys.argv[1:]):
    in_pod("-6 addr add fd31::1/64 dev docker0 nodad")
    ip("-6 addr add fd31::2/64 dev eth0 nodad")
    ip("-6 route add default via fd31::1")
print(json.dumps([ask(each) for each in sys.argv[1:]]))
"""
STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "strict"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


@pytest.fixture
def house(mesh: Mesh) -> Iterator[str]:
    """A server of its Service `web` that takes mutual TLS only, and on another node two pods that may hold containers;
    one of them says where they are."""
    with make_namespace(mesh) as name:
        near, far = mesh.nodes[:2]
        server = pod("web", far, ["python3", "-uc", SERVER], namespace=name, labels={"app": "web"})
        server["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": name},
            "spec": {
                "selector": {"app": "web"},
                "ports": [{"name": "tcp", "port": 9000}],
                "ipFamilyPolicy": "PreferDualStack",
            },
        }
        holding, silent = (
            pod(each, near, ["sleep", "3600"], namespace=name) for each in ("holding", "silent")
        )
        holding["metadata"]["annotations"] = {"istio.io/reroute-virtual-interfaces": "docker0, virbr0"}
        strict = STRICT | {"metadata": {"name": "strict", "namespace": name}}
        mesh.apply([server, service, holding, silent, strict])
        mesh.kubectl("wait", "-n", name, "--for=condition=Ready", "pod", "--all", "--timeout=110s")
        yield name


def answers(mesh: Mesh, namespace: str, name: str, addresses: list[str]) -> list[str]:
    """What a container inside of a pod hears from these addresses."""
    return list(json.loads(in_pod(mesh, namespace, name, "python3", "-c", NESTED, *addresses)))


@pytest.mark.feature("F55")
def test_a_container_inside_of_a_pod_reaches_what_the_pod_may_reach(mesh: Mesh, house: str) -> None:
    path = "jsonpath={.spec.clusterIPs}"
    service = json.loads(mesh.kubectl("get", "service", "web", "-n", house, "-o", path).stdout)
    server = list(mesh.pod_addresses(house, "web"))
    mesh.wait(
        "the service and the pod answer",
        lambda: set(answers(mesh, house, "holding", [*service, *server])) == {"hello"},
    )
    assert "hello" not in answers(mesh, house, "silent", [service[0], server[0]])
    flows = mesh.wait("both sides reported", lambda: reports(mesh, house))
    seen = {flow["source"]["address"].rpartition(":")[0].strip("[]") for flow in flows}
    assert seen == set(mesh.pod_addresses(house, "holding"))
    assert {flow["source"]["workload"] for flow in flows} == {"holding"}


def reports(mesh: Mesh, namespace: str) -> list[dict[str, Any]]:
    """Records of what went well, once those of both sides are there."""
    lines = mesh.ambit("flows", "--to", f"{namespace}/web", "-o", "json").stdout.splitlines()
    found = [flow for flow in map(json.loads, lines) if not flow.keys() & {"decision", "error"}]
    return found if {flow["reporter"] for flow in found} == {"source", "destination"} else []
