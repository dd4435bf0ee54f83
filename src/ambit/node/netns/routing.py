"""Rules of policy routing and local routes of the calling thread's network namespace, as rtnetlink takes them
(ip-rule(8), Linux `fib_rules.h` and `rtnetlink.h`)."""

import errno
import socket
import struct
from collections.abc import Iterator

import msgspec

from ambit.core.address import Address
from ambit.node.netns import netlink

MAIN = 254
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWRULE, _RTM_DELRULE, _RTM_GETRULE = 32, 33, 34
_RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 4, 6, 7, 15
_FRA_DST, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK, _FRA_TABLE, _FRA_FWMASK, _FRA_IP_PROTO = (
    1, 3, 6, 10, 15, 16, 22,
)  # fmt: skip
_FR_ACT_TO_TBL, _RTN_LOCAL, _RT_SCOPE_HOST, _RTPROT_STATIC = 1, 2, 254, 4
_MESSAGE = struct.Struct("=BBBBBBBBI")
_HARMLESS = frozenset({errno.EEXIST, errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT})
_AFTER_LOOPBACK = 2048
"""More than what IPv6 gives a route that says nothing (1024)."""
FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Rule(msgspec.Struct, frozen=True):
    """One rule: what it matches leads to `table`. `own_tcp`: TCP that starts in this namespace."""

    priority: int
    table: int
    mark: tuple[int, int] | None = None
    to: Address | None = None
    own_tcp: bool = False

    def families(self) -> tuple[int, ...]:
        """Those that the rule is about."""
        if self.to is None:
            return FAMILIES
        return (socket.AF_INET if self.to.version == 4 else socket.AF_INET6,)


def add_rule(rule: Rule) -> None:
    """The rule exists, once, for each of its families. Raises OSError."""
    for family in rule.families():
        _change(_RTM_NEWRULE, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, _rule(family, rule))


def remove_rule(rule: Rule) -> None:
    """The rule is gone. Raises OSError."""
    for family in rule.families():
        _change(_RTM_DELRULE, 0, _rule(family, rule))


def rules() -> dict[int, frozenset[tuple[int, int]]]:
    """Priority and table of every rule of the namespace, by those families that it has. Raises OSError."""
    found = {family: frozenset(_rules(family)) for family in FAMILIES}
    return {family: each for family, each in found.items() if each}


def add_local_route(family: int, table: int, source: Address | None = None, device: str = "lo") -> None:
    """In `table` everything is on this host, by way of the loopback interface; what is opened on that way gets the
    address `source`. With another `device`: for sockets that are bound to that one, which find no other route. Without
    IPv6 there (sysctl `disable_ipv6`, as in clusters of IPv4 only) nothing needs the way. Raises OSError."""
    body = _route(family, table, device)
    if source is not None:
        body += netlink.attribute(_RTA_PREFSRC, source.packed)
    try:
        _change(_RTM_NEWROUTE, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, body)
    except OSError as error:
        # Linux net/ipv6/route.c; a missing capability would be EPERM.
        if family != socket.AF_INET6 or error.errno != errno.EACCES:
            raise


def remove_local_route(family: int, table: int, device: str = "lo") -> None:
    """That route is gone. Raises OSError."""
    _change(_RTM_DELROUTE, 0, _route(family, table, device))


def _rules(family: int) -> Iterator[tuple[int, int]]:
    request = _MESSAGE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
    try:
        answers = netlink.exchange(socket.NETLINK_ROUTE, _RTM_GETRULE, netlink.NLM_F_DUMP, request)
    except OSError as error:
        if error.errno in _HARMLESS:
            return
        raise
    for answer in answers:
        found = netlink.attributes(answer[_MESSAGE.size :])
        yield tuple(struct.unpack("=I", found.get(kind, bytes(4)))[0] for kind in (_FRA_PRIORITY, _FRA_TABLE))


def _rule(family: int, rule: Rule) -> bytes:
    length = rule.to.max_prefixlen if rule.to is not None else 0
    table = rule.table if rule.table < 256 else 0
    body = _MESSAGE.pack(family, length, 0, 0, table, 0, 0, _FR_ACT_TO_TBL, 0)
    body += _number(_FRA_PRIORITY, rule.priority) + _number(_FRA_TABLE, rule.table)
    if rule.mark is not None:
        body += _number(_FRA_FWMARK, rule.mark[0]) + _number(_FRA_FWMASK, rule.mark[1])
    if rule.to is not None:
        body += netlink.attribute(_FRA_DST, rule.to.packed)
    if rule.own_tcp:
        body += netlink.attribute(_FRA_IIFNAME, b"lo\0")
        body += netlink.attribute(_FRA_IP_PROTO, bytes([socket.IPPROTO_TCP]))
    return body


def _route(family: int, table: int, device: str) -> bytes:
    message = _MESSAGE.pack(family, 0, 0, 0, table, _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL, 0)
    message += _number(_RTA_OIF, socket.if_nametoindex(device)) + _number(_RTA_TABLE, table)
    return message if device == "lo" else message + _number(_RTA_PRIORITY, _AFTER_LOOPBACK)


def _change(kind: int, creation: int, body: bytes) -> None:
    try:
        netlink.exchange(socket.NETLINK_ROUTE, kind, netlink.NLM_F_ACK | creation, body)
    except OSError as error:
        if error.errno not in _HARMLESS:
            raise


def _number(kind: int, value: int) -> bytes:
    return netlink.attribute(kind, struct.pack("=I", value))
