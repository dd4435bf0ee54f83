"""Records of all proxies as they come."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ambit.cli import following
from ambit.cli.following import EVERYTHING, follow
from ambit.core.errors import AmbitError, Unreachable

Pod = dict[str, Any]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_AGAIN", 0.001)


class Proxies:
    """Those there are, what each says once it is asked, and who was asked for how much."""

    def __init__(self) -> None:
        self.there: list[Pod] = []
        self.said: dict[str, asyncio.Queue[str | Exception]] = {}
        self.asked: list[tuple[str, int]] = []
        self.shown: list[str] = []
        self.told: list[str] = []
        self.problem: Exception | None = None

    def add(self, name: str) -> asyncio.Queue[str | Exception]:
        self.there.append({"metadata": {"name": name, "uid": f"uid of {name}"}})
        self.said[name] = asyncio.Queue()
        return self.said[name]

    async def look(self) -> list[Pod]:
        if self.problem is not None:
            raise self.problem
        return list(self.there)

    async def read(self, pod: Pod, limit: int) -> AsyncIterator[dict[str, Any]]:
        name = pod["metadata"]["name"]
        self.asked.append((name, limit))
        while True:
            said = await self.said[name].get()
            if isinstance(said, Exception):
                raise said
            yield {"text": said}

    def show(self, flow: dict[str, Any]) -> None:
        self.shown.append(flow["text"])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - others of this loop change it
            await asyncio.sleep(0.001)


@pytest.fixture
def proxies() -> Proxies:
    return Proxies()


def started(proxies: Proxies) -> asyncio.Task[None]:
    return asyncio.ensure_future(follow(proxies.look, proxies.read, proxies.show, proxies.told.append, 20))


async def test_a_proxy_that_starts_later_is_followed_with_all_that_it_has(proxies: Proxies) -> None:
    proxies.add("node1").put_nowait("first")
    task = started(proxies)
    await until(lambda: proxies.shown == ["first"])
    proxies.add("waypoint").put_nowait("second")
    await until(lambda: proxies.shown == ["first", "second"])
    assert proxies.asked == [("node1", 20), ("waypoint", EVERYTHING)]
    task.cancel()


async def test_one_that_breaks_off_is_asked_again_and_told_of_once(proxies: Proxies) -> None:
    said = proxies.add("node1")
    task = started(proxies)
    for _ in range(2):
        said.put_nowait(Unreachable("the tunnel ended"))
    said.put_nowait("once")
    said.put_nowait(Unreachable("the tunnel ended"))
    said.put_nowait("again")
    await until(lambda: proxies.shown == ["once", "again"])
    assert proxies.told == ["node1: the tunnel ended"]
    assert proxies.asked == [("node1", 20)] * 3 + [("node1", 0)], "nothing is left out or shown twice"
    task.cancel()


async def test_nothing_is_told_of_one_that_ends_and_it_is_asked_no_more(proxies: Proxies) -> None:
    said = proxies.add("waypoint")
    task = started(proxies)
    await until(lambda: len(proxies.asked) == 1)
    proxies.there[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    said.put_nowait(Unreachable("the tunnel ended"))
    await until(lambda: len(proxies.asked) == 2)
    proxies.there.clear()
    said.put_nowait("too late")
    proxies.add("next").put_nowait("next")
    await until(lambda: "next" in proxies.shown)
    assert proxies.told == []
    assert proxies.asked[-1] == ("next", EVERYTHING)
    task.cancel()


async def test_nothing_is_told_of_one_that_has_come_and_is_not_ready(proxies: Proxies) -> None:
    proxies.add("node1")
    task = started(proxies)
    await until(lambda: len(proxies.asked) == 1)
    said = proxies.add("waypoint")
    said.put_nowait(Unreachable("nobody listens yet"))
    await until(lambda: proxies.asked[-2:] == [("waypoint", EVERYTHING)] * 2)
    assert proxies.told == []
    proxies.there[1]["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    said.put_nowait(Unreachable("nobody listens"))
    await until(lambda: proxies.told == ["waypoint: nobody listens"])
    task.cancel()


async def test_who_may_not_look_any_more_goes_on_with_those_that_are_known(proxies: Proxies) -> None:
    said = proxies.add("node1")
    task = started(proxies)
    await until(lambda: len(proxies.asked) == 1)
    proxies.problem = AmbitError("pods is forbidden")
    await until(lambda: proxies.told == ["pods is forbidden"])
    said.put_nowait("still")
    await until(lambda: proxies.shown == ["still"])
    assert len(proxies.told) == 1
    task.cancel()


async def test_what_the_first_look_meets_is_raised(proxies: Proxies) -> None:
    proxies.problem = Unreachable("the API server is away")
    with pytest.raises(Unreachable, match="is away"):
        await started(proxies)


async def test_following_ends_when_the_api_server_is_gone_for_good(proxies: Proxies) -> None:
    proxies.add("node1")
    task = started(proxies)
    await until(lambda: len(proxies.asked) == 1)
    proxies.problem = Unreachable("the API server is away")
    with pytest.raises(ExceptionGroup) as raised:
        await task
    assert raised.group_contains(Unreachable, match="is away")
    assert proxies.told == ["the API server is away"]
