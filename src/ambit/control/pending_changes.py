"""Changes of objects that wait to be compiled, shared out by namespace. No I/O.

One namespace can write objects faster than they are compiled. So the changes of each namespace have a queue of their
own, and a batch takes from the next one what fits into `SLICE` seconds, by what changes of that namespace have cost.
Whoever changes much waits for itself: others wait for at most one slice of each namespace that is busy.

A namespace's changes keep their order. Of several changes of one object the newest counts, in the place of the first.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable

from ambit.ingest.mesh import Change

SLICE = 0.05
"""Seconds that one batch is to take."""
OVERHEAD = 0.002
"""Seconds of a batch that no change is the reason of."""
USUAL, OF_OTHERS = 0.0002, 0.002
"""Seconds that a change counts at least: of the kinds that change in large numbers, and of all others."""
_FREQUENT = frozenset({"pods", "endpointslices.discovery.k8s.io", "services", "nodes", "namespaces"})
_Queue = OrderedDict[tuple[str, str], Change]


class PendingChanges:
    """Queues by namespace; objects without one have a queue as well."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self._kinds: Counter[str] = Counter()
        self._costs: dict[str, float] = {}
        """Seconds that the changes of a namespace have cost lately, each, where it is more than usual."""
        self._taken: Counter[str] = Counter()
        """By namespace, of the last batch."""

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, change: Change) -> None:
        """Appends a change to the queue of its namespace."""
        queue = self._queues.setdefault(_namespace(change), OrderedDict())
        name = (change.resource, change.key)
        if name not in queue:
            self._kinds[change.resource] += 1
        queue[name] = change

    def has_any(self, resources: Iterable[str]) -> bool:
        """Whether a change of one of these resources waits."""
        return any(self._kinds[each] for each in resources)

    def take_all(self) -> list[Change]:
        """Every change, as one batch."""
        found = [change for queue in self._queues.values() for change in queue.values()]
        self._queues.clear()
        self._kinds.clear()
        self._taken.clear()
        return found

    def take_slice(self) -> list[Change]:
        """The next batch: at least one change if any waits."""
        found: list[Change] = []
        self._taken.clear()
        left = SLICE
        for namespace in tuple(self._queues):
            queue = self._queues[namespace]
            while queue:
                change = next(iter(queue.values()))
                cost = self._cost(namespace, change)
                if found and cost > left:
                    break
                queue.popitem(last=False)
                self._kinds[change.resource] -= 1
                self._taken[namespace] += 1
                found.append(change)
                left -= cost
            if not queue:
                del self._queues[namespace]
            elif self._taken[namespace]:
                self._queues.move_to_end(namespace)
            if left <= 0:
                break
        return found

    def note_cost(self, seconds: float) -> None:
        """Learns what the batch of `take_slice` has cost. Changes of several namespaces in it count the same: those
        that were not the reason are cheap again in a batch without the others."""
        count = self._taken.total()
        if not count:
            return
        measured = max(0.0, seconds - OVERHEAD) / count
        for namespace in self._taken:
            before = self._costs.get(namespace, measured)
            now = measured if len(self._taken) == 1 else (before + measured) / 2
            if now > USUAL:
                self._costs[namespace] = now
            else:
                self._costs.pop(namespace, None)

    def _cost(self, namespace: str, change: Change) -> float:
        least = USUAL if change.resource in _FREQUENT else OF_OTHERS
        return max(least, self._costs.get(namespace, 0.0))


def _namespace(change: Change) -> str:
    """Empty for an object that is in none."""
    return change.key.rpartition("/")[0]
