"""The proxy's Envoy: a child that ends with us, started again when it ends before, drained when the pod ends."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from ambit.agent.admin import Admin
from ambit.core.errors import EnvironmentProblem, Unreachable

_log = logging.getLogger("ambit.envoy")
_LAUNCH = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);"
    "sys.exit(1) if os.getppid()!=int(sys.argv[1]) else os.execv(sys.argv[2],sys.argv[2:])"
)
"""PR_SET_PDEATHSIG: whatever becomes of the agent, no Envoy without one goes on with what it was told last."""
_FIRST_PAUSE, _LAST_PAUSE, _STEADY = 0.1, 10.0, 30.0
"""Seconds between two starts; after this time of service the next one comes at once."""
_SERVERS = ("hbone", "requests")
"""Of Envoy's HTTP connection managers, their names in statistics."""
_LOOK = 0.1
_WARM_LOOK, _WARM_MOST = 0.02, 2.0
"""Seconds; what lacks something for longer, a certificate say, holds up nobody else."""
_WARMING = ("listener_manager.total_listeners_warming", "cluster_manager.warming_clusters")
_KILL_AFTER = 5.0


class Command(msgspec.Struct, frozen=True):
    """How it is started. Hot restarts are for node proxies: here a new pod takes over."""

    binary: Path
    bootstrap: Path
    concurrency: int

    def argv(self) -> list[str]:
        return [
            str(self.binary),
            *("-c", str(self.bootstrap)),
            *("--concurrency", str(self.concurrency)),
            "--disable-hot-restart",
            *("--drain-time-s", "5"),
            *("--log-level", "warning"),
        ]


class Envoy:
    """`run` is its life with the agent."""

    def __init__(self, command: Command, admin: Path) -> None:
        self._command = command
        self.admin = Admin(admin)
        self.restarts = 0

    async def run(self) -> None:
        """Keeps one running until cancelled. Raises EnvironmentProblem when it cannot be started at all."""
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *self._command.argv()
                )
            except OSError as problem:
                raise EnvironmentProblem(f"cannot start {self._command.binary}: {problem}") from problem
            try:
                status = await process.wait()
            finally:
                await _ended(process)
            self.restarts += 1
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY else min(_LAST_PAUSE, pause * 2)
            _log.error("Envoy ended with %d; it is started again in %.1f s", status, pause)
            await asyncio.sleep(pause)

    async def is_live(self) -> bool:
        """Whether it has everything that it waits for before it serves."""
        with contextlib.suppress(Unreachable):
            return (await self.admin.server_info()).state == "LIVE"
        return False

    async def warm(self) -> None:
        """Returns when no listener and no cluster waits for what it names, or they have done so for long."""
        with contextlib.suppress(Unreachable, TimeoutError):
            async with asyncio.timeout(_WARM_MOST):
                for each in _WARMING:
                    while await self.admin.stat(each):  # noqa: ASYNC110 - it is another process
                        await asyncio.sleep(_WARM_LOOK)

    async def drain(self, seconds: float, least: float = 0.0) -> None:
        """Clients are told to go; returns when requests under way have ended, not before `least` seconds, and at the
        latest after `seconds`."""
        with contextlib.suppress(Unreachable, TimeoutError):
            async with asyncio.timeout(seconds):
                await self.admin.post("/drain_listeners?graceful&skip_exit")
                await asyncio.sleep(least)
                while await self._under_way():  # noqa: ASYNC110 - Envoy tells when it is asked
                    await asyncio.sleep(_LOOK)

    async def _under_way(self) -> int:
        """Tunnels into a waypoint, and requests: a gateway has no tunnels into it."""
        counts = [await self.admin.stat(f"http.{each}.downstream_rq_active") or 0 for each in _SERVERS]
        return sum(counts)


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_KILL_AFTER):
            await process.wait()
    except TimeoutError:
        process.kill()
