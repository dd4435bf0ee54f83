"""One agent per node, and how the next pod's agent follows the one before it.

Whoever holds `agent.lock` in the run directory is the agent. On Kubernetes a new pod of the node starts beside the old
one (the DaemonSet surges): its agent asks for the lock over `succession.sock`, the old one lets go of every socket and
ends with `HANDED_OVER`, and its Envoy lives on in the old container until a successor in the new one has taken over
(`ambit.node.supervise`). Three generations are never: while the old agent's Envoy has an older one of its own that
carries connections, it asks to be left in charge.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from ambit.agent.supervise.keeper import HANDED_OVER, LOCK
from ambit.core.errors import EnvironmentProblem

__all__ = ["HANDED_OVER", "Succession", "hold"]

_log = logging.getLogger("ambit.node")
_SOCKET = "succession.sock"
_GRANTED = b"granted\n"
_ASK_AGAIN = 1.0
_LET_GO = 0.02
"""Seconds between two looks whether the lock is free, once it was granted."""
_PATIENCE = 10.0
"""Seconds an agent that granted the lock may need to end."""


async def hold(run: Path, *, succeed: bool) -> int:
    """The descriptor of the lock on the run directory. With `succeed`, another agent that has it is asked for it,
    for as long as it takes; without, that is an error. Raises EnvironmentProblem."""
    descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        reason = ""
        while not _locked(descriptor):
            answer = await (_asked(run) if succeed else _refused(run))
            if answer == _GRANTED:
                await _freed(descriptor)
                continue
            told = answer.decode(errors="replace").strip() or "it does not answer"
            if told != reason:
                _log.info("the node's present agent stays in charge: %s", told)
                reason = told
            await asyncio.sleep(_ASK_AGAIN)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class Succession:
    """The side of the agent in charge. `objection` says why it must stay, empty when it may go."""

    def __init__(self, run: Path, objection: Callable[[], str]) -> None:
        self.granted = asyncio.Event()
        self._run = run
        self._objection = objection

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[None]:
        """Listens for a successor. The socket is removed when the context is left."""
        path = self._run / _SOCKET
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._asked, str(path))
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def _asked(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        objection = self._objection()
        with contextlib.suppress(OSError):
            writer.write(f"{objection}\n".encode() if objection else _GRANTED)
            await writer.drain()
            writer.close()
        if not objection:
            self.granted.set()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


async def _refused(run: Path) -> bytes:
    raise EnvironmentProblem(
        f"another agent uses {run}", "one agent runs per node; stop it, or give another --run-dir"
    )


async def _asked(run: Path) -> bytes:
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(run / _SOCKET))
            try:
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError):
        return b""


async def _freed(descriptor: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            while not _locked(descriptor):  # noqa: ASYNC110 - nothing tells of a lock that becomes free
                await asyncio.sleep(_LET_GO)
