"""Where redirected connections were going, from the kernel's connection tracking (ctnetlink; Linux
`nfnetlink_conntrack.h`).

A socket that the proxy accepted shows only that it was redirected; the original destination is known to who holds
the socket, and to connection tracking.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from ambit.core.address import Address
from ambit.node.netns import netlink
from ambit.node.netns.enter import in_namespace

_NETLINK_NETFILTER = 12
_GET = 1 << 8 | 1
_ORIGINAL, _REPLY = 1, 2
_ADDRESSES, _PROTOCOL = 1, 2
_SOURCES, _DESTINATIONS = (1, 3), (2, 4)
"""For IPv4 and IPv6."""
_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_HEADER = struct.Struct("=BBH")

End = tuple[Address, int]
Accepted = tuple[int, Address, int]
"""What the proxy sees: the port that it accepted on, and its peer."""


def redirected(netns: str) -> dict[Accepted, tuple[End, End]]:
    """Who opened each redirected TCP connection of the namespace, and to where. The proxy's peer is the client, with
    another port when the client uses its own for several destinations. Empty when the kernel cannot tell. Blocks."""
    try:
        return in_namespace(Path(netns), lambda: dict(_redirected()))
    except OSError:
        return {}


def _redirected() -> Iterator[tuple[Accepted, tuple[End, End]]]:
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _HEADER.pack(family, 0, 0)
        for answer in netlink.exchange(_NETLINK_NETFILTER, _GET, netlink.NLM_F_DUMP, request):
            entry = netlink.attributes(answer[_HEADER.size :])
            original, reply = _tuple(entry.get(_ORIGINAL, b"")), _tuple(entry.get(_REPLY, b""))
            if original is not None and reply is not None and original[1] != reply[0]:
                yield (reply[0][1], *reply[1]), original


def _tuple(data: bytes) -> tuple[End, End] | None:
    """Source and destination; None for other protocols."""
    parts = netlink.attributes(data)
    addresses, protocol = (netlink.attributes(parts.get(kind, b"")) for kind in (_ADDRESSES, _PROTOCOL))
    if protocol.get(_NUMBER) != bytes([socket.IPPROTO_TCP]):
        return None
    source = next((addresses[kind] for kind in _SOURCES if kind in addresses), b"")
    destination = next((addresses[kind] for kind in _DESTINATIONS if kind in addresses), b"")
    if not source or not destination or not {_SOURCE_PORT, _DESTINATION_PORT} <= protocol.keys():
        return None
    return (
        (ipaddress.ip_address(source), int.from_bytes(protocol[_SOURCE_PORT], "big")),
        (ipaddress.ip_address(destination), int.from_bytes(protocol[_DESTINATION_PORT], "big")),
    )
