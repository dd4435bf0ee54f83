"""Answers that wait until nobody comes by them any more.

A destination may stop being reached through tunnels while connections to it go on, as when its pod leaves the mesh, or
the last endpoint on another node leaves a service. The pod's outbound listener then sends connections elsewhere, but
Envoy takes that later than a cluster, and a connection that it has sent into the former way would find nothing there.
So that way stays as it was until Envoy has acknowledged the listener and its workers have taken it. Nobody gets in by
that who should not: a tunnel's server is pinned, and it decides itself.
"""

import asyncio
from collections.abc import Callable

from ambit.agent.publication import Publication

GRACE = 1.0
"""Seconds after the acknowledgement in which Envoy's workers take a listener."""


class Detours:
    """Names of clusters whose answers wait. `answer` gives the answers at last."""

    def __init__(self, answer: Callable[[frozenset[str]], object]) -> None:
        self._answer = answer
        self._waiting: dict[str, int] = {}
        """How many changes are waited for."""
        self._work: asyncio.Queue[tuple[frozenset[str], Publication]] = asyncio.Queue()

    def __contains__(self, name: str) -> bool:
        return name in self._waiting

    def wait(self, names: frozenset[str], publication: Publication) -> None:
        """These answers wait for what was published."""
        for name in names:
            self._waiting[name] = self._waiting.get(name, 0) + 1
        self._work.put_nowait((names, publication))

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._finish(*await self._work.get()))

    async def _finish(self, names: frozenset[str], publication: Publication) -> None:
        # A rejected listener will not come; the answer is what is right then, too.
        await publication.settled()
        await asyncio.sleep(GRACE)
        for name in names:
            self._waiting[name] -= 1
        over = frozenset(name for name in names if not self._waiting[name])
        for name in over:
            del self._waiting[name]
        self._answer(over)
