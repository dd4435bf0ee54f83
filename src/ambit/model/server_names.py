"""Hosts outside that are found by the name in a client's hello (`ServiceEntry` of resolution DYNAMIC_DNS)."""

import ipaddress
from collections.abc import Iterable

import msgspec

from ambit.core import hostnames
from ambit.core.address import Address


class NamesNote(msgspec.Struct, frozen=True):
    """What the agent of a waypoint is to resolve for it: hosts of these patterns, to public addresses and to those in
    `ranges`, but to none of `own`."""

    patterns: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    def covers(self, name: str) -> bool:
        """Whether it is the name of a host (`ambit.core.hostnames`) that is asked for at all."""
        plain = name.lower().removesuffix(".")
        return hostnames.is_name(plain) and any(hostnames.covers(each, plain) for each in self.patterns)

    def reachable(self, found: Iterable[Address]) -> list[Address]:
        """Those that connections may go to: whoever has a name decides what it resolves to, and must lead nobody to
        the proxy itself, its node or the mesh."""
        networks = [ipaddress.ip_network(each) for each in self.ranges]
        return [
            each
            for each in found
            if (is_public(each) or any(each in network for network in networks)) and str(each) not in self.own
        ]


def is_public(address: Address) -> bool:
    """Whether it is an address of the Internet (IANA's special-purpose registry), and of no cloud's own service."""
    return (
        address.version == 4
        and address.is_global
        and not (address.is_multicast or address.is_reserved)
        and address != _METADATA
    )


_METADATA = ipaddress.ip_address("168.63.129.16")
"""Azure's, for its machines (Microsoft, "What is IP address 168.63.129.16?"). Those of other clouds are not public."""
