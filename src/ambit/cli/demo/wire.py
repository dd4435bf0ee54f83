"""What a stock tcpdump sees between two nodes: does a known marker pass in the clear?"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from ambit.core.errors import EnvironmentProblem
from ambit.local.fabric.wiring import NODE_INTERFACE
from ambit.local.instance.enter import enter_command
from ambit.local.instance.preflight import search_path
from ambit.local.instance.record import InstanceRecord

PATIENCE = 10.0


class Capture(msgspec.Struct):
    """Bytes seen so far, in pcap form. Complete once the context of `captured` is left."""

    content: bytes = b""

    def has(self, marker: bytes) -> bool:
        return marker in self.content

    @property
    def packets(self) -> int:
        """Records of the pcap file (libpcap format: 24 bytes of header, 16 before each record)."""
        count, place = 0, 24
        while place + 16 <= len(self.content):
            place += 16 + int.from_bytes(self.content[place + 8 : place + 12], "little")
            count += 1
        return count


@contextlib.asynccontextmanager
async def captured(record: InstanceRecord, node: str) -> AsyncIterator[Capture]:
    """Every packet that enters or leaves a node while the context is open. Raises EnvironmentProblem."""
    if shutil.which("tcpdump", path=search_path()) is None:
        raise EnvironmentProblem("this machine has no `tcpdump`", "type `apt-get install tcpdump`")
    capture = Capture()
    with tempfile.TemporaryDirectory(prefix="ambit-capture-") as directory:
        path = Path(directory) / "wire.pcap"
        words = [
            "tcpdump",
            "-i",
            NODE_INTERFACE,
            "-Z",
            "root",
            "--immediate-mode",
            "-U",
            "-s",
            "0",
            "-w",
            "-",
        ]
        with path.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *enter_command(record, node, words),
                stdout=file,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, "PATH": search_path()},
            )
        try:
            await _until_it_listens(process)
            yield capture
            await _until_quiet(path)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
        capture.content = path.read_bytes()


async def _until_it_listens(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(PATIENCE):
        while b"listening on" not in said:
            line = await process.stderr.readline()
            if not line:
                raise EnvironmentProblem(f"tcpdump ended: {said.decode(errors='replace').strip()}")
            said += line


async def _until_quiet(path: Path) -> None:
    """Until the file has not grown for a moment: what was sent has then been written."""
    size = -1
    while size != path.stat().st_size:
        size = path.stat().st_size
        await asyncio.sleep(0.2)
