"""Ends connections when the node's Envoy runs out of memory: those of the namespace that has the most memory, first.

Envoy keeps up to some MiB of a connection whose client does not read, and knows of such connections only where they are
HTTP/2 streams (`reset_high_memory_stream`). The kernel knows all: bytes queue in the sockets between Envoy and the pod,
and none moves. So the agent looks at the sockets when Envoy's memory passes `WATCH` of its limit:

1. From `SHED` on it ends stalled connections of a namespace beyond `SHARE` of them, the heaviest namespace's first, as
   many as bring memory back.
2. From `CRITICAL` on, below the point where Envoy accepts nothing, no namespace has a share, and what is not stalled
   goes, too, the newest first.
"""

import asyncio
import enum
import heapq
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from ambit.node.connections import proxys_ends
from ambit.node.netns import sockets
from ambit.node.netns.sockets import Socket
from ambit.plan.values import LocalPod

_log = logging.getLogger("ambit.memory")
WATCH, SHED, CRITICAL = 0.5, 0.6, 0.85
"""Parts of Envoy's memory limit. It accepts nothing from 0.95 on (`ambit.envoy.bootstrap`)."""
RELIEF = 0.1
"""Part of the limit below the threshold to which memory is brought."""
SHARE = 32
"""Stalled connections of one namespace that stay below `CRITICAL`: at half a MiB to some MiB each, a fraction of the
limit."""
STALLED_COST, COST = 1 << 20, 16 << 10
"""Bytes of Envoy's memory, about, of a connection that is stalled and of any other."""
SLOW = 64 << 10
"""A connection in whose sockets bytes wait is stalled when fewer than these moved since the last look."""
_LOOK = 0.25
"""Seconds between two looks."""
_IDLE_LOOKS = 10
"""Times what a look took until the next one, while nothing has to end."""
_PAGE = 4096


class Stall(enum.IntEnum):
    """Why nothing moves in a connection, the worst last: `WRITE`: the other side of Envoy does not take what the pod
    writes; `READ`: the pod does not read."""

    NONE, WRITE, READ = range(3)


class Held(msgspec.Struct, frozen=True):
    """The proxy's end of one connection with a pod."""

    pod: LocalPod
    socket: Socket
    stall: Stall = Stall.NONE

    @property
    def cost(self) -> int:
        return STALLED_COST if self.stall else COST


def select_connections(found: Iterable[Held], used: int, limit: int) -> list[Held]:
    """The connections to end while Envoy uses so many bytes: one of the namespace that costs the most, then again,
    until what is left fits. Those of pods that do not read go first, then other stalled ones; newer before older."""
    if used < SHED * limit:
        return []
    is_critical = used >= CRITICAL * limit
    target = (CRITICAL if is_critical else SHED) - RELIEF
    by_namespace: defaultdict[str, list[Held]] = defaultdict(list)
    for each in found:
        if each.stall or is_critical:
            by_namespace[each.pod.namespace].append(each)
    for held in by_namespace.values():
        held.sort(key=lambda each: (each.stall, each.socket.cookie))
    total = sum(each.cost for held in by_namespace.values() for each in held)
    excess = total * (used - target * limit) / used
    heaviest = [(-sum(each.cost for each in held), name) for name, held in by_namespace.items()]
    heapq.heapify(heaviest)
    ended: list[Held] = []
    while heaviest and excess > 0:
        cost, name = heapq.heappop(heaviest)
        held = by_namespace[name]
        if not held or (not is_critical and len(held) <= SHARE):
            continue
        ended.append(held.pop())
        excess -= ended[-1].cost
        heapq.heappush(heaviest, (cost + ended[-1].cost, name))
    return ended


class LoadShedder:
    """`used` returns the bytes of memory that Envoy uses, 0 when it is not known."""

    def __init__(self, pods: Callable[[], Sequence[LocalPod]], used: Callable[[], int], limit: int) -> None:
        self._pods = pods
        self._used = used
        self._limit = limit
        self.ended = 0
        """Connections ended for memory so far."""

    async def run(self) -> None:
        """Looks until cancelled."""
        moved: Mapping[int, int] = {}
        before = 0
        while True:
            used = self._used()
            pause = _LOOK
            if used < WATCH * self._limit:
                moved = {}
            else:
                started = time.monotonic()
                # What grows goes on growing until the next look.
                growth = max(0, used - before) if before else 0
                moved = await self._relieve(moved, used + growth)
                took = time.monotonic() - started
                pause = max(_LOOK, took if used >= SHED * self._limit else took * _IDLE_LOOKS)
            before = used
            await asyncio.sleep(pause)

    async def _relieve(self, moved: Mapping[int, int], used: int) -> Mapping[int, int]:
        """One look, and what it leads to. Returns how many bytes each connection has moved, by cookie, for the next."""
        found = await asyncio.to_thread(_look, self._pods(), moved)
        doomed = select_connections(found, used, self._limit)
        if doomed:
            self.ended += await asyncio.to_thread(_end, doomed)
            for (namespace, name), count in Counter(
                (each.pod.namespace, each.pod.name) for each in doomed
            ).items():
                _log.warning(
                    "ended %d connections of pod %s/%s: Envoy is short of memory, and this namespace uses the most",
                    count,
                    namespace,
                    name,
                )
        return {each.socket.cookie: each.socket.moved for each in found}


def memory_of(pids: Iterable[int]) -> int:
    """Bytes that the largest of these processes has for itself; 0 when none is there."""
    used = 0
    for pid in pids:
        try:
            _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
        except (OSError, ValueError):
            continue
        used = max(used, (int(resident) - int(shared)) * _PAGE)
    return used


def _look(pods: Iterable[LocalPod], moved: Mapping[int, int]) -> list[Held]:
    """Every connection between Envoy and a pod. Blocks."""
    found: list[Held] = []
    for pod in pods:
        try:
            ends = proxys_ends(pod.netns, pod.addresses)
        except OSError as problem:
            _log.warning("connections of %s cannot be listed: %s", pod.key, problem.strerror or problem)
            continue
        found += [Held(pod, each, _stall_of(each, moved)) for each in ends]
    return found


def _stall_of(end: Socket, moved: Mapping[int, int]) -> Stall:
    """A connection is stalled when bytes wait in its socket and hardly any moved since the last look."""
    before = moved.get(end.cookie)
    if before is None or end.moved - before >= SLOW:
        return Stall.NONE
    return Stall.READ if end.unsent else Stall.WRITE if end.unread else Stall.NONE


def _end(doomed: Iterable[Held]) -> int:
    by_netns: defaultdict[str, list[Socket]] = defaultdict(list)
    for each in doomed:
        by_netns[each.pod.netns].append(each.socket)
    ended = 0
    for netns, ends in by_netns.items():
        try:
            ended += sockets.destroy(netns, ends)
        except OSError as problem:
            _log.warning("connections in %s cannot be ended: %s", netns, problem.strerror or problem)
    return ended
