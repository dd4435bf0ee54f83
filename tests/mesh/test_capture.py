"""No first byte in the clear: pods that send as early as they can. Pods outside the mesh show that it would be seen."""

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ambit.kube import resource as kinds
from ambit.kube.client import Client
from ambit.testing.mesh import Mesh
from tests.mesh.pods import pod
from tests.mesh.sniffer import Sniffer, sniffing

pytestmark = [pytest.mark.mesh, pytest.mark.kubectl]

PODS = int(os.environ.get("AMBIT_CAPTURE_PODS", "500"))
AT_ONCE = max(10, PODS // 10)
DURING_OUTAGES = int(os.environ.get("AMBIT_CAPTURE_DURING_OUTAGES", "60"))
DELETIONS = 3
SINK = """
import os, socket, threading
def answer(connection):
    with connection, connection.makefile("rw") as lines:
        os.write(1, lines.readline().encode())
        print("taken", file=lines, flush=True)
server = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1000)
while True:
    threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()
"""
# Both connections are opened by the container's first instructions, before either is answered.
FIRST = """
exec 3<>/dev/tcp/{first}/9000 && echo {marker}-{number}a. >&3
exec 4<>/dev/tcp/{last}/9000 && echo {marker}-{number}b. >&4
read -t 40 -u 3 first; read -t 40 -u 4 second
[ "$first$second" = takentaken ]
"""
FIRST_WITHOUT_BASH = """
import socket, sys
made = []
for address, letter in (("{first}", "a"), ("{last}", "b")):
    made.append(socket.create_connection((address, 9000), 40))
    made[-1].sendall(b"{marker}-{number}" + letter.encode() + b".\\n")
sys.exit([each.makefile().readline() for each in made] != ["taken\\n"] * 2)
"""
# Whatever the image has: bash comes to its first connection soonest.
EITHER = 'command -v bash >/dev/null && exec bash -c "$0"; exec python3 -ISc "$1"'
# Again until both are answered.
UNTIL_ANSWERED = 'until sh -c "$2" "$0" "$1"; do sleep 0.5; done'

# Opens connection after connection, and says at the end how many were not answered.
CHATTER = """
import signal, socket, sys, time
address, marker, name, until = sys.argv[1:]
failures = number = 0

def send(text):
    with socket.create_connection((address, 9000), 30) as dialled:
        dialled.sendall(f"{marker}-{text}.\\n".encode())
        return dialled.recv(6) == b"taken\\n"

def chat(end):
    global failures, number
    while time.monotonic() < end:
        number += 1
        try:
            failures += not send(f"{name}x{number}")
        except OSError:
            failures += 1
        time.sleep(0.01)

def leave(*_):
    chat(time.monotonic() + 1)
    send(f"{name}failed{failures}")
    sys.exit()

signal.signal(signal.SIGTERM, signal.SIG_IGN if until == "killed" else leave)
chat(time.monotonic() + 3600)
"""


@pytest.fixture
def marker() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def sniffer(mesh: Mesh, marker: str) -> Iterator[Sniffer]:
    with sniffing(mesh, sink_node(mesh), marker) as sniffer:
        yield sniffer


def pods_node(mesh: Mesh) -> str:
    return mesh.nodes[0]


def sink_node(mesh: Mesh) -> str:
    return mesh.nodes[1]


def make_sink(mesh: Mesh, namespace: str) -> tuple[str, str]:
    """Its first and its last address: one of each family, or twice the same where there is one family."""
    node = sink_node(mesh)
    probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
    mesh.call(
        lambda client: client.create(
            kinds.PODS, pod("sink", node, ["python3", "-uc", SINK], readinessProbe=probe), namespace
        )
    )
    mesh.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/sink", "--timeout=110s")
    addresses = mesh.pod_addresses(namespace, "sink")
    return addresses[0], addresses[-1]


async def start_quickly(
    client: Client, namespace: str, node: str, scripts: list[list[str]], run: str = EITHER
) -> Counter[str]:
    """Pods with these scripts, many at a time, each deleted when it has ended; how many ended how."""
    waiting = [
        pod(f"p{number}", node, ["sh", "-c", run, *script, EITHER]) for number, script in enumerate(scripts)
    ]
    ended: dict[str, str] = {}
    there = ["sink"]
    while waiting or there != ["sink"]:
        room = AT_ONCE - len(there)
        await asyncio.gather(*(client.create(kinds.PODS, each, namespace) for each in waiting[:room]))
        del waiting[:room]
        found = await client.list(kinds.PODS, namespace)
        there = [each["metadata"]["name"] for each in found]
        phases = {each["metadata"]["name"]: each["status"]["phase"] for each in found}
        over = {name: phase for name, phase in phases.items() if phase in ("Succeeded", "Failed")}
        await asyncio.gather(
            *(client.delete(kinds.PODS, name, namespace) for name in over if name not in ended)
        )
        ended |= over
        await asyncio.sleep(0.05)
    return Counter(ended.values())


def first_bytes(mesh: Mesh, namespace: str, marker: str, count: int) -> list[list[str]]:
    """Makes the sink; the scripts of so many pods that send to it at once: for bash, and for Python."""
    first, last = make_sink(mesh, namespace)
    return [
        [
            text.format(first=first, last=last, marker=marker, number=number)
            for text in (FIRST, FIRST_WITHOUT_BASH)
        ]
        for number in range(count)
    ]


def send_first_bytes(mesh: Mesh, namespace: str, marker: str, count: int) -> list[str]:
    """From so many new pods; what arrived at the sink."""
    scripts = first_bytes(mesh, namespace, marker, count)
    node = pods_node(mesh)
    ended = mesh.call(lambda client: start_quickly(client, namespace, node, scripts))
    assert ended == {"Succeeded": count}
    return taken(mesh, namespace, 2 * count)


def taken(mesh: Mesh, namespace: str, count: int) -> list[str]:
    """What arrived at the sink, once it is so much: a pod's log may come later than its answers."""

    def lines() -> list[str]:
        found = mesh.kubectl("logs", "sink", "-n", namespace).stdout.split()
        return found if len(found) >= count else []

    return list(mesh.wait(f"the sink has written {count} lines", lines))


def sent(marker: str, count: int) -> list[str]:
    return sorted(f"{marker}-{number}{letter}." for number in range(count) for letter in "ab")


@pytest.mark.feature("F5")
@pytest.mark.timeout(900)
def test_first_bytes_of_captured_pods_are_never_in_the_clear(
    mesh: Mesh, namespace: str, marker: str, sniffer: Sniffer
) -> None:
    assert sorted(send_first_bytes(mesh, namespace, marker, PODS)) == sent(marker, PODS)
    assert sniffer.seen(pods_node(mesh)) == set()


def test_first_bytes_of_other_pods_are_seen_in_the_clear(
    mesh: Mesh, namespace: str, marker: str, sniffer: Sniffer
) -> None:
    mesh.kubectl("label", "namespace", namespace, "istio.io/dataplane-mode-")
    assert sorted(send_first_bytes(mesh, namespace, marker, 20)) == sent(marker, 20)
    assert sorted(sniffer.seen(pods_node(mesh))) == sent(marker, 20)


@pytest.mark.feature("F56")
def test_pods_that_start_while_the_agent_is_killed_wait_for_it(
    mesh: Mesh, namespace: str, marker: str, sniffer: Sniffer
) -> None:
    scripts = first_bytes(mesh, namespace, marker, 30)
    node = pods_node(mesh)
    with ThreadPoolExecutor(1) as beside:
        ended = beside.submit(mesh.call, lambda client: start_quickly(client, namespace, node, scripts))
        words = ("get", "pods", "-n", namespace, "-o", "name")
        mesh.wait("pods begin", lambda: len(mesh.kubectl(*words).stdout.split()) > 5)
        assert not ended.done()
        mesh.kill("node agent", node)
    assert ended.result() == {"Succeeded": len(scripts)}
    assert sorted(taken(mesh, namespace, 2 * len(scripts))) == sent(marker, len(scripts))
    assert sniffer.seen(pods_node(mesh)) == set()


@pytest.mark.feature("F56")
@pytest.mark.timeout(1500)
def test_pods_that_start_while_the_agents_pod_is_deleted_wait_for_it(
    mesh: Mesh, namespace: str, marker: str, sniffer: Sniffer
) -> None:
    """Its Envoy goes with it, so connections fail meanwhile; none goes past, and in the end every pod has started."""
    scripts = first_bytes(mesh, namespace, marker, DURING_OUTAGES)
    node = pods_node(mesh)
    for batch in (scripts[number::DELETIONS] for number in range(DELETIONS)):
        before = len(arrived(mesh, namespace, ""))
        with ThreadPoolExecutor(1) as beside:
            ended = beside.submit(start_until_answered, mesh, namespace, batch)
            mesh.wait("pods start", lambda: len(arrived(mesh, namespace, "")) > before, 300)  # noqa: B023
            assert not ended.done()
            delete_agent(mesh, node)
            assert ended.result() == {"Succeeded": len(batch)}
    words = ("logs", "sink", "-n", namespace)
    wanted = sent(marker, DURING_OUTAGES)
    mesh.wait("all have been taken", lambda: sorted(set(mesh.kubectl(*words).stdout.split())) == wanted)
    assert sniffer.seen(node) == set()


def start_until_answered(mesh: Mesh, namespace: str, scripts: list[list[str]]) -> Counter[str]:
    node = pods_node(mesh)
    return mesh.call(lambda client: start_quickly(client, namespace, node, scripts, UNTIL_ANSWERED))


def delete_agent(mesh: Mesh, node: str) -> None:
    """Delete the node agent's pod, and wait until there is no such pod and then until there is a new one."""
    chosen = ("-n", "ambit-system", "-l", "app=ztunnel", f"--field-selector=spec.nodeName={node}")
    mesh.kubectl("delete", "pod", *chosen)
    mesh.wait("a new agent", lambda: "pod/" in mesh.kubectl("get", "pod", *chosen, "-o", "name").stdout)
    mesh.kubectl("wait", "pod", *chosen, "--for=condition=Ready", "--timeout=110s")


def chatter(mesh: Mesh, namespace: str, name: str, address: str, marker: str, until: str = "left") -> None:
    """A pod that opens one connection after another."""
    made = pod(name, pods_node(mesh), ["python3", "-uc", CHATTER, address, marker, name, until])
    made["spec"]["terminationGracePeriodSeconds"] = 3 if until == "killed" else 60
    mesh.call(lambda client: client.create(kinds.PODS, made, namespace))


def arrived(mesh: Mesh, namespace: str, name: str) -> list[str]:
    """What the sink got from this pod, without the marker."""
    found = mesh.kubectl("logs", "sink", "-n", namespace).stdout.replace(".", "").split()
    texts = [each.partition("-")[2] for each in found]
    return [text.removeprefix(name) for text in texts if text.startswith(name)]


@pytest.mark.feature("F23")
def test_nothing_passes_by_an_envoy_that_was_killed(
    mesh: Mesh, namespace: str, marker: str, sniffer: Sniffer
) -> None:
    addresses = dict(zip(("one", "two"), make_sink(mesh, namespace), strict=True))
    for name, address in addresses.items():
        chatter(mesh, namespace, name, address, marker)
    for node in (pods_node(mesh), sink_node(mesh), pods_node(mesh)):
        for name in addresses:
            before = len(arrived(mesh, namespace, name))
            mesh.wait("it talks", lambda: len(arrived(mesh, namespace, name)) > before + 10)  # noqa: B023
        mesh.kill("envoy", node)
    for name in addresses:
        before = len(arrived(mesh, namespace, name))
        mesh.wait("it talks again", lambda: len(arrived(mesh, namespace, name)) > before)  # noqa: B023
    assert sniffer.seen(pods_node(mesh)) == set()


@pytest.mark.feature("F5")
def test_a_pod_that_ends_stays_captured_to_its_last_byte(
    mesh: Mesh, namespace: str, marker: str, sniffer: Sniffer
) -> None:
    first, last = make_sink(mesh, namespace)
    names = {"leavesv": first, "leavesw": last, "killed": first, "forced": last}
    for name, address in names.items():
        chatter(mesh, namespace, name, address, marker, until="killed" if name == "killed" else "left")
    for name in names:
        mesh.wait("it talks", lambda: len(arrived(mesh, namespace, name)) > 5)  # noqa: B023
    mesh.kubectl("delete", "pod", "forced", "-n", namespace, "--force", "--grace-period=0")
    mesh.kubectl("delete", "pod", "leavesv", "leavesw", "killed", "-n", namespace)
    for name in ("leavesv", "leavesw"):

        def last_words(name: str = name) -> list[str]:
            found = arrived(mesh, namespace, name)
            return found if found[-1].startswith("failed") else []

        last = mesh.wait("its last word", last_words)
        # While it was ending its traffic went on, and none of it was refused.
        assert last[-1] == "failed0"
        assert len(last) > 10
    assert sniffer.seen(pods_node(mesh)) == set()
