"""Networks in which clusters usually have their addresses, and blocks around others."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.address import INNER_NETWORKS, host_port, outer_network, parse_host_port


@given(st.ip_addresses(), st.integers(0, 65535))
def test_host_and_port_are_read_back(address, port: int) -> None:  # type: ignore[no-untyped-def]
    assert parse_host_port(host_port(address, port)) == (address, port)


@given(
    st.sampled_from(INNER_NETWORKS).flatmap(lambda network: st.ip_addresses(network=str(network)))
    | st.ip_addresses()
)
def test_an_address_is_inside_or_gets_a_block_around_it(address) -> None:  # type: ignore[no-untyped-def]
    inside = any(address in network for network in INNER_NETWORKS if network.version == address.version)
    block = outer_network(address)
    assert (block is None) == inside
    assert block is None or address in block


@pytest.mark.parametrize(
    ("address", "prefix", "block"),
    [
        ("203.0.113.5", None, "203.0.0.0/16"),
        ("203.0.113.5", 24, "203.0.0.0/16"),
        ("10.0.0.0", 24, None),
        ("0.0.0.0", 0, "0.0.0.0/0"),
        ("2001:db8::1", None, "2001:db8::/32"),
        ("2001:2::1", None, None),
        ("2001:2:1::1", None, "2001:2::/32"),
    ],
)
def test_blocks(address: str, prefix: int | None, block: str | None) -> None:
    assert outer_network(ipaddress.ip_address(address), prefix) == (
        ipaddress.ip_network(block) if block else None
    )
