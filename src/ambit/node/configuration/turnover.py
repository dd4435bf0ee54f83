"""Lets a pod that has reached its limit of destinations forget them all and begin anew.

Envoy 1.40 never asks twice for the name of a cluster, so a single name cannot be forgotten: the next connection that
needs it would wait in vain. Instead the pod gets another *generation* of names:

1. the outbound listener gets a further filter chain, which asks for names of the new generation, and its matcher sends
   new connections there (both in place; nothing is cut). What is in use is asked for again, at 1-3 ms each;
2. when Envoy has acknowledged that, and nothing can wait for an answer under an old name any more, the old clusters are
   removed. Open connections through them go on;
3. when no connection is left that was accepted before, the old chain is removed, too.
Envoy keeps the text of old names until its next start, some hundred bytes each. That bounds how often a pod may begin
anew: a pod that scans the network is capped in between.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from ambit.agent.publication import Publication
from ambit.core.errors import AmbitError
from ambit.envoy import defaults
from ambit.node import connections
from ambit.plan.values import LocalPod

_log = logging.getLogger("ambit.configuration")
GRACE = defaults.ON_DEMAND_TIMEOUT + 5
"""Seconds after the acknowledgement until old names go: no connection waits longer for an answer."""
INTERVAL = 3600.0
"""Seconds between two generations of one pod."""
KEPT = 4
"""Generations that may still have connections; each costs Envoy some 10 KiB."""
LOOK_SECONDS = 60.0


class Turnover:
    """The generations of all pods. `pod` finds one by key, `change` tells Envoy of its generations, `forget` removes
    a generation's clusters, `renew` tries again for a capped pod."""

    def __init__(
        self,
        pod: Callable[[str], LocalPod | None],
        change: Callable[[LocalPod], Publication],
        forget: Callable[[str, int], int],
        renew: Callable[[str], object],
    ) -> None:
        self._pod = pod
        self._change = change
        self._forget = forget
        self._renew = renew
        self._begun: dict[str, float] = {}
        self._work: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue()
        self._later: set[str] = set()

    def may_begin(self, pod: LocalPod) -> bool:
        """Whether the pod may have another generation now; otherwise `renew` is called when it may."""
        due = self._due(pod.key)
        if due <= 0 and len(pod.generations) < KEPT:
            return True
        if due > 0 and pod.key not in self._later:
            self._later.add(pod.key)
            self._work.put_nowait(lambda: self._try_later(pod.key, due))
        return False

    def begun(self, pod: LocalPod, publication: Publication) -> None:
        """The pod has a new generation since `publication`."""
        self._begun[pod.key] = time.monotonic()
        self._work.put_nowait(lambda: self._turn(pod, publication))

    def resume(self, pod: LocalPod) -> None:
        """A pod of the agent's former life may have several generations."""
        if len(pod.generations) > 1:
            self._work.put_nowait(lambda: self._leave(pod))

    def left(self, key: str) -> None:
        """The pod is gone."""
        self._begun.pop(key, None)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(_done(await self._work.get()))

    def _due(self, key: str) -> float:
        begun = self._begun.get(key)
        return begun + INTERVAL - time.monotonic() if begun is not None else 0.0

    async def _try_later(self, key: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._later.discard(key)
        self._renew(key)

    async def _turn(self, pod: LocalPod, publication: Publication) -> None:
        problem = await publication.settled()
        if problem is not None:
            _log.error("Envoy rejected new names for pod %s: %s", pod.key, problem)
            return
        await self._leave(pod)

    async def _leave(self, pod: LocalPod) -> None:
        await asyncio.sleep(GRACE)
        for generation in pod.generations[:-1]:
            if forgotten := self._forget(pod.key, generation):
                _log.info("pod %s began anew: %d destinations are forgotten", pod.key, forgotten)
        await self._end(pod.key, pod.generations[-1])

    async def _end(self, key: str, current: int) -> None:
        """Ends the generations before `current` when no connection is left that may be of them."""
        held: frozenset[int] | None = None
        while (pod := self._pod(key)) is not None:
            try:
                found = await asyncio.to_thread(connections.accepted_outbound, pod.netns)
            except OSError:
                return
            held = found if held is None else held & found
            if not held:
                self._drop(key, current)
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _drop(self, key: str, current: int) -> None:
        # Read now: the pod may have begun anew while its sockets were looked at.
        pod = self._pod(key)
        if pod is None:
            return
        kept = tuple(each for each in pod.generations if each >= current)
        if kept != pod.generations:
            self._change(msgspec.structs.replace(pod, generations=kept))
        self._renew(key)


async def _done(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except AmbitError as problem:
        _log.error("%s", problem.message)
