"""The control plane's own limit of memory: what it gives back, and when it counts as short."""

import gc

import grpc
import pytest

from ambit.ca.issuance import Caller
from ambit.control.identity.callers import Refused
from ambit.control.identity.first_message import FirstMessages
from ambit.control.memory_keeper import GROWTH, MemoryKeeper

MIB = 1 << 20


class Process:
    """Has `used` bytes, and `free` ones that it can give back."""

    def __init__(self, used: int) -> None:
        self.used, self.free = used, 0

    def resident(self) -> int:
        return self.used + self.free

    def give_back(self) -> None:
        self.free = 0


def keeper(process, limit):
    return MemoryKeeper(limit, process.resident, process.give_back)


def test_what_is_free_is_given_back_once_the_process_has_grown():
    process = Process(100 * MIB)
    kept = keeper(process, 0)
    process.free = GROWTH
    kept.look()
    assert process.free == GROWTH, "little growth is not worth a look at all memory"
    process.free += 1
    kept.look()
    assert process.free == 0
    assert not kept.is_short


def test_a_process_is_short_while_what_it_uses_is_near_the_limit():
    process = Process(70 * MIB)
    kept = keeper(process, 100 * MIB)
    process.free = 20 * MIB
    kept.look()
    assert not kept.is_short, "what is free does not count"
    process.used = 81 * MIB
    kept.look()
    assert kept.is_short
    process.used = 79 * MIB
    kept.look()
    assert not kept.is_short


def test_a_process_that_stays_near_its_limit_goes_on_with_its_work(monkeypatch):
    """The garbage collector takes two seconds with the objects of a large mesh."""
    process, now, collections = Process(90 * MIB), 1000.0, 0

    def collect():
        nonlocal now, collections
        now += 2
        collections += 1

    monkeypatch.setattr(gc, "collect", collect)
    kept = MemoryKeeper(100 * MIB, process.resident, process.give_back, lambda: now)
    while now < 1400:
        now += 1
        kept.look()
        assert kept.is_short
    assert 5 <= collections <= 11


class Call:
    async def read(self):
        return b"message"


async def test_a_process_that_is_short_serves_node_agents_only():
    messages = FirstMessages([("ambit-system", "ambit-node")])
    agent, pod = Caller("ambit-system", "ambit-node"), Caller("shop", "web")
    assert await messages.read(pod, Call(), 10) == b"message"
    messages.is_short = lambda: True
    with pytest.raises(Refused) as caught:
        await messages.read(pod, Call(), 10)
    assert caught.value.status is grpc.StatusCode.UNAVAILABLE
    assert await messages.read(agent, Call(), 10) == b"message"


async def test_a_message_that_is_too_long_is_refused():
    with pytest.raises(Refused) as caught:
        await FirstMessages([]).read(Caller("shop", "web"), Call(), 6)
    assert "7 bytes; 6 are allowed" in caught.value.reason
