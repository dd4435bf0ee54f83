"""Which names of clients' hellos are resolved, and where they may lead."""

import ipaddress

import pytest

from ambit.model.server_names import NamesNote, is_public

NOTE = NamesNote(("*.example.com",), ("10.20.0.0/16",))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.example.com", True),
        ("A.Example.COM.", True),
        ("a.b.example.com", True),
        ("example.com", False),
        ("a.example.org", False),
        ("*.example.com", False),
        ("a:22.example.com", False),
        ("", False),
    ],
)
def test_names_are_of_hosts_that_are_asked_for(name: str, expected: bool) -> None:
    assert NOTE.covers(name) is expected


def test_without_a_pattern_no_name_is() -> None:
    assert not NamesNote().covers("a.example.com")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.240.0.1",
        "255.255.255.255",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fd00::1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2606:4700::1111",
    ],
)
def test_what_is_no_public_address_of_ipv4_is_out_of_reach(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert NamesNote(("*.example.com",)).reachable([ipaddress.ip_address(address)]) == []


def test_public_addresses_and_ranges_that_are_said_are_within_reach() -> None:
    given = list(map(ipaddress.ip_address, ("93.184.216.34", "10.20.1.1", "10.21.1.1")))
    assert NOTE.reachable(given) == given[:2]


def test_the_clusters_own_addresses_are_never() -> None:
    given = list(map(ipaddress.ip_address, ("93.184.216.34", "93.184.216.35", "10.20.1.1", "10.20.1.2")))
    note = NamesNote(("*.example.com",), ("10.20.0.0/16",), ("93.184.216.34", "10.20.1.1"))
    assert note.reachable(given) == [given[1], given[3]]
