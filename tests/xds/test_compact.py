import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.xds import wire
from ambit.xds.compact import LONG, SHORT, Compact, Compactor
from ambit.xds.frames import Resource, Response

LISTENERS = "listeners"
bodies = st.binary(max_size=4 * SHORT)


def resource(body: bytes, name: str = "a") -> Resource:
    return Resource(name=name, version="1", body=body)


@given(st.lists(bodies, max_size=5))
def test_compact_ones_are_equal_and_have_the_same_content(all_of_them):
    compactor = Compactor()
    for body in all_of_them:
        whole = resource(body)
        compact = compactor.compact(LISTENERS, whole)
        assert (compact, compact.content()) == (whole, body)


@given(bodies, bodies)
def test_they_are_sent_as_they_were(first, second):
    compactor = Compactor()
    whole = (resource(first, "a"), resource(second, "b"))
    compact = tuple(compactor.compact(LISTENERS, each) for each in whole)
    sent = [
        wire.encode_once(Response(type_url=LISTENERS, nonce="1", resources=each)) for each in (whole, compact)
    ]
    assert sent[0] == sent[1]


def test_whether_only_who_asks_gets_it_stays():
    whole = Resource(name="a", version="1", body=bytes(SHORT), on_demand=True)
    assert Compactor().compact(LISTENERS, whole).on_demand


def test_another_of_its_type_takes_little():
    compactor, common = Compactor(), random.Random(1).randbytes(4 * SHORT)
    first, second = (compactor.compact(LISTENERS, resource(common + name)) for name in (b"one", b"two"))
    assert isinstance(first, Compact) and isinstance(second, Compact)
    assert first.like is second.like
    assert len(second.deflated) < SHORT / 4


@pytest.mark.parametrize("size", [0, SHORT - 1, LONG + 1])
def test_short_and_long_ones_stay_as_they_are(size):
    whole = resource(bytes(size))
    assert Compactor().compact(LISTENERS, whole) is whole
