"""Collections of the engine: keyed values, their indexes, and who has read what.

A collection changes only inside `Graph.commit`. Between two commits it is a plain read-only mapping, and
`delta()` tells what the last commit changed. Readers are remembered per key, per index key, or for the
whole collection, so that a change wakes exactly the transforms that looked at it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

import msgspec

V = TypeVar("V")


class Woken(Protocol):
    """A derived collection, as the collections it reads see it."""

    dirty: dict[str, None]


Reader = tuple[Woken, str]
"""A derived collection and the input key whose transform has read something."""
Readers = dict[Reader, None]


class Delta(msgspec.Struct, Generic[V], frozen=True):
    """What one commit changed in one collection. A key is never in both."""

    upserts: dict[str, V] = {}
    removals: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserts or self.removals)


class Statistics(msgspec.Struct, frozen=True):
    """Rule 8: what one collection holds and has cost; `seconds` is 0 for a graph without a clock."""

    name: str
    size: int
    recomputations: int = 0
    unchanged: int = 0
    seconds: float = 0.0


class Index(Generic[V]):
    """Keys of a collection's values by something they contain; kept by the collection itself."""

    def __init__(self, collection: "Collection[V]", keys: Callable[[V], Iterable[str]]) -> None:
        self.collection = collection
        self.keys = keys
        self.entries: dict[str, dict[str, None]] = {}
        self.readers: dict[str, Readers] = {}

    def move(self, key: str, old: V | None, new: V | None) -> Iterable[str]:
        """Moves one value between index keys; returns every index key whose answer changed."""
        before = dict.fromkeys(self.keys(old)) if old is not None else {}
        after = dict.fromkeys(self.keys(new)) if new is not None else {}
        for entry in before:
            if entry in after:
                continue
            members = self.entries[entry]
            members.pop(key, None)
            if not members:
                del self.entries[entry]
        for entry in after:
            self.entries.setdefault(entry, {})[key] = None
        return before | after


class Collection(ABC, Generic[V]):
    """Keyed frozen values. Made by `Graph`, never directly."""

    def __init__(self, name: str, order: int, graph: object) -> None:
        self.name = name
        self.order = order
        self.graph = graph
        self.items: dict[str, V] = {}
        self.changed: dict[str, V | None] = {}
        """Keys that the running or last commit changed, with the value before it."""
        self.key_readers: dict[str, Readers] = {}
        self.all_readers: Readers = {}
        self.indexes: list[Index[V]] = []

    def __len__(self) -> int:
        return len(self.items)

    def __contains__(self, key: object) -> bool:
        return key in self.items

    def __iter__(self) -> Iterator[str]:
        return iter(self.items)

    def get(self, key: str) -> V | None:
        return self.items.get(key)

    def values(self) -> Mapping[str, V]:
        """The whole content as of the last commit. Valid until the next one; do not modify."""
        return self.items

    def index(self, keys: Callable[[V], Iterable[str]]) -> Index[V]:
        """An index over what `keys` returns for a value. Part of construction, before the first commit."""
        index = Index(self, keys)
        for key, value in self.items.items():
            index.move(key, None, value)
        self.indexes.append(index)
        return index

    def delta(self) -> Delta[V]:
        """What the last commit changed."""
        upserts = {key: self.items[key] for key in self.changed if key in self.items}
        return Delta(upserts, tuple(key for key in self.changed if key not in self.items))

    def statistics(self) -> Statistics:
        return Statistics(self.name, len(self.items))

    @abstractmethod
    def advance(self) -> None:
        """Takes this commit's input; called once per commit, in order."""

    def replace(self, key: str, new: V | None) -> None:
        """Sets one value; an equal one stops the wave here (rule 3)."""
        old = self.items.get(key)
        if new is None:
            if old is None:
                return
            del self.items[key]
        elif old == new:
            return
        else:
            self.items[key] = new
        self.changed[key] = old
        wake(self.key_readers.get(key))
        wake(self.all_readers)
        for index in self.indexes:
            for entry in index.move(key, old, new):
                wake(index.readers.get(entry))


def wake(readers: Readers | None) -> None:
    if readers:
        for derived, key in readers:
            derived.dirty[key] = None


class Source(Collection[V]):
    """Input of the graph. `put` and `remove` are staged and take effect at the next commit."""

    def __init__(self, name: str, order: int, graph: object) -> None:
        super().__init__(name, order, graph)
        self._staged: dict[str, V | None] = {}

    def put(self, key: str, value: V) -> None:
        self._staged[key] = value

    def remove(self, key: str) -> None:
        self._staged[key] = None

    def staged(self) -> bool:
        return bool(self._staged)

    def advance(self) -> None:
        staged, self._staged = self._staged, {}
        for key, value in staged.items():
            self.replace(key, value)
