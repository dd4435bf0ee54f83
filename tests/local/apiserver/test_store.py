"""The property watches stand on: a list plus the events after it is the next list, whatever the selector."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.local.apiserver import reads
from ambit.local.apiserver.failures import ApiFailure
from ambit.local.apiserver.kinds.builtin import FIELD_READERS, KINDS
from ambit.local.apiserver.storage.store import BACKLOG, HISTORY, Event, Store, Watcher

PODS = next(kind for kind in KINDS if kind.plural == "pods")
STEP = st.tuples(
    st.sampled_from("abc"),
    st.sampled_from(["x", "y"]),
    st.none() | st.tuples(st.sampled_from(["red", "blue"]), st.sampled_from(["n1", "n2"])),
)
"""Name, namespace, and label and node to write (None deletes)."""
QUERY = st.fixed_dictionaries(
    {},
    optional={
        "labelSelector": st.sampled_from(["color=red", "color!=red", "color in (red,blue)", "!color"]),
        "fieldSelector": st.sampled_from(["spec.nodeName=n1", "metadata.name=a", "spec.nodeName!=n1"]),
    },
)


def write(store: Store, step: Any) -> None:
    name, namespace, state = step
    if state is None:
        if store.get("pods", namespace, name):
            store.delete("pods", namespace, name)
        return
    color, node = state
    metadata = {"name": name, "namespace": namespace, "labels": {"color": color}}
    store.put("pods", {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}})


def listed(store: Store, chosen: reads.Filter) -> dict[tuple[str, str], bytes]:
    page = reads.list_page(store, PODS, chosen, {})
    return {(entry.namespace, entry.name): entry.data for entry in page.entries}


@given(st.lists(STEP, max_size=12), st.lists(STEP, max_size=12), QUERY, st.sampled_from(["", "x"]))
def test_a_list_and_its_watch_are_the_next_list(before: Any, after: Any, query: Any, namespace: str) -> None:
    store = Store(None, FIELD_READERS)
    for step in before:
        write(store, step)
    chosen = reads.read_filter(PODS, namespace, "", query)
    state, since = listed(store, chosen), store.revision
    for step in after:
        write(store, step)
    plan = reads.plan_watch(store, PODS, chosen, {"resourceVersion": str(since)})
    asyncio.run(replay(store, chosen, plan, state))
    assert state == listed(store, chosen)
    store.close()


async def replay(
    store: Store, chosen: reads.Filter, plan: reads.WatchPlan, state: dict[tuple[str, str], bytes]
) -> None:
    """Applies what a watch delivers at once; every event must fit the state it meets."""
    ticks = iter([0.0, 0.0, 0.0, 9.0, 9.0])
    last = plan.since
    async for changes in reads.watch(store, PODS, chosen, plan, 0.001, lambda: next(ticks, 9.0)):
        for change in changes:
            assert change.entry is not None and change.revision > last
            last = change.revision
            key = (change.entry.namespace, change.entry.name)
            assert (key in state) == (change.kind != "ADDED")
            if change.kind == "DELETED":
                del state[key]
            else:
                state[key] = change.entry.data


def test_history_is_bounded_and_says_so() -> None:
    store = Store(None, FIELD_READERS)
    first = store.revision
    for index in range(HISTORY + 1):
        write(store, ("a", "x", ("red", f"n{index}")))
    store.check_since("pods", first + 1)
    with pytest.raises(ApiFailure) as caught:
        store.check_since("pods", first)
    assert caught.value.code == 410
    store.close()


async def test_a_watcher_that_does_not_read_is_closed() -> None:
    store = Store(None, FIELD_READERS)
    write(store, ("a", "x", ("red", "n")))
    entry = store.select("pods")[0]
    watcher = Watcher([])
    for _ in range(BACKLOG + 1):
        watcher.push(Event("MODIFIED", entry, entry))
    delivered = await watcher.next(0)
    assert delivered is not None and len(delivered) == BACKLOG
    assert await watcher.next(0) is None
    store.close()
