"""The routing of a pod that is captured without NAT: what it opens is local from the start, so that it arrives on the
loopback interface and can be handed to the proxy there (ip-rule(8), Linux `net/ipv4/fib_frontend.c`).

1. To the host's probe address: as ever, for the pod answers probes directly.
2. What the proxy sends (marked): as ever.
3. Every other TCP of the namespace: table 100, where everything is local. The route names the pod's address, or
   connecting sockets would take their destination for their own address.
   A socket that is bound to an interface (SO_BINDTODEVICE) is given a local route only by way of that one, so each has
   its own; packets take the loopback interface all the same, and the answers count as come by that of their address.
With rules of its own the kernel asks of every packet that arrives whether its source would be reached the same way,
which rule 3 denies, so it must be told to accept that (`accept_local`, and no strict `rp_filter`). What that check kept
out, the pod's own address from outside, `ambit.node.capture.transparent` drops.
What the kernel answers for nobody, a reset, carries the mark of what it answers (`fwmark_reflect`), so it takes the way
of rule 2 out of the pod. Where that cannot be set, such resets are lost, and others' connections wait instead.
"""

import ipaddress
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ambit.core.address import Address
from ambit.core.names import MARK_MASK, PROBE_ADDRESS_V4, PROBE_ADDRESS_V6, PROXY_MARK
from ambit.node.netns import identity, netlink, routes, routing, sysctl
from ambit.node.netns.enter import in_namespace
from ambit.node.netns.routing import Rule

TABLE = routes.TABLE
RULES = (
    *(
        Rule(40, routing.MAIN, to=ipaddress.ip_address(probe))
        for probe in (PROBE_ADDRESS_V4, PROBE_ADDRESS_V6)
    ),
    Rule(50, routing.MAIN, mark=(PROXY_MARK, MARK_MASK)),
    Rule(60, TABLE, own_tcp=True),
)
_KERNELS = frozenset({(0, 255), (32766, 254), (32767, 253)})
"""Rules that every namespace has."""
_RTM_NEWLINK, _IFLA_AF_SPEC, _IFLA_INET_CONF = 16, 26, 1
_LINK = struct.Struct("=BxHiII")
_RP_FILTER, _ACCEPT_LOCAL = 8, 23
_LOOSE = 2
_PORT_RANGE = "net/ipv4/ip_local_port_range"
_PORTS, _SHIFTED = b"32768\t60999", b"32769\t60999"
_INHERITS = "net/ipv4/tcp_fwmark_accept"


def ensure(netns: str, addresses: Collection[Address]) -> None:
    """Rules, routes and settings exist. Raises EnvironmentProblem."""
    routes.change_in(netns, lambda: ensure_here(addresses))


def remove(netns: str) -> None:
    """Rules and routes are gone; the settings stay, which without them mean nothing. Raises EnvironmentProblem."""
    routes.change_in(netns, _remove)


def inherit_marks(netns: str) -> bool:
    """Whether sockets that the namespace accepts have the mark of the first packet, from now on. Blocks briefly."""
    with suppress(OSError):
        in_namespace(Path(netns), lambda: sysctl.write(_INHERITS, b"1"))
        return True
    return False


def shift_ports(netns: str) -> None:
    """What the pod opens from now on comes from odd ports, where the kernel's own range is in use: connect() takes even
    or odd ones, as the range's first port is. Proxies deliver for the pod from even ones. Blocks briefly."""
    _set_ports(netns, _PORTS, _SHIFTED)


def unshift_ports(netns: str) -> None:
    """The contrary of `shift_ports`. Blocks briefly."""
    _set_ports(netns, _SHIFTED, _PORTS)


def is_in_place(netns: str) -> bool:
    """Whether the rules are there. Blocks briefly. Raises EnvironmentProblem."""
    found: dict[int, frozenset[tuple[int, int]]] = {}
    routes.change_in(netns, lambda: found.update(routing.rules()))
    return all(_own(family) <= there for family, there in found.items())


def objection(netns: str, own: Collection[Address]) -> str:
    """Why this namespace cannot be captured like this; empty when it can. Blocks briefly. Raises OSError."""
    for family, found in in_namespace(Path(netns), routing.rules).items():
        foreign = found - _KERNELS - _own(family)
        if foreign:
            return f"somebody else's routing rule {min(foreign)[0]} is there"
    others = identity.addresses(netns) - frozenset(own)
    if others:
        return f"it has another address, {min(map(str, others))}"
    return ""


def ensure_here(addresses: Collection[Address]) -> None:
    """The same in the calling thread's namespace. Raises OSError."""
    interfaces = _interfaces()
    for index in interfaces:
        _accept(index)
    for family, version in zip(routing.FAMILIES, (4, 6), strict=True):
        own = [each for each in addresses if each.version == version]
        for device in ("lo", *interfaces.values()):
            routing.add_local_route(family, TABLE, own[0] if own else None, device)
    for rule in RULES:
        routing.add_rule(rule)
    for version in (4, 6):
        with suppress(OSError):
            sysctl.write(f"net/ipv{version}/fwmark_reflect", b"1")


def _set_ports(netns: str, before: bytes, after: bytes) -> None:
    with suppress(OSError):
        in_namespace(Path(netns), lambda: sysctl.write(_PORT_RANGE, after, only_from=before))


def _own(family: int) -> set[tuple[int, int]]:
    return {(each.priority, each.table) for each in RULES if family in each.families()}


def _remove() -> None:
    for rule in reversed(RULES):
        routing.remove_rule(rule)
    for family in routing.FAMILIES:
        for device in ("lo", *_interfaces().values()):
            routing.remove_local_route(family, TABLE, device)


def _interfaces() -> dict[int, str]:
    """All but loopback, by their numbers."""
    return {index: name for index, name in socket.if_nameindex() if name != "lo"}


def _accept(index: int) -> None:
    """By netlink, because a container's /proc/sys is read-only."""
    wanted = {_ACCEPT_LOCAL: 1}
    if _read("all") == 1 or _read(socket.if_indextoname(index)) == 1:
        wanted[_RP_FILTER] = _LOOSE
    settings = b"".join(netlink.attribute(kind, struct.pack("=I", value)) for kind, value in wanted.items())
    family = netlink.attribute(socket.AF_INET, netlink.attribute(_IFLA_INET_CONF, settings))
    body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + netlink.attribute(_IFLA_AF_SPEC, family)
    netlink.exchange(socket.NETLINK_ROUTE, _RTM_NEWLINK, netlink.NLM_F_ACK, body)


def _read(interface: str) -> int:
    return int(Path(f"/proc/sys/net/ipv4/conf/{interface}/rp_filter").read_text())
