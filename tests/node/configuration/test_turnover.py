"""When a pod may begin anew, and what goes when."""

import asyncio
import ipaddress
from collections.abc import Callable

import pytest

from ambit.agent.publication import Publication
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.node import connections
from ambit.node.configuration import turnover
from ambit.node.configuration.turnover import Turnover
from ambit.plan.values import LocalPod

WEB = Identity("cluster.local", "default", "web")
ADDRESS = ipaddress.ip_address("10.1.0.1")


def pod(*generations: int) -> LocalPod:
    return LocalPod("u", "default", "web", "s", WEB, (ADDRESS,), "/run/netns/web", generations=generations)


class World:
    """One pod; what a turnover does to it is noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pod: LocalPod | None = pod(0, 1)
        self.open: frozenset[int] = frozenset()
        self.forgotten: list[int] = []
        self.renewed = 0
        self.looks = 0
        monkeypatch.setattr(connections, "accepted_outbound", self._look)
        monkeypatch.setattr(turnover, "GRACE", 0.0)
        monkeypatch.setattr(turnover, "LOOK_SECONDS", 0.0)
        self.turnover = Turnover(lambda _: self.pod, self._change, self._forget, self._renew)

    async def until(self, condition: Callable[[], bool]) -> None:
        work = asyncio.ensure_future(self.turnover.run())
        try:
            async with asyncio.timeout(60):
                while not condition():  # noqa: ASYNC110 - `work` changes it
                    await asyncio.sleep(0)
        finally:
            work.cancel()

    def _look(self, _: str) -> frozenset[int]:
        self.looks += 1
        return self.open

    def _change(self, pod: LocalPod) -> Publication:
        self.pod = pod
        return Publication({}, {})

    def _forget(self, _: str, generation: int) -> int:
        self.forgotten.append(generation)
        return 1

    def _renew(self, _: str) -> None:
        self.renewed += 1


async def test_old_names_go_at_once_and_their_chain_stays_for_what_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    world.open = frozenset({1, 2})
    world.turnover.begun(pod(0, 1), Publication({}, {}))
    await world.until(lambda: world.looks > 3)
    assert world.forgotten == [0] and world.pod == pod(0, 1)


async def test_a_chain_goes_when_all_that_it_may_hold_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.open = frozenset({1, 2})
    world.turnover.begun(pod(0, 1), Publication({}, {}))

    def has_looked_often() -> bool:
        if world.looks == 2:
            world.open = frozenset({2, 3})
        if world.looks == 4:
            world.open = frozenset({3, 4})
        return world.pod == pod(1)

    await world.until(has_looked_often)
    assert world.looks >= 5 and world.renewed == 1


async def test_a_generation_that_came_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)

    def look(_: str) -> frozenset[int]:
        world.pod = pod(0, 1, 2)
        return frozenset()

    monkeypatch.setattr(connections, "accepted_outbound", look)
    world.turnover.begun(pod(0, 1), Publication({}, {}))
    await world.until(lambda: world.renewed == 1)
    assert world.pod == pod(1, 2)


async def test_a_rejected_listener_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    async def rejected(_: Publication) -> str:
        world.renewed += 1
        return "no"

    world = World(monkeypatch)
    monkeypatch.setattr(Publication, "settled", rejected)
    world.turnover.begun(pod(0, 1), Publication({}, {}))
    await world.until(lambda: world.renewed == 1)
    assert not world.forgotten and world.pod == pod(0, 1)


async def test_a_pod_may_not_begin_anew_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    assert world.turnover.may_begin(pod(0))
    assert not world.turnover.may_begin(pod(*range(turnover.KEPT)))
    world.turnover.begun(pod(0, 1), Publication({}, {}))
    assert not world.turnover.may_begin(pod(1))
    monkeypatch.setattr(turnover, "INTERVAL", 0.0)
    assert world.turnover.may_begin(pod(1))


async def test_a_capped_pod_is_tried_again_when_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.pod = None
    monkeypatch.setattr(turnover, "INTERVAL", 0.1)
    world.turnover.begun(pod(0, 1), Publication({}, {}))
    assert not world.turnover.may_begin(pod(1))
    await world.until(lambda: world.renewed == 1)
    assert world.turnover.may_begin(pod(1))


async def test_a_state_that_cannot_be_read_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)

    def fail(_: str) -> None:
        world.renewed += 1
        raise AmbitError("the state file is damaged")

    other = Turnover(lambda _: world.pod, world._change, world._forget, fail)
    world.turnover = other
    for _ in range(2):
        other.begun(pod(0, 1), Publication({}, {}))
    await world.until(lambda: world.renewed == 2)
