"""What crosses the wire into a node in the clear: a packet socket on the node's interface that looks for a text."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ambit.testing.mesh import Mesh

# A packet socket sees packets in order, so the barrier proves that everything before it was looked at. The kernel
# counts what it had to drop, which would make the silence worthless.
PROGRAM = """
import re, socket, struct, sys
marker = sys.argv[1].encode()
wanted = re.compile(marker + b"-[0-9a-z]+[.]")
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
for option in (socket.SO_RCVBUF, 33):  # SO_RCVBUFFORCE, which an ordinary user may not
    try:
        tap.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
    except PermissionError:
        pass
tap.bind(("eth0", 0))
print("listening", flush=True)
while True:
    packet = tap.recv(65535)
    for found in wanted.findall(packet):
        print(found.decode(), flush=True)
        if found == marker + b"-barrier.":
            dropped = struct.unpack("II", tap.getsockopt(263, 6, 8))[1]
            print("dropped", dropped, flush=True)
"""
SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 9))
"""


class Sniffer:
    """Texts `<marker>-<something>.` that passed in the clear."""

    def __init__(self, mesh: Mesh, process: subprocess.Popen[str], marker: str, address: str) -> None:
        self._mesh = mesh
        self._process = process
        self._marker = marker
        self._address = address

    def seen(self, other_node: str) -> set[str]:
        """Everything seen until now. A datagram from the other node marks the end."""
        barrier = f"{self._marker}-barrier."
        self._mesh.on_node(other_node, "python3", "-c", SEND, self._address, barrier)
        found: set[str] = set()
        for line in self._lines():
            if line.startswith("dropped"):
                assert line == "dropped 0"
                return found
            if line != barrier:
                found.add(line)
        raise AssertionError("the sniffer ended")

    def _lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.strip()


@contextmanager
def sniffing(mesh: Mesh, node: str, marker: str) -> Iterator[Sniffer]:
    """Looks at every packet that enters or leaves `node`."""
    address = mesh.node_addresses(node)[0]
    process = mesh.start_on_node(node, "python3", "-c", PROGRAM, marker)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "listening"
        yield Sniffer(mesh, process, marker, address)
    finally:
        process.terminate()
        process.communicate()
