"""Addresses of ServiceEntries' hosts: the rules of `ambit.ingest.istio.allocation`, by number."""

import ipaddress
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.address import Address
from ambit.ingest.istio import allocation
from ambit.ingest.istio.allocation import IPV4_RANGE, IPV6_RANGE, AddressBook
from ambit.objects.meta import ObjectMeta
from ambit.objects.networking import (
    AllocatedAddress,
    ServiceEntry,
    ServiceEntrySpec,
    ServiceEntryStatus,
)

TINY = (ipaddress.ip_network("192.0.2.0/29"), ipaddress.ip_network("2001:db8::/125"))
"""Six addresses of each kind."""
ROOMY = (ipaddress.ip_network("192.0.2.0/27"), ipaddress.ip_network("2001:db8::/123"))
"""Thirty: more than three entries of three hosts can claim, old claims and new ones."""


def entry(
    name: str = "one",
    *hosts: str,
    born: int = 1,
    status: tuple[AllocatedAddress, ...] = (),
    label: str = "",
    **spec: object,
) -> ServiceEntry:
    labels = {"networking.istio.io/enable-autoallocate-ip": label} if label else {}
    meta = ObjectMeta(name, "shop", creation_timestamp=f"2026-01-01T00:00:{born:02}Z", labels=labels)
    given_spec = {"hosts": hosts or (f"{name}.example",), "resolution": "DNS", **spec}
    return ServiceEntry(meta, msgspec.convert(given_spec, ServiceEntrySpec), ServiceEntryStatus(status))


def shown(given_entry: ServiceEntry, status: tuple[AllocatedAddress, ...]) -> ServiceEntry:
    return msgspec.structs.replace(given_entry, status=ServiceEntryStatus(status))


def values(found: tuple[AllocatedAddress, ...]) -> list[str]:
    return [each.value for each in found]


def test_1_each_host_gets_an_address_of_each_family_in_istios_ranges() -> None:
    book = AddressBook()
    book.note(entry("one", "a.example", "*.b.example", "a.example"))
    found = book.wanted("shop/one")
    assert [each.host for each in found] == ["a.example"] * 2 + ["*.b.example"] * 2
    for index, each in enumerate(found):
        assert ipaddress.ip_address(each.value) in (IPV4_RANGE, IPV6_RANGE)[index % 2]
    assert len(set(values(found))) == 4


def test_1_who_gets_none() -> None:
    book = AddressBook()
    book.note(entry("one"))
    status = book.wanted("shop/one")
    for without in (
        entry("one", status=status, addresses=["10.0.0.1"]),
        entry("one", status=status, resolution="NONE"),
        entry("one", status=status, label="False"),
    ):
        book.note(without)
        assert book.wanted("shop/one") == ()
    book.note(entry("one", label="true"))
    assert book.wanted("shop/one") == status


def test_2_what_a_status_says_stays() -> None:
    book = AddressBook()
    foreign = (AllocatedAddress("198.51.100.7", "one.example"), AllocatedAddress("nonsense", "one.example"))
    book.note(entry("one", "two.example", "one.example", status=foreign))
    found = book.wanted("shop/one")
    assert AllocatedAddress("198.51.100.7", "one.example") in found
    assert len(found) == 4
    assert "nonsense" not in values(found)


def test_2_hosts_that_come_and_go_leave_the_others_alone() -> None:
    book = AddressBook()
    book.note(entry("one", "a.example", "b.example"))
    before = book.wanted("shop/one")
    book.note(entry("one", "c.example", "b.example", status=before))
    after = book.wanted("shop/one")
    assert [each for each in after if each.host == "b.example"] == list(before[2:])
    assert {each.host for each in after} == {"b.example", "c.example"}


def test_3_of_two_that_claim_an_address_the_older_keeps_it() -> None:
    book = AddressBook()
    status = (AllocatedAddress("240.240.0.9", "one.example"), AllocatedAddress("2001:2::9", "one.example"))
    copy = tuple(AllocatedAddress(each.value, "two.example") for each in status)
    assert book.note(entry("two", born=2, status=copy)) == ()
    assert book.wanted("shop/two") == copy
    assert book.note(entry("one", born=1, status=status)) == ("shop/two",)
    assert book.wanted("shop/one") == status
    assert not set(values(book.wanted("shop/two"))) & set(values(status))


@pytest.mark.parametrize("written", [True, False])
def test_3_an_address_stays_with_the_host_that_was_given_it(written: bool) -> None:
    """Whatever an older entry's spec says, also while the status is not written yet."""
    book = AddressBook()
    book.note(entry("new", born=9))
    status = book.wanted("shop/new")
    if written:
        book.note(entry("new", born=9, status=status))
    book.note(entry("old", born=1, addresses=[status[0].value, "10.0.0.0/8"]))
    assert book.wanted("shop/new") == status


def test_3_an_address_in_a_spec_is_given_to_nobody_else() -> None:
    book = AddressBook()
    book.note(entry("new"))
    would_be = book.wanted("shop/new")[0].value
    book.forget("shop/new")
    book.note(entry("old", addresses=[would_be]))
    book.note(entry("new"))
    assert would_be not in values(book.wanted("shop/new"))


def test_3_outside_of_the_range_an_address_in_a_spec_is_whose_who_wrote_it() -> None:
    book = AddressBook()
    status = (AllocatedAddress("192.0.2.9", "old.example"), AllocatedAddress("2001:2::9", "old.example"))
    book.note(entry("old", born=1, status=status))
    assert book.note(entry("new", born=9, addresses=["192.0.2.9"])) == ("shop/old",)
    found = book.wanted("shop/old")
    assert found[0].value != "192.0.2.9" and found[1] == status[1]


def test_4_an_entry_made_again_gets_the_same_addresses() -> None:
    book = AddressBook()
    book.note(entry("one"))
    before = book.wanted("shop/one")
    book.forget("shop/one")
    book.note(entry("one", born=5))
    assert book.wanted("shop/one") == before
    fresh = AddressBook()
    fresh.note(entry("one", born=7))
    assert fresh.wanted("shop/one") == before


def test_5_a_free_address_is_given_to_others_last() -> None:
    book = AddressBook(TINY, share=1)
    for number in range(3):
        book.note(entry(f"e{number}"))
    held = {number: values(book.wanted(f"shop/e{number}")) for number in range(3)}
    book.forget("shop/e0")
    for number in range(3, 6):
        book.note(entry(f"e{number}"))
        assert not set(values(book.wanted(f"shop/e{number}"))) & set(held[0])
    book.note(entry("last"))
    assert values(book.wanted("shop/last")) == held[0]
    book.note(entry("beyond"))
    assert book.wanted("shop/beyond") == (), "the ranges are full"
    book.forget("shop/last")
    assert values(book.wanted("shop/beyond")) == held[0]


def theirs(namespace: str, name: str, *hosts: str) -> ServiceEntry:
    given_entry = entry(name, *hosts)
    meta = msgspec.structs.replace(given_entry.metadata, namespace=namespace)
    return msgspec.structs.replace(given_entry, metadata=meta)


def test_6_a_namespace_has_its_share_and_no_more() -> None:
    book = AddressBook(ROOMY, share=3)
    book.note(theirs("greedy", "one", *(f"h{number}.example" for number in range(25))))
    assert len(book.wanted("greedy/one")) == 2 * 10 and book.has_its_share("greedy")
    book.note(theirs("shop", "two"))
    assert len(book.wanted("shop/two")) == 2 and not book.has_its_share("shop")
    book.forget("greedy/one")
    assert not book.has_its_share("greedy")
    book.note(theirs("greedy", "three"))
    assert len(book.wanted("greedy/three")) == 2


def test_6_what_statuses_say_stays_beyond_the_share() -> None:
    status = tuple(AllocatedAddress(f"192.0.2.{number}", f"h{number}.example") for number in range(1, 9))
    book = AddressBook(ROOMY, share=10)
    given_entry = shown(theirs("greedy", "one", *(each.host for each in status)), status)
    book.note(given_entry)
    assert set(status) <= set(book.wanted("greedy/one"))


def nothing_new(*_: object) -> Iterator[Address]:
    for _ in range(allocation.FEW):
        yield ipaddress.ip_address("198.51.100.1")
    raise AssertionError("the whole range is searched")


def test_a_full_range_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    book = AddressBook(ROOMY, share=1)
    book.note(theirs("greedy", "one", *(f"h{number}.example" for number in range(30))))
    assert len(book.wanted("greedy/one")) == 60
    monkeypatch.setattr(allocation, "_candidates", nothing_new)
    book.note(theirs("shop", "two"))
    assert book.wanted("shop/two") == ()
    book.forget("greedy/one")
    assert len(book.wanted("shop/two")) == 2, "of what is free again"


hosts = st.lists(st.sampled_from(["a.example", "b.example", "*.c.example"]), min_size=1, max_size=3)
steps = st.lists(
    st.tuples(
        st.sampled_from(["one", "two", "three"]),
        st.sampled_from(["note", "forget", "write", "off"]),
        hosts,
        st.integers(1, 3),
    ),
    max_size=12,
)


@given(steps)
def test_no_address_is_held_twice_and_a_written_status_is_final(
    taken: list[tuple[str, str, list[str], int]],
) -> None:
    """Whatever comes, in any order, with statuses written late or copied from others."""
    book = AddressBook(ROOMY, share=1)
    known: dict[str, ServiceEntry] = {}
    for name, step, several, born in taken:
        key = f"shop/{name}"
        before = known.get(key)
        if step == "forget" or before is None:
            book.forget(key)
            known.pop(key, None)
            if step == "forget":
                continue
            other = next(iter(known.values()), None)
            status = other.status.addresses if other is not None else ()
            known[key] = entry(name, *several, born=born, status=status)
        elif step == "write":
            known[key] = shown(before, book.wanted(key))
        else:
            known[key] = entry(
                name,
                *several,
                born=born,
                status=before.status.addresses,
                label="false" if step == "off" else "",
            )
        book.note(known[key])
        assert book.wanted(key) == book.wanted(key)
    for _ in range(2):
        for key in sorted(known):
            known[key] = shown(known[key], book.wanted(key))
            book.note(known[key])
    final = {key: book.wanted(key) for key in known}
    assert {key: set(each.status.addresses) for key, each in known.items()} == {
        key: set(found) for key, found in final.items()
    }
    everything = [value for found in final.values() for value in values(found)]
    assert len(everything) == len(set(everything))
    successor = AddressBook(ROOMY, share=1)
    for each in known.values():
        successor.note(each)
    assert {key: set(successor.wanted(key)) for key in known} == {key: set(final[key]) for key in known}
