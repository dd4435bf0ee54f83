"""The engine's rules, each with a test of its number (`ambit.graph.engine`)."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambit.graph.collection import Collection, Source
from ambit.graph.engine import Context, Graph, GraphError


class Item(msgspec.Struct, frozen=True):
    group: str
    number: int


class World:
    """Two sources and one derived collection for each way of reading, like the shapes that the compiler uses."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.left: Source[Item] = self.graph.source("left", Item)
        self.right: Source[Item] = self.graph.source("right", Item)
        self.by_group = self.right.index(lambda item: [item.group, f"parity {item.number % 2}"])
        self.by_key = self.graph.derive("by key", self.left, self._same_key)
        self.by_index = self.graph.derive("by index", self.left, self._group_sum)
        self.whole = self.graph.derive("whole", self.left, self._everything)
        self.many = self.graph.derive_many("many", self.left, self._several)
        self.second = self.graph.derive("second", self.by_index, lambda context, total: total // 10)
        self.mixed = self.graph.derive("mixed", self.left, self._both)
        self.joined = self.graph.join("joined", [self.many, self.second])

    def _same_key(self, context: Context, item: Item) -> int | None:
        other = context.get(self.right, context.key)
        return item.number + other.number if other else None

    def _group_sum(self, context: Context, item: Item) -> int:
        return sum(each.number for each in context.lookup(self.by_group, item.group))

    def _everything(self, context: Context, item: Item) -> int:
        return item.number * len(context.all(self.right)) if item.number % 2 else item.number

    def _several(self, context: Context, item: Item) -> Mapping[str, int]:
        return {f"{item.group}{i}": item.number for i in range(item.number % 3)}

    def _both(self, context: Context, item: Item) -> tuple[int | None, int | None]:
        return context.get(self.second, context.key), context.get(self.by_key, context.key)

    def snapshot(self) -> dict[str, dict[str, object]]:
        derived: list[Collection[object]] = [
            self.by_key,
            self.by_index,
            self.whole,
            self.many,
            self.second,
            self.mixed,
            self.joined,
        ]  # type: ignore[list-item]
        return {each.name: dict(each.values()) for each in derived}

    def apply(self, batch: "Batch") -> None:
        for side, key, item in batch:
            source = self.left if side == "left" else self.right
            if item is None:
                source.remove(key)
            else:
                source.put(key, item)
        self.graph.commit()


Batch = list[tuple[str, str, Item | None]]
KEYS = st.sampled_from("abcd")
ITEMS = st.builds(Item, st.sampled_from("xyz"), st.integers(0, 9))
EVENTS = st.tuples(st.sampled_from(["left", "right"]), KEYS, st.none() | ITEMS)
HISTORIES = st.lists(st.lists(EVENTS, max_size=6), max_size=8)


def final(history: list[Batch]) -> Batch:
    """The last event of each object, without those that end deleted."""
    last = {(side, key): item for batch in history for side, key, item in batch}
    return [(side, key, item) for (side, key), item in last.items() if item is not None]


def played(history: list[Batch]) -> World:
    world = World()
    for batch in history:
        world.apply(batch)
    return world


@given(HISTORIES)
def test_2_from_scratch_equals_incremental(history: list[Batch]) -> None:
    assert played(history).snapshot() == played([final(history)]).snapshot()


@given(HISTORIES, st.randoms())
def test_order_of_one_batch_does_not_matter(history: list[Batch], random) -> None:  # type: ignore[no-untyped-def]
    state = final(history)
    shuffled = random.sample(state, len(state))
    one_by_one = [[event] for event in shuffled]
    assert played([state]).snapshot() == played([shuffled]).snapshot() == played(one_by_one).snapshot()


@given(HISTORIES)
def test_3_applying_twice_changes_nothing(history: list[Batch]) -> None:
    world = played(history)
    before = [each.recomputations for each in world.graph.statistics()]
    world.apply(final(history))
    assert before == [each.recomputations for each in world.graph.statistics()]
    assert not world.joined.delta() and not world.mixed.delta()


def test_3_an_equal_output_stops_the_wave() -> None:
    world = played(
        [[("left", "a", Item("x", 1)), ("right", "b", Item("x", 20)), ("right", "c", Item("x", 3))]]
    )
    runs = {each.name: each.recomputations for each in world.graph.statistics()}
    world.apply([("right", "c", Item("x", 4))])  # 23 becomes 24, a tenth of it stays 2
    after = {each.name: each.recomputations for each in world.graph.statistics()}
    assert after["by index"] == runs["by index"] + 1
    assert after["second"] == runs["second"] + 1
    assert after["mixed"] == runs["mixed"]
    assert dict(world.by_index.delta().upserts) == {"a": 24}
    assert not world.second.delta()


def test_4_one_run_per_batch_sees_all_of_it() -> None:
    """A transform that reads two collections never sees one of them before the batch and the other after it."""
    graph = Graph()
    source = graph.source("source", int)
    plus = graph.derive("plus", source, lambda context, value: value + 1)
    minus = graph.derive("minus", source, lambda context, value: value - 1)
    seen: list[tuple[int | None, int | None]] = []

    def difference(context: Context, value: int) -> int:
        pair = context.get(plus, context.key), context.get(minus, context.key)
        seen.append(pair)
        return (pair[0] or 0) - (pair[1] or 0)

    graph.derive("difference", source, difference)
    for number in range(5):
        source.put("k", number)
        source.put("k", number * 10)
        graph.commit()
    assert seen == [(number * 10 + 1, number * 10 - 1) for number in range(5)]


def test_4_nothing_is_visible_before_the_commit() -> None:
    world = World()
    world.left.put("a", Item("x", 1))
    assert not len(world.left)
    world.graph.commit()
    assert "a" in world.left


def test_5_a_transform_cannot_read_what_comes_later() -> None:
    graph = Graph()
    source = graph.source("source", int)
    later: list[Collection[int]] = []
    graph.derive("early", source, lambda context, value: context.get(later[0], "k"))
    later.append(graph.derive("later", source, lambda context, value: value))
    source.put("k", 1)
    with pytest.raises(GraphError, match="later"):
        graph.commit()


def test_5_names_and_graphs_are_checked_at_construction() -> None:
    graph, other = Graph(), Graph()
    source = graph.source("source", int)
    with pytest.raises(GraphError, match="two collections"):
        graph.source("source", int)
    with pytest.raises(GraphError, match="another graph"):
        other.derive("derived", source, lambda context, value: value)


def fragile(context: Context, value: int) -> int:
    if value < 0:
        raise ValueError("negative")
    return value


def test_6_a_transform_that_raises_keeps_its_former_output_and_stops_nobody() -> None:
    graph = Graph()
    source = graph.source("source", int)
    kept = graph.derive("kept", source, fragile)
    closed = graph.derive("closed", source, fragile, on_failure=lambda context, value: 0)
    source.put("a", 1)
    source.put("b", 2)
    graph.commit()
    source.put("a", -1)
    source.put("b", 3)
    source.put("c", -1)
    graph.commit()
    assert dict(kept.values()) == {"a": 1, "b": 3}
    assert dict(closed.values()) == {"a": 0, "b": 3, "c": 0}
    assert {(each.collection, each.key) for each in graph.failures.values()} == {
        ("kept", "a"),
        ("kept", "c"),
        ("closed", "a"),
        ("closed", "c"),
    }
    assert "negative" in graph.failures["kept", "a"].text and graph.failures["kept", "a"].source == "source"
    source.put("a", 4)
    source.remove("c")
    graph.commit()
    assert not graph.failures
    assert dict(kept.values()) == {"a": 4, "b": 3}


def test_6_what_was_read_before_raising_still_wakes() -> None:
    graph = Graph()
    numbers = graph.source("numbers", int)
    source = graph.source("source", int)

    def divide(context: Context, value: int) -> int:
        return value // (context.get(numbers, "n") or 0)

    made = graph.derive("made", source, divide)
    source.put("a", 10)
    graph.commit()
    assert graph.failures and not len(made)
    numbers.put("n", 2)
    graph.commit()
    assert not graph.failures and dict(made.values()) == {"a": 5}


@given(HISTORIES)
@settings(max_examples=50)
def test_7_deletion_empties_everything(history: list[Batch]) -> None:
    world = played(history)
    world.apply([(side, key, None) for side, key, _ in final(history)])
    for collection in world.graph._collections:
        assert not collection.items, collection.name
        assert not collection.key_readers and not collection.all_readers, collection.name
        for index in collection.indexes:
            assert not index.entries and not index.readers
        for name in ("_outputs", "_claims", "_reads", "dirty"):
            assert not getattr(collection, name, None), (collection.name, name)


def test_8_statistics_count_and_measure() -> None:
    ticks = iter(range(100))
    graph = Graph(clock=lambda: float(next(ticks)))
    source = graph.source("source", int)
    graph.derive("half", source, lambda context, value: value // 2)
    source.put("a", 2)
    graph.commit()
    source.put("a", 3)
    graph.commit()
    half = graph.statistics()[1]
    assert (half.name, half.size, half.recomputations, half.unchanged, half.seconds) == ("half", 1, 2, 1, 2.0)


@given(HISTORIES)
@settings(max_examples=50)
def test_deltas_lead_from_one_state_to_the_next(history: list[Batch]) -> None:
    world = World()
    copy: dict[str, int] = {}
    for batch in history:
        world.apply(batch)
        delta = world.joined.delta()
        assert not set(delta.upserts) & set(delta.removals)
        for key in delta.removals:
            del copy[key]
        copy.update(delta.upserts)
        assert copy == dict(world.joined.values())


def test_an_index_made_late_knows_what_is_there() -> None:
    graph = Graph()
    source = graph.source("source", Item)
    source.put("a", Item("x", 1))
    graph.commit()
    index = source.index(lambda item: [item.group])
    found = graph.derive("found", source, lambda context, item: tuple(context.lookup(index, "x")))
    source.put("b", Item("x", 2))
    graph.commit()
    assert found.get("b") == (Item("x", 1), Item("x", 2))
