"""Turns are few, and end by themselves."""

import asyncio

import pytest

from ambit.control.turns import FairSemaphore, Overloaded, Turns

PATIENCE = 60.0


async def test_so_many_at_a_time():
    turns = Turns(2, 1000.0)
    inside, most, done = 0, 0, 0

    async def take():
        nonlocal inside, most, done
        async with turns.turn():
            inside += 1
            most = max(most, inside)
            for _ in range(3):
                await asyncio.sleep(0)
            inside -= 1
        done += 1

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(take() for _ in range(7)))
    assert (most, done) == (2, 7)


async def test_who_does_not_end_holds_nobody_up():
    turns = Turns(1, 0.001)
    inside = asyncio.Semaphore(0)
    for_ever = asyncio.Event()

    async def take():
        async with turns.turn():
            inside.release()
            await for_ever.wait()

    tasks = [asyncio.create_task(take()) for _ in range(3)]
    async with asyncio.timeout(PATIENCE):
        for _ in tasks:
            await inside.acquire()
        for_ever.set()
        await asyncio.gather(*tasks)


async def test_a_turn_is_given_back_once():
    turns = Turns(1, 0.0)
    ended = asyncio.Event()
    async with asyncio.timeout(PATIENCE):
        async with turns.turn():
            asyncio.get_running_loop().call_later(0.001, ended.set)
            await ended.wait()  # the turn was over before
        long = Turns(1, 1000.0)
        async with long.turn():
            second = asyncio.create_task(long.turn().__aenter__())
            await asyncio.sleep(0)
            assert not second.done()
        await second
    assert turns._free._value == 1


async def test_a_key_that_wants_much_waits_for_itself():
    places = FairSemaphore(2, 1, 2)
    begun: list[str] = []
    go_on = asyncio.Event()

    async def hold(key):
        async with places.hold(key):
            begun.append(key)
            await go_on.wait()

    greedy = [asyncio.create_task(hold("greedy")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hold("greedy")
    other = asyncio.create_task(hold("other"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert begun == ["greedy", "other"]
    go_on.set()
    await asyncio.gather(*greedy, other)
    await hold("greedy")
    assert not places._keys, "what no key holds is forgotten"
