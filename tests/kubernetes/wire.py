"""What stock tcpdump sees on the link of a node."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec


class Wire(msgspec.Struct):
    """The packets' bytes in pcap form; complete once the context of `captured` is left."""

    content: bytes = b""


@contextmanager
def captured(node: str) -> Iterator[Wire]:
    """Every packet between that node and the rest of the cluster while the context is open."""
    wire = Wire()
    with tempfile.TemporaryDirectory(prefix="ambit-wire-") as folder:
        path = Path(folder) / "wire.pcap"
        words = ["-i", f"to-{node}", "-Z", "root", "--immediate-mode", "-U", "-s", "0", "-w", str(path)]
        process = subprocess.Popen(["tcpdump", *words], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            assert "listening on" in said, said
            yield wire
        finally:
            process.terminate()
            process.communicate()
        wire.content = path.read_bytes()
