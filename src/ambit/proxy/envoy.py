"""The proxy's Envoy: goes on when the agent is killed, is started again when it ends, and drained when the pod ends.

What runs is written to `<run>/envoy.json`: the next agent of the container adopts it. It ends with the container.
"""

import asyncio
import contextlib
import logging
import signal
import time
from pathlib import Path

import msgspec

from ambit.agent.admin import Admin
from ambit.agent.supervise import records
from ambit.agent.supervise.generation import Generation, own_space, spawn
from ambit.agent.supervise.records import Record
from ambit.core.errors import Unreachable

_log = logging.getLogger("ambit.envoy")
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
    """`run` keeps one running; its files are in the folder `run`."""

    def __init__(self, command: Command, run: Path) -> None:
        self._command = command
        self._file = run / "envoy.json"
        self._current: Generation | None = None
        self.admin = Admin(run / "admin.sock")
        self.restarts = 0

    def adopt(self) -> bool:
        """Whether an Envoy runs that a former agent of this container started. `run` then goes on with it."""
        found = records.read(self._file).current
        if found is None or not found.alive:
            return False
        self._current = found
        _log.info("adopted Envoy pid=%d", found.pid)
        return True

    async def run(self) -> None:
        """Keeps one running until cancelled, which leaves it alone. Raises EnvironmentProblem when it cannot be
        started."""
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            if self._current is None:
                self._current = await self._start()
            await self._current.ended()
            self._current = None
            self.restarts += 1
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY else min(_LAST_PAUSE, pause * 2)
            _log.error("Envoy ended; it is started again in %.1f s", pause)
            await asyncio.sleep(pause)

    async def _start(self) -> Generation:
        pid, began = await spawn(self._command.argv(), log=None)
        started = Generation(pid, began, 0, 0, self._command.concurrency, space=own_space())
        records.write(self._file, Record(started))
        return started

    async def stop(self) -> None:
        """Ends the one that runs, by force when that takes long."""
        if self._current is None:
            return
        self._current.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_KILL_AFTER):
                await self._current.ended()
        except TimeoutError:
            self._current.signal(signal.SIGKILL)

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
