"""The few rtnetlink requests that the fabric needs, as pure byte builders.

Starting `ip` costs several milliseconds for each namespace that it must enter; a batch of these takes one
system call. Layout: `linux/rtnetlink.h`, `linux/if_link.h`.
"""

import errno
import socket
import struct
from collections.abc import Sequence

import msgspec

from ambit.core.address import Address, Network
from ambit.local.fabric import netlink
from ambit.local.fabric.netlink import CREATE, EXCLUSIVE, REPLACE, Message, attribute, text

_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")

_PROTOCOL = 0
_NEW_LINK, _DEL_LINK, _GET_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_NEIGHBOUR = 16, 17, 18, 20, 24, 28

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_NET_NS_FD = (
    1,
    3,
    10,
    18,
    20,
    28,
)
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_UP = 0x1
_MAIN_TABLE, _STATIC = 254, 4
_UNICAST, _UNREACHABLE = 1, 7
_SCOPE_GLOBAL, _SCOPE_LINK = 0, 253
_PERMANENT = 0x80
_NO_DAD = 0x02


class Link(msgspec.Struct, frozen=True):
    """One interface as the kernel lists it. `alias` is empty when none is set."""

    index: int
    name: str
    alias: str


def add_bridge(name: str, address: bytes) -> Message:
    body = _link_body() + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, address)
    body += attribute(_IFLA_LINKINFO, text(_INFO_KIND, "bridge"))
    return Message(_NEW_LINK, CREATE | EXCLUSIVE, body, f"bridge {name}", (errno.EEXIST,))


def add_veth(name: str, address: bytes, peer: str, peer_address: bytes, peer_namespace: int) -> Message:
    """A veth pair; the peer is born in the namespace of the given file descriptor."""
    inner = _link_body() + text(_IFLA_IFNAME, peer) + attribute(_IFLA_ADDRESS, peer_address)
    inner += attribute(_IFLA_NET_NS_FD, struct.pack("=i", peer_namespace))
    information = text(_INFO_KIND, "veth") + attribute(_INFO_DATA, attribute(_VETH_PEER, inner))
    body = _link_body() + text(_IFLA_IFNAME, name) + attribute(_IFLA_ADDRESS, address)
    body += attribute(_IFLA_LINKINFO, information)
    return Message(_NEW_LINK, CREATE | EXCLUSIVE, body, f"veth {name}")


def set_up(index: int, *, master: int = 0) -> Message:
    body = _link_body(index, _UP)
    if master:
        body += attribute(_IFLA_MASTER, struct.pack("=I", master))
    return Message(_NEW_LINK, 0, body, f"interface {index} up")


def set_alias(index: int, alias: str) -> Message:
    body = _link_body(index) + attribute(_IFLA_IFALIAS, alias.encode())
    return Message(_NEW_LINK, 0, body, f"alias of interface {index}")


def delete_link(name: str) -> Message:
    return Message(_DEL_LINK, 0, _link_body() + text(_IFLA_IFNAME, name), f"delete {name}", (errno.ENODEV,))


def add_address(index: int, address: Address, prefix: int) -> Message:
    """Usable at once: duplicate address detection is off."""
    body = _ADDRESS.pack(_family(address), prefix, _NO_DAD, _SCOPE_GLOBAL, index)
    body += attribute(2, address.packed) + attribute(1, address.packed)
    return Message(_NEW_ADDRESS, CREATE | REPLACE, body, f"address {address}/{prefix}")


def add_route(
    destination: Network,
    index: int,
    *,
    gateway: Address | None = None,
    source: Address | None = None,
    on_link: bool = False,
) -> Message:
    """A unicast route. `on_link`: the gateway is taken as reachable though no route says so."""
    scope = _SCOPE_GLOBAL if gateway is not None or destination.version == 6 else _SCOPE_LINK
    flags = 4 if on_link else 0
    body = _route_body(destination, _UNICAST, scope, flags) + attribute(4, struct.pack("=I", index))
    if gateway is not None:
        body += attribute(5, gateway.packed)
    if source is not None:
        body += attribute(7, source.packed)
    return Message(_NEW_ROUTE, CREATE | REPLACE, body, f"route to {destination}")


def refuse_route(destination: Network) -> Message:
    """What no longer specific route takes is answered with "unreachable" at once."""
    body = _route_body(destination, _UNREACHABLE, _SCOPE_GLOBAL, 0)
    return Message(_NEW_ROUTE, CREATE | REPLACE, body, f"unreachable {destination}")


def add_neighbour(index: int, address: Address, link_address: bytes) -> Message:
    """A permanent neighbour: no packet waits for ARP or ND, and no packet can change it."""
    body = _NEIGHBOUR.pack(_family(address), index, _PERMANENT, 0, _UNICAST)
    body += attribute(1, address.packed) + attribute(2, link_address)
    return Message(_NEW_NEIGHBOUR, CREATE | REPLACE, body, f"neighbour {address}")


def send(messages: Sequence[Message]) -> None:
    """Apply the messages in order in the calling thread's namespace. Raises OSError naming the first
    failure."""
    netlink.send(messages, _PROTOCOL)


def links() -> tuple[Link, ...]:
    """The interfaces of the calling thread's namespace. Raises OSError."""
    return tuple(map(_link, netlink.dump(Message(_GET_LINK, 0, _link_body(), "links"), _PROTOCOL)))


def _link(payload: bytes) -> Link:
    index = _LINK.unpack_from(payload)[2]
    found = netlink.attributes(payload[_LINK.size :])
    name = found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
    return Link(index, name, found.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode())


def _link_body(index: int = 0, flags: int = 0) -> bytes:
    return _LINK.pack(0, 0, index, flags, flags)


def _route_body(destination: Network, kind: int, scope: int, flags: int) -> bytes:
    family = _family(destination.network_address)
    body = _ROUTE.pack(family, destination.prefixlen, 0, 0, _MAIN_TABLE, _STATIC, scope, kind, flags)
    if destination.prefixlen:
        body += attribute(1, destination.network_address.packed)
    return body


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
