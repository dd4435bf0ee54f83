"""What crosses the wire into a node, byte by byte: every packet of its interface, until a datagram marks the end."""

import base64
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ambit.testing.mesh import Mesh
from tests.mesh.sniffer import SEND

# The barrier comes last of all, because a packet socket sees packets in order; the counter says that none is missing.
PROGRAM = """
import base64, socket, struct, sys
barrier = sys.argv[1].encode()
tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
for option in (socket.SO_RCVBUF, 33):  # SO_RCVBUFFORCE, which an ordinary user may not
    try:
        tap.setsockopt(socket.SOL_SOCKET, option, 64 << 20)
    except PermissionError:
        pass
tap.bind(("eth0", 0))
print("listening", flush=True)
while barrier not in (packet := tap.recv(65535)):
    print(base64.b64encode(packet).decode())
print("dropped", struct.unpack("II", tap.getsockopt(263, 6, 8))[1], flush=True)
"""


class Recording:
    """Ethernet frames, complete once the context of `recording` is left."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def has(self, text: bytes) -> bool:
        """Whether one frame has it, whole."""
        return any(text in frame for frame in self.frames)


@contextmanager
def recording(mesh: Mesh, node: str, other_node: str) -> Iterator[Recording]:
    """Every packet that enters or leaves `node` while the context is open; `other_node` marks the end."""
    barrier = uuid.uuid4().hex
    recorded = Recording()
    process = mesh.start_on_node(node, "python3", "-c", PROGRAM, barrier)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "listening"
        yield recorded
        mesh.on_node(other_node, "python3", "-c", SEND, mesh.node_addresses(node)[0], barrier)
        *frames, dropped = process.stdout.read().split("\n")[:-1]
        assert dropped == "dropped 0"
        recorded.frames = [base64.b64decode(frame) for frame in frames]
    finally:
        process.terminate()
        with process:
            process.wait(60)
