"""The incremental engine: sources, pure transforms over them, one commit per batch.

1. A transform receives a context and one input value and returns a value, several keyed values, or
   nothing.
2. It reads other collections only through the context: by key, by index, or all; every read is recorded.
3. Values are frozen and compare by content; an equal output stops the wave.
4. A batch is everything that was staged since the last one; it runs once, in topological order, and is
   committed once.
5. Collections form a directed acyclic graph, fixed at construction; a transform can read only collections
   that were made before its own, so a cycle cannot be written down, and an attempt is refused.
6. A transform that raises becomes a failure; its former output stays, except where `on_failure` gives
   another (policies: deny).
7. Deleting all inputs empties every collection, index and reader list.
8. Each collection reports name, size, recomputations and time spent.

    pods ──derive──> workloads ──commit──> Delta
             │ context.lookup(services by label)
             └ recorded: this pod is woken when that answer changes
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from ambit.core.errors import AmbitError
from ambit.graph.collection import Collection, Index, Reader, Readers, Source, Statistics, V

I = TypeVar("I")  # noqa: E741 - the input value of a transform
T = TypeVar("T")


class GraphError(AmbitError):
    """The graph was built wrongly: a read of a later collection, or a name given twice."""


class Failure(msgspec.Struct, frozen=True):
    """A transform that raised (rule 6): its collection and the one it reads, the input key, and the
    exception's text."""

    collection: str
    source: str
    key: str
    text: str


class Context:
    """A transform's only way to other collections. Valid during the call that received it."""

    __slots__ = ("_order", "_reader", "_reads", "key")

    def __init__(self, order: int, reader: Reader, reads: dict[tuple[int, str | None], Any]) -> None:
        self._order = order
        self._reader = reader
        self._reads = reads
        self.key = reader[1]
        """The key of the input value."""

    def get(self, collection: Collection[T], key: str) -> T | None:
        """The value at a key, or None; woken when it changes."""
        self._check(collection)
        self._record(collection.key_readers, key)
        return collection.items.get(key)

    def lookup(self, index: Index[T], entry: str) -> list[T]:
        """The values under an index key, in order of their own keys; woken when any of them changes."""
        self._check(index.collection)
        self._record(index.readers, entry)
        found = index.entries.get(entry)
        if not found:
            return []
        items = index.collection.items
        return [items[key] for key in sorted(found)]

    def all(self, collection: Collection[T]) -> Mapping[str, T]:
        """Everything; woken by every change of the collection. The mapping is not to be kept."""
        self._check(collection)
        collection.all_readers[self._reader] = None
        self._reads[(id(collection), None)] = (collection.all_readers, None)
        return collection.items

    def _check(self, collection: Collection[Any]) -> None:
        if collection.order >= self._order:
            raise GraphError(f"a transform may not read {collection.name}, which comes later in the graph")

    def _record(self, readers: dict[str, Readers], key: str) -> None:
        readers.setdefault(key, {})[self._reader] = None
        self._reads[(id(readers), key)] = (readers, key)


OneTransform = Callable[[Context, I], V | None]
ManyTransform = Callable[[Context, I], Mapping[str, V]]


class Derived(Collection[V], Generic[I, V]):
    """A collection computed from a source, key by key."""

    def __init__(
        self,
        graph: "Graph",
        name: str,
        source: Collection[I],
        transform: ManyTransform[I, V],
        on_failure: ManyTransform[I, V] | None,
    ) -> None:
        super().__init__(name, graph.next_order(), graph)
        self.dirty: dict[str, None] = {}
        self._source = source
        self._transform = transform
        self._on_failure = on_failure
        self._outputs: dict[str, Mapping[str, V]] = {}
        self._claims: dict[str, tuple[str, ...]] = {}
        self._reads: dict[str, tuple[tuple[Any, str | None], ...]] = {}
        self._failures = graph.failures
        self._clock = graph.clock
        self._runs = 0
        self._unchanged = 0
        self._seconds = 0.0

    def statistics(self) -> Statistics:
        return Statistics(self.name, len(self.items), self._runs, self._unchanged, self._seconds)

    def advance(self) -> None:
        dirty, self.dirty = self.dirty, {}
        dirty.update(dict.fromkeys(self._source.changed))
        if not dirty:
            return
        started = self._clock()
        for key in dirty:
            self._recompute(key)
        self._seconds += self._clock() - started

    def _recompute(self, key: str) -> None:
        reader: Reader = (self, key)
        self._forget(key, reader)
        value = self._source.items.get(key)
        before = self._outputs.get(key, {})
        if value is None:
            self._failures.pop((self.name, key), None)
            after: Mapping[str, V] = {}
        else:
            after = self._run(key, value, reader, before)
        if after == before:
            self._unchanged += 1
            return
        if after:
            self._outputs[key] = after
        else:
            self._outputs.pop(key, None)
        for output in {**before, **after}:
            self._publish(output, key, output in after)

    def _run(self, key: str, value: I, reader: Reader, before: Mapping[str, V]) -> Mapping[str, V]:
        reads: dict[tuple[int, str | None], Any] = {}
        context = Context(self.order, reader, reads)
        self._runs += 1
        try:
            after = self._transform(context, value)
            self._failures.pop((self.name, key), None)
        except GraphError:
            raise
        except Exception as error:  # noqa: BLE001 - rule 6: one object's fault must not stop the others
            text = f"{type(error).__name__}: {error}"
            self._failures[(self.name, key)] = Failure(self.name, self._source.name, key, text)
            after = self._instead(context, value, before)
        if reads:
            self._reads[key] = tuple(reads.values())
        return after

    def _instead(self, context: Context, value: I, before: Mapping[str, V]) -> Mapping[str, V]:
        if self._on_failure is None:
            return before
        try:
            return self._on_failure(context, value)
        except Exception:  # noqa: BLE001 - a commit must end whatever a transform does
            return before

    def _forget(self, key: str, reader: Reader) -> None:
        for readers, entry in self._reads.pop(key, ()):
            if entry is None:
                readers.pop(reader, None)
                continue
            there = readers.get(entry)
            if there is not None:
                there.pop(reader, None)
                if not there:
                    del readers[entry]

    def _publish(self, output: str, key: str, present: bool) -> None:
        """Several inputs may claim one output key: the smallest input key wins, in any order of arrival."""
        claims = self._claims.get(output, ())
        if present and key not in claims:
            claims = tuple(sorted((*claims, key)))
        elif not present:
            claims = tuple(claim for claim in claims if claim != key)
        if not claims:
            self._claims.pop(output, None)
            self.replace(output, None)
            return
        self._claims[output] = claims
        self.replace(output, self._outputs[claims[0]][output])


class Joined(Collection[V]):
    """Several collections as one; for a key in more than one, the first of them that has it wins."""

    def __init__(self, graph: "Graph", name: str, parts: Sequence[Collection[V]]) -> None:
        super().__init__(name, graph.next_order(), graph)
        self._parts = parts

    def advance(self) -> None:
        for part in self._parts:
            for key in part.changed:
                self.replace(key, next((p.items[key] for p in self._parts if key in p.items), None))


class Graph:
    """Holds the collections in topological order. `clock` returns seconds, for statistics only."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.clock = clock
        self.failures: dict[tuple[str, str], Failure] = {}
        """Transforms that raised and have not succeeded since, by collection and input key."""
        self._collections: list[Collection[Any]] = []

    def next_order(self) -> int:
        return len(self._collections)

    def source(self, name: str, of: type[V]) -> Source[V]:
        """An input collection of values of type `of`."""
        collection: Source[V] = Source(name, self.next_order(), self)
        self._add(collection)
        return collection

    def derive(
        self,
        name: str,
        source: Collection[I],
        transform: OneTransform[I, V],
        *,
        key: Callable[[V], str] | None = None,
        on_failure: OneTransform[I, V] | None = None,
    ) -> Derived[I, V]:
        """One value or nothing per input value, under `key(result)`, by default under the input's key."""
        name_of = key

        def many(one: OneTransform[I, V]) -> ManyTransform[I, V]:
            def transformed(context: Context, value: I) -> Mapping[str, V]:
                result = one(context, value)
                if result is None:
                    return {}
                return {name_of(result) if name_of else context.key: result}

            return transformed

        fallback = many(on_failure) if on_failure else None
        return self.derive_many(name, source, many(transform), on_failure=fallback)

    def derive_many(
        self,
        name: str,
        source: Collection[I],
        transform: ManyTransform[I, V],
        *,
        on_failure: ManyTransform[I, V] | None = None,
    ) -> Derived[I, V]:
        """Any number of keyed values per input value."""
        self._check(source)
        collection = Derived(self, name, source, transform, on_failure)
        self._add(collection)
        return collection

    def join(self, name: str, parts: Sequence[Collection[V]]) -> Joined[V]:
        """The union of collections; the first that has a key wins."""
        for part in parts:
            self._check(part)
        collection = Joined(self, name, parts)
        self._add(collection)
        return collection

    def commit(self) -> None:
        """Runs everything that was staged since the last commit, once (rule 4)."""
        for collection in self._collections:
            collection.changed = {}
        for collection in self._collections:
            collection.advance()

    def statistics(self) -> tuple[Statistics, ...]:
        return tuple(collection.statistics() for collection in self._collections)

    def _add(self, collection: Collection[Any]) -> None:
        if any(other.name == collection.name for other in self._collections):
            raise GraphError(f"two collections are called {collection.name}")
        self._collections.append(collection)

    def _check(self, collection: Collection[Any]) -> None:
        if collection.graph is not self:
            raise GraphError(f"{collection.name} belongs to another graph")
