"""Applying what changed: joined, tried again, told once."""

import asyncio
import logging
from collections.abc import Iterator

import pytest

from ambit.core.errors import AmbitError
from ambit.local.fabric import following
from ambit.local.fabric.following import apply_changes


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(following, "RETRY_FIRST", 0.001)
    monkeypatch.setattr(following, "RETRY_MAX", 0.002)
    yield


async def test_changes_are_joined_and_none_is_lost() -> None:
    changed, applied = asyncio.Event(), asyncio.Event()
    calls = 0

    async def apply() -> None:
        nonlocal calls
        calls += 1
        applied.set()

    async with asyncio.timeout(60):
        work = asyncio.create_task(apply_changes(changed, apply, "x"))
        await applied.wait()
        applied.clear()
        for _ in range(100):
            changed.set()
            await asyncio.sleep(0)
        await applied.wait()
        work.cancel()
    assert calls == 2


async def test_what_fails_is_tried_until_it_works_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()
    problems = [AmbitError("refused"), AmbitError("refused"), OSError("gone"), ValueError("odd")]

    async def apply() -> None:
        if problems:
            raise problems.pop(0)
        done.set()

    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(60):
            work = asyncio.create_task(apply_changes(asyncio.Event(), apply, "not done"))
            await done.wait()
            work.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "not done: refused",
        "not done: gone",
        "not done: odd",
    ]
