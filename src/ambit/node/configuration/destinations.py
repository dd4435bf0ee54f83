"""Which destinations each pod has asked for, and how many it may: Envoy keeps every one until its pod goes."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ambit.core.address import Address
from ambit.envoy import names

_log = logging.getLogger("ambit.configuration")
MAX_DESTINATIONS = 4096
"""Distinct destinations of one pod; with a further one it begins anew (`ambit.node.configuration.turnover`), or if
it did so lately the further one is refused."""
NODE_DESTINATIONS = 8_192
"""When all pods of the node together have so many (220 MiB in Envoy), each may have its share only."""
LEAST_SHARE = 32
MOST_HELD = 1.0
"""Seconds that an answer waits for its address."""


class _Earlier(NamedTuple):
    """What was asked for under a former generation; `is_answered`: a connection may still wait for that."""

    names: set[str]
    is_answered: bool


class Destinations:
    """By key of the pod, names of clusters of its last generation, and of those before it as long as Envoy has them."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}
        self._refused: dict[str, set[str]] = {}
        self._earlier: dict[tuple[str, int], _Earlier] = {}
        self.capped: set[str] = set()
        """Keys of pods that reached the limit."""

    def __len__(self) -> int:
        """How many all pods have asked for."""
        return sum(map(len, self._names.values()))

    def of(self, key: str) -> frozenset[str]:
        """Those of a pod's last generation."""
        return frozenset(self._names.get(key, ()))

    def note(self, key: str, name: str) -> bool:
        """Whether it is new."""
        known = self._names.setdefault(key, set())
        is_new = name not in known
        known.add(name)
        return is_new

    def has_room(self, key: str, name: str, pods: int) -> bool:
        """Whether a pod of so many on the node may have this one, too: another form of what it has always."""
        known = self._names.setdefault(key, set())
        if known & names.forms(name):
            return True
        allowed = MAX_DESTINATIONS
        if len(self) >= NODE_DESTINATIONS:
            allowed = max(LEAST_SHARE, NODE_DESTINATIONS // pods)
        return key not in self.capped and len(known) < allowed

    def refuse(self, key: str, name: str) -> bool:
        """Whether the pod is capped by that."""
        self._refused.setdefault(key, set()).add(name)
        if key in self.capped:
            return False
        self.capped.add(key)
        _log.error("pod %s has %d destinations: no further one is served", key, len(self.of(key)))
        return True

    def only(self, key: str) -> list[tuple[Address, int]] | None:
        """Those that a capped pod may go on to use; None for others."""
        if key not in self.capped:
            return None
        asked = map(names.parse_cluster, self._names[key])
        return [(each.address, each.port) for each in asked if isinstance(each, names.Destination)]

    def begin_anew(self, key: str, former: int) -> None:
        """What was asked for is of a former generation, and a connection may still wait for it."""
        self.capped.discard(key)
        found = self._names.pop(key, set()) | self._refused.pop(key, set())
        self._earlier[key, former] = _Earlier(found, is_answered=True)

    def resume(self, key: str, former: Sequence[int]) -> None:
        """The pod has these generations from a former life of the agent, of which nobody waits."""
        for generation in former:
            self._earlier.setdefault((key, generation), _Earlier(set(), is_answered=False))

    def note_former(self, key: str, generation: int, name: str) -> bool:
        """One of a former generation is asked for; whether a connection may wait for it. What is of none Envoy
        remembers, on a new stream."""
        former = self._earlier.get((key, generation))
        if former is None:
            return False
        former.names.add(name)
        return former.is_answered

    def forget(self, key: str, generation: int) -> frozenset[str]:
        """Nothing waits for a former generation any more; its names."""
        former = self._earlier.pop((key, generation), None)
        return frozenset(former.names) if former is not None else frozenset()

    def drop(self, key: str) -> tuple[frozenset[str], frozenset[str]]:
        """The pod is gone; names that were answered, in all generations, and names that were refused."""
        former = [each for each in self._earlier if each[0] == key]
        answered = self._names.pop(key, set()).union(*(self._earlier.pop(each).names for each in former))
        self.capped.discard(key)
        return frozenset(answered), frozenset(self._refused.pop(key, ()))


class HeldAnswers:
    """Questions about addresses that the workload API may be about to bring: a client may know a Service or pod earlier
    than its node does. Envoy holds the connection until the question is answered, `MOST_HELD` seconds at most.

    By names of clusters. `is_unknown` tells whether the address of one is still to come; `give_up` is called with a
    name whose address did not come in time."""

    def __init__(self, is_unknown: Callable[[str], bool], give_up: Callable[[str], None]) -> None:
        self._is_unknown = is_unknown
        self._give_up = give_up
        self._held: dict[str, asyncio.TimerHandle] = {}

    def hold(self, name: str) -> bool:
        """Whether the first answer to a question waits."""
        if name not in self._held and self._is_unknown(name):
            self._held[name] = asyncio.get_running_loop().call_later(MOST_HELD, self._end, name)
        return name in self._held

    def waits(self, name: str) -> bool:
        """Whether an answer still waits; no longer when its address has come."""
        if name in self._held and not self._is_unknown(name):
            self.forget(name)
        return name in self._held

    def forget(self, name: str) -> None:
        """The answer is sent, or its pod is gone."""
        if (timer := self._held.pop(name, None)) is not None:
            timer.cancel()

    def _end(self, name: str) -> None:
        del self._held[name]
        self._give_up(name)
