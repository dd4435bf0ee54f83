"""IP addresses and networks as the workload API carries them (4 or 16 bytes)."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_port(address: Address, port: int) -> str:
    """`10.0.0.1:80` or `[fd00::1]:80`: Envoy's text for an original destination."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def parse_host_port(text: str) -> tuple[Address, int]:
    """The reverse of `host_port`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if not host:
        raise ValueError(f"{text!r} has no port")
    return _host(host), int(port)


@lru_cache(4096)
def _host(text: str) -> Address:
    """The same few addresses come with thousands of ports."""
    return ipaddress.ip_address(text.strip("[]"))


INNER_NETWORKS: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/3",
            "::/8",
            "2001:2::/48",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)
"""Where clusters have their addresses, by convention: private, shared, link-local, benchmarking and reserved
ranges (RFC 6890), and those that the mesh gives to services without an address."""

_OUTER_BITS = {4: 16, 6: 32}
_INNER_BITS = {4: 16, 6: 48}
"""No inner network is narrower."""


def outer_network(address: Address, prefix: int | None = None) -> Network | None:
    """The block (/16 or /32, or `prefix` if that is wider) around an address outside of INNER_NETWORKS, None for
    one inside."""
    length = _OUTER_BITS[address.version]
    if prefix is not None and prefix < length:
        return ipaddress.ip_network((address, prefix), strict=False)
    if _is_inner(address.version, int(address) >> (address.max_prefixlen - _INNER_BITS[address.version])):
        return None
    return ipaddress.ip_network((address, length), strict=False)


@lru_cache(maxsize=4096)
def _is_inner(version: int, block: int) -> bool:
    for network in INNER_NETWORKS:
        if network.version == version:
            start = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            if block >> (_INNER_BITS[version] - network.prefixlen) == start:
                return True
    return False


def is_of_the_machine(address: Address) -> bool:
    """Whether it leads to whoever calls it, or no further than his own link: loopback, link-local, unspecified."""
    plain = getattr(address, "ipv4_mapped", None) or address
    return bool(plain.is_loopback or plain.is_link_local or plain.is_unspecified)


def sorted_networks(networks: Iterable[Network]) -> tuple[Network, ...]:
    """IPv4 before IPv6, then by address."""
    return tuple(sorted(networks, key=lambda each: (each.version, int(each.network_address), each.prefixlen)))
