"""Sandboxes: starting a pod's shim, finding it again after a restart, talking to it.

A sandbox's directory `/run/ambit/sandboxes/<id>/` holds `sandbox.json` (what the shim was started with),
`pod.json` (whose it is, and the shim's pid and start time), `shim.sock` and `volumes/`.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from ambit.core.errors import AmbitError, Unreachable
from ambit.daemon.process_id import start_time
from ambit.local import kernel
from ambit.local.pods.shim.protocol import Container, ContainerState, Process, Reply, Request, Sandbox

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from ambit.local.pods.shim.main import main; main(sys.argv[2])"
)
_PACKAGES = str(Path(__file__).parents[3])
_START_TIMEOUT = 20.0
_LINE = 8 * 1024 * 1024


class Owner(msgspec.Struct, frozen=True):
    """Whose sandbox this is, and its shim: pid and kernel start time tell it from a later process."""

    namespace: str
    name: str
    uid: str
    node: str
    pid: int
    started: int


def private_view(state: Path, environment: Mapping[str, str] = os.environ) -> tuple[list[str], list[str]]:
    """What pods must not see, and what they must although it may lie below that: (hidden, readable)."""
    hidden = {str(state), os.path.expanduser("~")}
    if environment.get("AMBIT_STATE"):
        hidden.add(os.path.abspath(environment["AMBIT_STATE"]))
    if environment.get("XDG_STATE_HOME"):
        hidden.add(os.path.join(os.path.abspath(environment["XDG_STATE_HOME"]), "ambit"))
    package = str(Path(__file__).parents[2])
    wanted = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable)), package]
    wanted += [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    readable = [os.path.realpath(path) for path in wanted] + wanted
    return sorted(hidden - {"/"}), list(dict.fromkeys(readable))


class ShimClient:
    """Requests to one shim. Each goes over its own short connection; Unix sockets make that cheap."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def request(self, request: Request) -> Reply:
        """Raises Unreachable when the shim is gone, AmbitError when it refuses."""
        reader, writer = await self._connect()
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            return _reply(await reader.readline())
        except (ConnectionError, BrokenPipeError) as problem:
            raise Unreachable(f"the pod's first process went away: {problem}") from problem
        finally:
            writer.close()

    async def start(self, container: Container) -> int:
        """The pid (as the pod counts) of the container's first process."""
        reply = await self.request({"op": "start", "container": container})
        return reply["pid"]

    async def signal(self, name: str, number: int) -> bool:
        """False when that container does not run."""
        try:
            await self.request({"op": "signal", "name": name, "signal": number})
        except Unreachable:
            raise
        except AmbitError:
            return False
        return True

    async def state(self) -> list[ContainerState]:
        return (await self.request({"op": "state"}))["containers"]

    async def watch(self) -> AsyncGenerator[list[ContainerState], None]:
        """The state now and after each change. Raises Unreachable when the shim ends."""
        reader, writer = await self._connect()
        try:
            writer.write(b'{"op":"watch"}\n')
            while True:
                yield _reply(await reader.readline())["containers"]
        except ConnectionError as problem:
            raise Unreachable(f"the pod's first process went away: {problem}") from problem
        finally:
            writer.close()

    @asynccontextmanager
    async def execute(
        self, name: str, process: Process, streams: tuple[int, int, int], terminal: bool
    ) -> AsyncIterator[asyncio.StreamReader]:
        """Run a program in a container; the next line read is its exit. Leaving the context kills it."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        request: Request = {"op": "exec", "name": name, "process": process, "terminal": terminal}
        try:
            connection.connect(self._path)
            payload = json.dumps(request).encode() + b"\n"
            sent = socket.send_fds(connection, [payload], list(streams))
            connection.sendall(payload[sent:])
            reader, writer = await asyncio.open_unix_connection(sock=connection)
        except OSError as problem:
            connection.close()
            raise Unreachable(f"the pod's first process does not answer: {problem}") from problem
        try:
            _reply(await reader.readline())
            yield reader
        finally:
            writer.close()

    async def stop(self) -> None:
        """Everything in the pod is killed, then the shim ends. A shim that is gone already is fine."""
        with suppress(Unreachable):
            await self.request({"op": "stop"})

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_unix_connection(self._path, limit=_LINE)
        except OSError as problem:
            raise Unreachable(f"the pod's first process does not answer: {problem}") from problem


def _reply(line: bytes) -> Reply:
    if not line:
        raise Unreachable("the pod's first process closed the connection")
    reply: Reply = json.loads(line)
    if not reply["ok"]:
        raise AmbitError(reply.get("error", "refused"))
    return reply


async def launch(directory: Path, sandbox: Sandbox, owner: Owner) -> ShimClient:
    """Start the shim of a new sandbox. Raises AmbitError with what the kernel refused."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = directory / "sandbox.json"
    settings.write_bytes(json.dumps(sandbox).encode())
    errors = directory / "shim.log"
    with errors.open("wb") as error_file:
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            _PROGRAM,
            _PACKAGES,
            str(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=error_file,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
        )
    try:
        async with asyncio.timeout(_START_TIMEOUT):
            output, _ = await program.communicate()
    except TimeoutError:
        program.kill()
        raise AmbitError("the sandbox did not start in time") from None
    if program.returncode != 0:
        text = errors.read_text(errors="replace").strip()
        raise AmbitError(f"the sandbox could not be made: {text.splitlines()[-1] if text else 'no reason'}")
    pid = int(json.loads(output)["pid"])
    started = start_time(pid)
    (directory / "pod.json").write_bytes(
        msgspec.json.encode(msgspec.structs.replace(owner, pid=pid, started=started or 0))
    )
    return ShimClient(sandbox["socket"])


def read_owner(directory: Path) -> Owner | None:
    """None when the sandbox was never finished."""
    try:
        return msgspec.json.decode((directory / "pod.json").read_bytes(), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None


def is_alive(owner: Owner) -> bool:
    return owner.pid > 0 and start_time(owner.pid) == owner.started


async def remove(directory: Path) -> None:
    """Stop the shim (by force when it does not answer) and forget the sandbox's files."""
    await ShimClient(str(directory / "shim.sock")).stop()
    owner = read_owner(directory)
    if owner is not None and is_alive(owner):
        with suppress(ProcessLookupError):
            os.kill(owner.pid, signal.SIGKILL)
    await asyncio.to_thread(_remove_files, directory)


def _remove_files(directory: Path) -> None:
    """Empties a volume in memory before unmounting it: another pod's mount namespace may still hold its tmpfs."""
    shutil.rmtree(directory, ignore_errors=True)
    for path in sorted(directory.glob("volumes/*")):
        if path.is_mount():
            kernel.unmount(str(path))
    shutil.rmtree(directory, ignore_errors=True)
