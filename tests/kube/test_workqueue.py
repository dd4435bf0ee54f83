"""The work queue's three rules."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ambit.kube.workqueue import WorkQueue


@asynccontextmanager
async def running(queue: WorkQueue[str], handle: Callable[[str], Awaitable[None]]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(queue.run(handle, workers=3))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_key_waits_once() -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    handled: list[str] = []
    done = asyncio.Event()

    async def handle(key: str) -> None:
        handled.append(key)
        if key == "end":
            done.set()

    for key in ("a", "b", "a", "a", "end"):
        queue.add(key)
    assert len(queue) == 3
    async with running(queue, handle):
        await asyncio.wait_for(done.wait(), 60)
    assert handled == ["a", "b", "end"]


async def test_a_key_is_never_handled_twice_at_once_and_again_when_added_meanwhile() -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    inside, most, count = 0, 0, 0
    go, twice = asyncio.Event(), asyncio.Event()

    async def handle(key: str) -> None:
        nonlocal inside, most, count
        inside += 1
        most = max(most, inside)
        if count == 0:
            queue.add(key)
            queue.add(key)
            go.set()
        await asyncio.sleep(0)
        inside -= 1
        count += 1
        if count == 2:
            twice.set()

    queue.add("a")
    async with running(queue, handle):
        await asyncio.wait_for(go.wait(), 60)
        await asyncio.wait_for(twice.wait(), 60)
        assert queue.is_idle or count == 2
    assert (most, count) == (1, 2)


async def test_a_failed_key_comes_back() -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    tries = 0
    done = asyncio.Event()

    async def handle(key: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise RuntimeError("not yet")
        done.set()

    queue.add("a")
    async with running(queue, handle):
        await asyncio.wait_for(done.wait(), 60)
    assert tries == 3


async def test_the_earlier_of_two_timers_wins() -> None:
    queue: WorkQueue[str] = WorkQueue("test")
    done = asyncio.Event()

    async def handle(key: str) -> None:
        done.set()

    queue.add_after("a", 3600)
    queue.add_after("a", 0.01)
    queue.add_after("a", 3600)
    async with running(queue, handle):
        await asyncio.wait_for(done.wait(), 60)
