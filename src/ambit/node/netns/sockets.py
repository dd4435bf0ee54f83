"""Open TCP connections inside a pod's namespace, and ending exactly those that must not go on.

The proxy delivers each accepted connection from the client's address, so a connection into a pod shows as a
socket whose local address is the client's and whose peer is the pod, tunnelled, plaintext or from the same
node alike. Destroying it ends that one connection on both sides; others, also in the same tunnel, go on.
(sock_diag(7); the kernel needs CONFIG_INET_DIAG_DESTROY.)
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from ambit.core.address import Address
from ambit.core.names import OUTBOUND_PORT
from ambit.node.netns import netlink
from ambit.node.netns.enter import in_namespace

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_ESTABLISHED_AND_CLOSING = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8
"""TCP states established, fin-wait-1, fin-wait-2, close-wait: bytes may still flow in one direction."""
_REQUEST = struct.Struct("=BBBBI")
_ID = struct.Struct("!HH16s16s")
_ID_BYTES = 48
_ANY_INTERFACE = bytes(4)
_NO_COOKIE = b"\xff" * 8


class Connection(msgspec.Struct, frozen=True):
    """One connection into a pod: who opened it and which port it reached. `handle` names it to the kernel."""

    client: Address
    client_port: int
    destination: Address
    destination_port: int
    family: int
    handle: bytes


def inbound(netns: str, own: Collection[Address]) -> tuple[Connection, ...]:
    """Connections that the proxy delivers into the namespace whose pod has the addresses `own`."""
    return in_namespace(Path(netns), lambda: tuple(_inbound(frozenset(own))))


def destroy(netns: str, connections: Iterable[Connection]) -> int:
    """Ends these connections now; returns how many there were left to end."""
    wanted = tuple(connections)
    return in_namespace(Path(netns), lambda: sum(_destroy(each) for each in wanted)) if wanted else 0


def reset_outbound(netns: str, client: Address, client_port: int) -> bool:
    """Ends the connection that the pod opened from `client`, at the proxy's end: the pod reads what it was sent
    and then sees a reset. False when it is already gone."""
    loopback = ipaddress.ip_address("127.0.0.1" if client.version == 4 else "::1")
    identity = _ID.pack(OUTBOUND_PORT, client_port, _raw(loopback), _raw(client))
    family = socket.AF_INET if client.version == 4 else socket.AF_INET6
    connection = Connection(
        client, client_port, loopback, OUTBOUND_PORT, family, identity + _ANY_INTERFACE + _NO_COOKIE
    )
    return destroy(netns, [connection]) == 1


def _inbound(own: frozenset[Address]) -> Iterator[Connection]:
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ESTABLISHED_AND_CLOSING) + bytes(_ID_BYTES)
        for answer in netlink.exchange(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, netlink.NLM_F_DUMP, request):
            handle = answer[4 : 4 + _ID_BYTES]
            local_port, peer_port, local, peer = _ID.unpack_from(handle)
            client, destination = _address(family, local), _address(family, peer)
            # The proxy's end of what the pod opens has the pod as peer too, and is on loopback.
            if destination in own and client not in own and not client.is_loopback:
                yield Connection(client, local_port, destination, peer_port, family, handle)


def _destroy(connection: Connection) -> bool:
    request = (
        _REQUEST.pack(connection.family, socket.IPPROTO_TCP, 0, 0, _ESTABLISHED_AND_CLOSING)
        + connection.handle
    )
    try:
        netlink.exchange(_NETLINK_SOCK_DIAG, _SOCK_DESTROY, netlink.NLM_F_ACK, request)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def _raw(address: Address) -> bytes:
    return address.packed.ljust(16, b"\0")


def _address(family: int, raw: bytes) -> Address:
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(raw[:4])
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address
