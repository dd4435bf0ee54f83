"""TCP sockets inside a pod's namespace, and ending exactly those that must not go on.

What each one is tells `ambit.node.connections`. (sock_diag(7); the kernel needs CONFIG_INET_DIAG_DESTROY.)
"""

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from ambit.core.address import Address
from ambit.core.names import OUTBOUND_MARK, OUTBOUND_PORT
from ambit.node.netns import netlink
from ambit.node.netns.enter import in_namespace

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
ESTABLISHED, LISTENS = 1, 10
"""Two of the kernel's TCP states."""
OPEN = 1 << ESTABLISHED | 1 << 4 | 1 << 5 | 1 << 8
"""TCP states established, fin-wait-1, fin-wait-2, close-wait: bytes may still flow in one direction."""
OPENING = 1 << 2 | 1 << 3 | 1 << 12
"""syn-sent, and syn-received with and without a socket of its own."""
LISTENING = 1 << LISTENS
_REQUEST = struct.Struct("=BBBBI")
_ID = struct.Struct("!HH16s16s")
_ID_BYTES = 48
_COOKIE = struct.Struct("=Q")
_COOKIE_AT = 44
_STATE_AT, _ID_AT, _ATTRIBUTES_AT = 1, 4, 72
_QUEUES = struct.Struct("=II")
_QUEUES_AT = 56
_INET_DIAG_INFO = 2
_INET_DIAG_MARK = 15
_MOVED = struct.Struct("=QQ")
_MOVED_AT = 120
"""In the kernel's `tcp_info`: bytes that the peer acknowledged, and bytes that came."""


class Socket(msgspec.Struct, frozen=True):
    """One socket. `handle` names it to the kernel; `cookie` is its own for as long as the kernel runs, whatever
    becomes of its addresses; `mark` is what its packets carry (0 when the kernel does not tell). `unread` bytes wait
    for who holds the socket, `unsent` ones for its peer; `moved` bytes went through so far in both directions (0 unless
    `listing` has `moved`)."""

    local: Address
    local_port: int
    peer: Address
    peer_port: int
    family: int
    handle: bytes
    cookie: int = 0
    mark: int = 0
    state: int = ESTABLISHED
    unread: int = 0
    unsent: int = 0
    moved: int = 0


def listing(netns: str, states: int = OPEN, *, moved: bool = False) -> tuple[Socket, ...]:
    """The namespace's TCP sockets in these states. Blocks. Raises OSError."""
    return in_namespace(Path(netns), lambda: tuple(_dump(states, 1 << (_INET_DIAG_INFO - 1) if moved else 0)))


def ephemeral_ports(netns: str) -> range:
    """Ports that the kernel gives to who does not choose one. Blocks briefly. Raises OSError."""

    def read() -> range:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        first, last = (int(each) for each in text.split())
        return range(first, last + 1)

    return in_namespace(Path(netns), read)


def destroy(netns: str, wanted: Iterable[Socket]) -> int:
    """Ends these now; their peers see a reset. Returns how many there were left to end. Blocks. Raises OSError."""
    doomed = tuple(wanted)
    return in_namespace(Path(netns), lambda: sum(_destroy(each) for each in doomed)) if doomed else 0


def reset_outbound(netns: str, client: Address, client_port: int) -> bool:
    """Ends the connection that the pod opened from `client`, at the proxy's end: the pod reads what it was sent
    and then sees a reset. False when it is already gone."""
    # Never by its addresses alone: when it is gone, the kernel takes the listener for it.
    return destroy(netns, [each for each in listing(netns) if _is_end(each, client, client_port)]) > 0


def _is_end(end: Socket, client: Address, client_port: int) -> bool:
    """Whether the proxy accepted this one from there; without NAT it has the destination for its own address."""
    is_outbound = end.mark == OUTBOUND_MARK or (end.local_port == OUTBOUND_PORT and end.local.is_loopback)
    return is_outbound and (end.peer, end.peer_port) == (client, client_port)


def _dump(states: int, extensions: int) -> Iterator[Socket]:
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, socket.IPPROTO_TCP, extensions, 0, states) + bytes(_ID_BYTES)
        for answer in netlink.exchange(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, netlink.NLM_F_DUMP, request):
            handle = answer[_ID_AT : _ID_AT + _ID_BYTES]
            local_port, peer_port, local, peer = _ID.unpack_from(handle)
            unread, unsent = _QUEUES.unpack_from(answer, _QUEUES_AT)
            attributes = netlink.attributes(answer[_ATTRIBUTES_AT:])
            mark = attributes.get(_INET_DIAG_MARK, bytes(4))
            told = attributes.get(_INET_DIAG_INFO, b"")
            moved = sum(_MOVED.unpack_from(told, _MOVED_AT)) if len(told) >= _MOVED_AT + _MOVED.size else 0
            yield Socket(
                _address(family, local),
                local_port,
                _address(family, peer),
                peer_port,
                family,
                handle,
                _COOKIE.unpack_from(answer, _COOKIE_AT)[0],
                struct.unpack("=I", mark)[0],
                answer[_STATE_AT],
                unread,
                unsent,
                moved,
            )


def _destroy(doomed: Socket) -> bool:
    request = _REQUEST.pack(doomed.family, socket.IPPROTO_TCP, 0, 0, OPEN) + doomed.handle
    try:
        netlink.exchange(_NETLINK_SOCK_DIAG, _SOCK_DESTROY, netlink.NLM_F_ACK, request)
    except OSError as error:
        # The second: a listener is found in its place.
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise
    return True


def _address(family: int, raw: bytes) -> Address:
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(raw[:4])
    address = ipaddress.IPv6Address(raw)
    return address.ipv4_mapped or address
