"""Which connections end when Envoy is short of memory."""

import asyncio
import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.identity import Identity
from ambit.node import load_shedding
from ambit.node.load_shedding import CRITICAL, SHARE, SHED, Held, LoadShedder, Stall, select_connections
from ambit.node.netns.sockets import Socket
from ambit.plan.values import LocalPod

LIMIT = 512 << 20
ADDRESS = ipaddress.ip_address("10.0.0.1")


def held(namespace: str, count: int, stall: Stall = Stall.READ) -> list[Held]:
    pod = LocalPod("u", namespace, "p", "s", Identity("d", namespace, "a"), (ADDRESS,), "/run/netns/p")
    return [Held(pod, Socket(ADDRESS, 1, ADDRESS, 2, 2, b"", cookie), stall) for cookie in range(count)]


def ended(found: list[Held], used: float) -> Counter[tuple[str, Stall]]:
    chosen = select_connections(found, int(used * LIMIT) + 1, LIMIT)
    return Counter((each.pod.namespace, each.stall) for each in chosen)


def test_nothing_ends_while_there_is_memory() -> None:
    assert not ended(held("attacker", 1500), SHED - 0.01)


def test_the_namespace_with_the_most_stalled_connections_pays() -> None:
    found = held("attacker", 1500) + held("victim", 100) + held("victim", 10_000, Stall.NONE)
    assert set(ended(found, SHED + 0.05)) == {("attacker", Stall.READ)}
    assert ended(found, SHED + 0.2)["attacker", Stall.READ] > ended(found, SHED)["attacker", Stall.READ] > 0


def test_each_namespace_keeps_its_share_until_memory_is_nearly_gone() -> None:
    found = held("one", SHARE) + held("other", SHARE)
    assert not ended(found, CRITICAL - 0.01)
    assert ended(found, CRITICAL)


def test_other_connections_end_only_when_memory_is_nearly_gone() -> None:
    found = held("attacker", 12_000, Stall.NONE) + held("victim", 3_000, Stall.NONE)
    assert not ended(found, CRITICAL - 0.01)
    assert set(ended(found, CRITICAL)) == {("attacker", Stall.NONE)}


def test_who_does_not_read_goes_before_who_is_not_read_and_new_ones_before_old_ones() -> None:
    found = held("one", 100, Stall.WRITE) + held("one", 50, Stall.READ)
    chosen = select_connections(found, int((SHED + 0.1) * LIMIT), LIMIT)
    assert {each.stall for each in chosen[:50]} <= {Stall.READ}
    cookies = [each.socket.cookie for each in chosen if each.stall is Stall.READ]
    assert cookies == sorted(cookies, reverse=True)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 200), st.sampled_from(Stall)), max_size=6),
    st.floats(0, 2),
)
def test_no_namespace_loses_while_another_has_more(parts: list[tuple[str, int, Stall]], used: float) -> None:
    found = [each for part in parts for each in held(*part)]
    is_critical = int(used * LIMIT) >= CRITICAL * LIMIT
    chosen = select_connections(found, int(used * LIMIT), LIMIT)
    left, lost = Counter[str](), set[str]()
    for each in found:
        left[each.pod.namespace] += each.cost if each.stall or is_critical else 0
    for each in chosen:
        assert left[each.pod.namespace] == max(left.values())
        left[each.pod.namespace] -= each.cost
        lost.add(each.pod.namespace)
    if not is_critical:
        assert all(left[name] >= SHARE << 20 for name in lost)


@pytest.mark.parametrize("seen", [[0.55], [0.0, 0.55], [0.55, 0.0, 0.55]])
async def test_memory_that_an_agent_finds_at_its_start_is_no_growth(
    seen: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy goes on while agents come and go, and its use is not known (0) for a while."""
    monkeypatch.setattr(load_shedding, "_LOOK", 0.0)
    monkeypatch.setattr(load_shedding, "_look", lambda *_: held("victim", 1_000, Stall.NONE))
    monkeypatch.setattr(load_shedding, "_end", lambda doomed: len(list(doomed)))
    left, enough = iter(seen), asyncio.Event()

    def used() -> int:
        if (part := next(left, None)) is None:
            enough.set()
        return int(LIMIT * (seen[-1] if part is None else part))

    shedder = LoadShedder(tuple, used, LIMIT)
    running = asyncio.create_task(shedder.run())
    async with asyncio.timeout(60):
        await enough.wait()
    running.cancel()
    assert shedder.ended == 0
