"""Where redirected connections were going, from the kernel's connection tracking (ctnetlink; Linux
`nfnetlink_conntrack.h`).

A socket that the proxy accepted shows only that it was redirected; the original destination is known to who holds
the socket, and to connection tracking.
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
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


def redirected(netns: str, accepted: Iterable[tuple[End, End]]) -> dict[Accepted, tuple[End, End]]:
    """Who opened these connections of the namespace and to where, of what the proxy accepted: its own end and its
    peer's. The peer is the client, with another port when the client uses its own for several destinations. Asked one
    by one, because the kernel remembers each connection for minutes after its end: on a busy node thousands for each
    that is open. Without those that the kernel cannot tell. Blocks."""
    try:
        return in_namespace(Path(netns), lambda: dict(_redirected(accepted)))
    except OSError:
        return {}


def _redirected(accepted: Iterable[tuple[End, End]]) -> Iterator[tuple[Accepted, tuple[End, End]]]:
    for (local, local_port), (peer, peer_port) in accepted:
        family = socket.AF_INET if local.version == 4 else socket.AF_INET6
        # Of the connection's two directions this is the proxy's: from its own end to its peer.
        wanted = netlink.attribute(_REPLY, _encoded(local, local_port, peer, peer_port))
        request = _HEADER.pack(family, 0, 0) + wanted
        try:
            answers = netlink.exchange(_NETLINK_NETFILTER, _GET, netlink.NLM_F_ACK, request)
        except OSError as problem:
            if problem.errno == errno.ENOENT:
                continue
            raise
        for answer in answers:
            entry = netlink.attributes(answer[_HEADER.size :])
            original = _tuple(entry.get(_ORIGINAL, b""))
            if original is not None and original[1] != (local, local_port):
                yield (local_port, peer, peer_port), original


def _encoded(local: Address, local_port: int, peer: Address, peer_port: int) -> bytes:
    """A direction as `_tuple` reads it."""
    six = local.version == 6
    addresses = netlink.attribute(_SOURCES[six], local.packed) + netlink.attribute(
        _DESTINATIONS[six], peer.packed
    )
    protocol = (
        netlink.attribute(_NUMBER, bytes([socket.IPPROTO_TCP]))
        + netlink.attribute(_SOURCE_PORT, local_port.to_bytes(2, "big"))
        + netlink.attribute(_DESTINATION_PORT, peer_port.to_bytes(2, "big"))
    )
    return netlink.attribute(_ADDRESSES, addresses) + netlink.attribute(_PROTOCOL, protocol)


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
