"""Keeps the CNI plugin in place on the node, repairs it at once, and takes it away when the mesh is uninstalled.

Rules:
1. The program is written before the configuration that names it, and removed after.
2. An agent that ends leaves everything: pods that start meanwhile are refused, never uncaptured. Only when the agent's
   DaemonSet is deleted, and not replaced by another, does the last agent take the plugin away.
3. When the network's own configuration is gone, or half written, ours stays as it was: network plugins take theirs away
   while they restart, and what they put back must not be the first for a moment. Pods wait for the network's program.
"""

import asyncio
import contextlib
import logging
import stat
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from ambit.core.errors import AmbitError
from ambit.kube.client import Client
from ambit.kube.errors import Forbidden, NotFound, Unauthorized
from ambit.kube.resource import DAEMON_SETS
from ambit.node.cni import chain
from ambit.node.cni.chain import PluginSettings
from ambit.node.cni.runtime import Installed, Version, collect, replace, version
from ambit.node.cni.watch import changes

_log = logging.getLogger("ambit.cni")
_LOOK = 30.0
"""Seconds after which the folders are looked at even when no change was told."""
_DOUBT = 15.0
"""Seconds to find out whether the DaemonSet is deleted for good: longer than an API server remembers a deleted account,
and than a replacement usually takes."""
_ASK_AGAIN = 0.5
PRIVATE = 0o600
"""Mode of the configuration: container runtimes read it as root, and the network's own part may have secrets."""


class Installer:
    """`programs` and `configurations` are the container runtime's folders, at the same paths here and on the host."""

    def __init__(self, programs: Path, configurations: Path, settings: PluginSettings) -> None:
        self._installed = Installed(programs)
        self._configurations = configurations
        self._settings = settings
        self._version: Version | None = None
        self._work = threading.Lock()
        self._ended = False
        self.problem = "the CNI plugin is not installed yet"
        """Why pods that start are not captured from their beginning; empty when they are."""

    async def run(self) -> None:
        """Installs and repairs until cancelled. Never ends by itself: a problem is logged, shown and tried again."""
        async with contextlib.aclosing(self._looks()) as looks:
            async for _ in looks:
                await self._look()

    async def _look(self) -> None:
        try:
            repaired = await asyncio.to_thread(self.repair)
        except AmbitError as problem:
            if problem.message != self.problem:
                _log.error("%s; %s", problem.message, problem.hint)
            self.problem = problem.message
            return
        if repaired:
            _log.info("the CNI plugin is in place: %s", repaired)
        self.problem = ""

    def repair(self) -> str:
        """Make what is missing; which that was, empty for nothing and after `uninstall`. Blocks. Raises AmbitError."""
        with self._work:
            return "" if self._ended else self._repaired()

    def _repaired(self) -> str:
        done: list[str] = []
        try:
            if self._version is None or not self._installed.is_complete(self._version):
                files = collect()  # 11 MB, so not kept
                self._version = version(files)
                if not self._installed.is_complete(self._version):
                    self._installed.install(files)
                    done.append("program")
            ours = self._configurations / chain.FILE
            found = chain.primary(self._read())
            if found is None:
                if not self._configurations.stat().st_nlink:
                    raise AmbitError(
                        f"{self._configurations} was deleted on the node, and what is there now is another folder",
                        "delete this pod: the next one sees the new folder",
                    )
                raise AmbitError(
                    f"there is no network configuration in {self._configurations}",
                    "install a network plugin; this one is chained to it",
                )
            content = chain.chained(found, self._settings)
            if not _is_private(ours) or ours.read_bytes() != content:
                replace(ours, content, PRIVATE)
                done.append(f"{chain.FILE} after {found.name}")
        except OSError as problem:
            raise AmbitError(
                f"the CNI configuration in {self._configurations} cannot be written: {problem.strerror}",
                "the folder must be mounted writable at the same path",
            ) from problem
        return " and ".join(done)

    def uninstall(self) -> None:
        """Leave nothing, for good. Blocks. Raises AmbitError."""
        with self._work:
            self._ended = True
            try:
                (self._configurations / chain.FILE).unlink(missing_ok=True)
                self._installed.uninstall()
            except OSError as problem:
                raise AmbitError(
                    f"the CNI plugin cannot be removed: {problem}",
                    f"remove {self._configurations / chain.FILE} on this node, or no pod will start",
                ) from problem

    def _read(self) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for path in self._configurations.iterdir():
            if chain.is_configuration(path.name):
                with contextlib.suppress(OSError):
                    files[path.name] = path.read_bytes()
        return files

    async def _looks(self) -> AsyncGenerator[None, None]:
        """One at once, one after each change in the configurations' folder, and one now and then."""
        while True:
            try:
                with changes(self._configurations) as changed:
                    while True:
                        changed.clear()
                        yield
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_LOOK):
                                await changed.wait()
            except OSError:
                yield
                await asyncio.sleep(1)


async def is_deleted(client: Client, namespace: str, name: str, ends: Callable[[], bool]) -> bool:
    """Whether the agent's DaemonSet is gone for good, so that no other agent comes; in doubt it is not.

    One that is only being replaced is back soon, and pods that start meanwhile have to wait for it: so the absence
    counts when it has lasted, or when the agent's permissions or its account go as well. But an API server that does
    not know the account any more proves nothing alone: a token is worth nothing either when its pod was deleted by
    force, or when the keys of the cluster were changed. So that counts only while `ends` says that the agent's own pod
    is there and is being deleted, which only a watch that is in order tells.
    """
    absence = _Absence()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DOUBT):
            return await absence.settled(lambda: client.get(DAEMON_SETS, name, namespace), ends)
    return absence.seen


def _is_private(path: Path) -> bool:
    """Whether the file is there, for root alone."""
    return path.is_file() and stat.S_IMODE(path.stat().st_mode) == PRIVATE


class _Absence:
    """`seen`: the DaemonSet was not there, or on its way out, when the API server was last asked."""

    def __init__(self) -> None:
        self.seen = False

    async def settled(
        self, get: Callable[[], Awaitable[dict[str, object]]], ends: Callable[[], bool]
    ) -> bool:
        while True:
            try:
                metadata = (await get()).get("metadata")
                self.seen = isinstance(metadata, dict) and bool(metadata.get("deletionTimestamp"))
                if not self.seen:
                    return False
            except NotFound:
                self.seen = True
            except Forbidden:
                if self.seen:
                    return True
            except Unauthorized:
                if self.seen or ends():
                    return True
            except AmbitError:
                self.seen = False
            await asyncio.sleep(_ASK_AGAIN)
