"""What the kernel has in pods' network namespaces: programs that run there as root, from the pods' node."""

import json
from collections.abc import Sequence

from ambit.testing.mesh import Mesh

# A pod's namespace is that of any process which has the pod's address as its own.
RUN = """
import ctypes, ipaddress, json, os, re, subprocess, sys

def of(text):
    address = ipaddress.ip_address(text)
    if address.version == 4:
        name, own = "fib_trie", re.compile(rf"[|]-- {re.escape(str(address))}\\n\\s+/32 host LOCAL")
    else:
        name, own = "if_inet6", re.compile(rf"^{address.packed.hex()} ", re.MULTILINE)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/net/{name}") as file:
                if own.search(file.read()):
                    return pid, os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        except OSError:
            pass
    raise SystemExit(f"nobody has {address}")

def run(text):
    pid, namespace = of(text)
    enter = lambda: ctypes.CDLL(None).setns(namespace, 0x40000000) and os._exit(1)
    words = [word.replace("{pid}", pid) for word in sys.argv[2:]]
    return subprocess.run(words, preexec_fn=enter, stdout=subprocess.PIPE, text=True, check=True).stdout

print(json.dumps([run(each) for each in json.loads(sys.argv[1])]))
"""
LIST_RULES = ("nft", "--stateless", "list", "ruleset")
"""Prints the packet filter's rules, without what its counters have counted."""


def in_namespaces(mesh: Mesh, node: str, addresses: Sequence[str], *words: str) -> list[str]:
    """What a program says that runs with the rights of the node's root in the network namespace of each pod of the node
    with one of these addresses. `{pid}` in its words is the number of a process of the pod."""
    done = mesh.on_node(node, "python3", "-c", RUN, json.dumps(list(addresses)), *words)
    return list(json.loads(done.stdout))


def in_pod(mesh: Mesh, namespace: str, pod: str, *words: str) -> str:
    """The same in one pod."""
    path = "jsonpath={.spec.nodeName} {.status.podIP}"
    node, address = mesh.kubectl("get", "pod", pod, "-n", namespace, "-o", path).stdout.split()
    (said,) = in_namespaces(mesh, node, [address], *words)
    return said


def rules(mesh: Mesh, namespace: str, pod: str) -> str:
    """The packet filter's rules in a pod's namespace."""
    return in_pod(mesh, namespace, pod, *LIST_RULES)


def listening(mesh: Mesh, namespace: str, pod: str) -> set[int]:
    """TCP ports that somebody listens on in a pod's namespace."""
    text = in_pod(mesh, namespace, pod, "cat", "/proc/{pid}/net/tcp", "/proc/{pid}/net/tcp6")
    rows = [line.split() for line in text.splitlines()]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
