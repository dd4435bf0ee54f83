"""What the kernel has in a pod's network namespace: programs that run there as root, from the pod's node."""

from ambit.testing.mesh import Mesh

# The namespace is that of any process which has the pod's address as its own.
ENTER = """
import ctypes, ipaddress, os, re, sys

address = ipaddress.ip_address(sys.argv[1])
own = (
    ("fib_trie", re.compile(rf"[|]-- {re.escape(str(address))}\\n\\s+/32 host LOCAL"))
    if address.version == 4
    else ("if_inet6", re.compile(rf"^{address.packed.hex()} ", re.MULTILINE))
)

def enter(pid):
    try:
        with open(f"/proc/{pid}/net/{own[0]}") as file:
            if not own[1].search(file.read()):
                return False
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    except OSError:
        return False
    return ctypes.CDLL(None).setns(namespace, 0x40000000) == 0

pid = next(filter(enter, filter(str.isdigit, os.listdir("/proc"))), "")
assert pid, f"nobody has {address}"
os.execvp(sys.argv[2], [word.replace("{pid}", pid) for word in sys.argv[2:]])
"""


def in_pod(mesh: Mesh, namespace: str, pod: str, *words: str) -> str:
    """What a program says that runs in a pod's network namespace, with the rights of the node's root. `{pid}` in its
    words is the number of a process of the pod."""
    path = "jsonpath={.spec.nodeName}"
    node = mesh.kubectl("get", "pod", pod, "-n", namespace, "-o", path).stdout
    address, *_ = mesh.pod_addresses(namespace, pod)
    return mesh.on_node(node, "python3", "-c", ENTER, address, *words).stdout


def rules(mesh: Mesh, namespace: str, pod: str) -> str:
    """The packet filter's rules in a pod's namespace, without what its counters have counted."""
    return in_pod(mesh, namespace, pod, "nft", "--stateless", "list", "ruleset")


def listening(mesh: Mesh, namespace: str, pod: str) -> set[int]:
    """TCP ports that somebody listens on in a pod's namespace."""
    text = in_pod(mesh, namespace, pod, "cat", "/proc/{pid}/net/tcp", "/proc/{pid}/net/tcp6")
    rows = [line.split() for line in text.splitlines()]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
