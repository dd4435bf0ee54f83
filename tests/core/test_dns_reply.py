"""Chains of aliases in nameservers' replies, against dnspython, and replies that are none."""

import itertools

import dns.flags
import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.dns_reply import unfinished_chain
from tests.soak import fuzz

names = st.lists(st.text("abcxyz019-_", min_size=1, max_size=8), min_size=2, max_size=5).map(".".join)


LONG = tuple(itertools.pairwise("abcdefghijklmnopqrs"))


def reply(asked: str, *lines: str, flags: int = 0) -> bytes:
    """Lines: owner, TTL, class, type, data."""
    message = dns.message.make_response(dns.message.make_query(asked, "A"))
    message.flags |= flags
    for line in lines:
        owner, ttl, klass, kind, data = line.split(maxsplit=4)
        message.answer.append(dns.rrset.from_text(owner, int(ttl), klass, kind, data))
    return message.to_wire()


def chain(data: bytes, name: str) -> list[str]:
    return [f"{each.name} {each.ttl} {each.data}" for each in unfinished_chain(data, name)]


def test_a_chain_without_an_address_is_unfinished() -> None:
    data = reply("Alias.example.", "b.example. 7 IN CNAME c.other.", "Alias.example. 9 IN CNAME B.example.")
    assert chain(data, "alias.example") == ["alias.example 9 b.example", "b.example 7 c.other"]


@pytest.mark.parametrize(
    "data",
    [
        reply("a.example."),
        reply("a.example.", "a.example. 5 IN CNAME b.example.", "b.example. 5 IN A 192.0.2.1"),
        reply("a.example.", "a.example. 5 IN CNAME b.example.", "b.example. 5 IN AAAA 2001:db8::1"),
        reply("a.example.", "a.example. 5 IN CNAME b.example.", flags=dns.flags.TC),
        reply("a.example.", "other.example. 5 IN CNAME b.example."),
        reply("a.example.", "a.example. 5 CH CNAME b.example."),
        reply("a.example.", "a.example. 5 IN TXT b.example."),
        reply("a.example.", *(f"{a}.example. 5 IN CNAME {b}.example." for a, b in LONG)),
        reply("a.example.", "a.example. 5 IN CNAME b.example.")[:-1],
        reply("a.example.", "a.example. 5 IN CNAME b.example.")[:2] + b"\1\0" + bytes(8),
    ],
    ids=["empty", "IPv4", "IPv6", "truncated", "another name", "class", "type", "too long", "cut", "query"],
)  # fmt: skip
def test_everything_else_is_not(data: bytes) -> None:
    assert chain(data, "a.example") == []


def test_a_loop_of_aliases_ends() -> None:
    data = reply("a.example.", "a.example. 5 IN CNAME b.example.", "b.example. 5 IN CNAME a.example.")
    assert len(chain(data, "a.example")) == 2


@given(st.lists(names, min_size=2, max_size=8, unique=True))
def test_any_chain_is_read_as_written(path: list[str]) -> None:
    lines = [f"{a}. 3 IN CNAME {b}." for a, b in itertools.pairwise(path)]
    found = unfinished_chain(reply(f"{path[0]}.", *lines), path[0])
    assert [path[0], *(str(each.data) for each in found)] == path


@pytest.mark.soak
@pytest.mark.timeout(3600)
@fuzz()
@given(st.binary(max_size=80), names)
def test_noise_is_no_chain_and_no_error(noise: bytes, name: str) -> None:
    whole = reply(f"{name}.", f"{name}. 5 IN CNAME b.example.")
    for data in (noise, whole[: len(whole) - len(noise)] + noise, whole[:4] + noise):
        unfinished_chain(data, name)


def test_pointers_never_make_a_reader_go_round() -> None:
    """Each label of such a name points at the one before it, so a name could be read again and again."""
    head = b"\0\0\x80\0\0\0\0\1" + bytes(4)
    looping = head + b"\1a\xc0\x0c" + bytes(10)
    assert unfinished_chain(looping, "a") == ()
    deep = head + b"".join(b"\1a" + (0xC00C + 4 * index).to_bytes(2, "big") for index in range(4000))
    assert unfinished_chain(deep, "a") == ()
