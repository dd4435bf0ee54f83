"""One agent per node, and how the next pod's follows."""

import asyncio
import os
from pathlib import Path

import pytest

from ambit.core.errors import EnvironmentProblem
from ambit.node import succession
from ambit.node.succession import Succession, hold


async def test_without_succession_a_second_agent_is_an_error(tmp_path: Path) -> None:
    held = await hold(tmp_path, succeed=False)
    with pytest.raises(EnvironmentProblem, match="another agent uses"):
        await hold(tmp_path, succeed=False)
    os.close(held)
    os.close(await hold(tmp_path, succeed=False))


async def test_the_place_is_granted_and_free_when_the_former_agent_has_ended(tmp_path: Path) -> None:
    held = await hold(tmp_path, succeed=True)
    former = Succession(tmp_path, lambda: "")
    async with former.offered():
        following = asyncio.ensure_future(hold(tmp_path, succeed=True))
        await former.granted.wait()
    assert not following.done(), "the former agent is still there"
    os.close(held)
    async with asyncio.timeout(60):
        os.close(await following)


async def test_an_agent_that_objects_stays_in_charge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "_ASK_AGAIN", 0.01)
    held, asked = await hold(tmp_path, succeed=True), 0
    objections = ["an older Envoy is still there", "an older Envoy is still there", ""]

    def objection() -> str:
        nonlocal asked
        asked += 1
        return objections[asked - 1]

    former = Succession(tmp_path, objection)
    async with former.offered():
        following = asyncio.ensure_future(hold(tmp_path, succeed=True))
        async with asyncio.timeout(60):
            await former.granted.wait()
    assert asked == len(objections)
    os.close(held)
    async with asyncio.timeout(60):
        os.close(await following)


async def test_an_agent_that_does_not_answer_is_asked_again_until_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "_ASK_AGAIN", 0.01)
    held = await hold(tmp_path, succeed=True)
    following = asyncio.ensure_future(hold(tmp_path, succeed=True))
    done, _ = await asyncio.wait([following], timeout=0.1)
    assert not done
    os.close(held)
    async with asyncio.timeout(60):
        os.close(await following)
