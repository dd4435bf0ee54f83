"""One step at a time for each pod, whoever asks for it."""

import asyncio
from typing import Any

import pytest

from ambit.node.capture import apply as capture
from ambit.node.enrol.enroller import Enroller
from ambit.node.enrol.sandbox import Sandbox


def enroller() -> Enroller:
    parts: Any = None
    return Enroller(parts, parts, parts, parts, parts, parts, parts, asyncio.Event(), 1.0)


async def test_turns_of_a_pod_never_overlap_and_nothing_is_kept_of_them() -> None:
    pods, inside, most = enroller(), 0, 0

    async def step(began: asyncio.Event, end: asyncio.Event) -> None:
        nonlocal inside, most
        async with pods._turn("u"):
            inside += 1
            most = max(most, inside)
            began.set()
            await end.wait()
            inside -= 1

    events = [(asyncio.Event(), asyncio.Event()) for _ in range(3)]
    first = asyncio.ensure_future(step(*events[0]))
    await events[0][0].wait()
    second = asyncio.ensure_future(step(*events[1]))
    await asyncio.sleep(0)
    # The first goes while the second already waits; the third comes afterwards.
    events[0][1].set()
    await first
    third = asyncio.ensure_future(step(*events[2]))
    await events[1][0].wait()
    events[2][1].set()
    async with pods._turn("another"):
        await asyncio.sleep(0)
    assert (inside, most, third.done()) == (1, 1, False)
    events[1][1].set()
    await asyncio.gather(second, third)
    assert (inside, most, pods._turns) == (0, 1, {})


async def test_a_pod_that_left_meanwhile_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def redirect(*_: object) -> None:
        raise AssertionError("redirected to a proxy that is not there")

    monkeypatch.setattr(capture, "redirect", redirect)
    await enroller().readopt(Sandbox("default", "web", "u", "s", "/gone", ("10.0.0.1",)))
