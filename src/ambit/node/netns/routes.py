"""The routing that gives captured replies back to the proxy: marked packets are local (table 100).

The proxy delivers to a pod from the client's address; the pod's replies to that address carry the
connection's mark and must not leave the namespace. Numbers are istio-cni's.
"""

import errno
import socket
import struct
from pathlib import Path

from ambit.core.errors import EnvironmentProblem
from ambit.core.names import CONNECTION_MARK, MARK_MASK
from ambit.node.netns import netlink
from ambit.node.netns.enter import in_namespace

TABLE = 100
PRIORITY = 32764
_RTM_NEWROUTE, _RTM_DELROUTE = 24, 25
_RTM_NEWRULE, _RTM_DELRULE = 32, 33
_RTA_OIF, _RTA_TABLE = 4, 15
_FRA_PRIORITY, _FRA_FWMARK, _FRA_FWMASK, _FRA_TABLE = 6, 10, 16, 15
_FR_ACT_TO_TBL, _RTN_LOCAL, _RT_SCOPE_HOST, _RTPROT_STATIC = 1, 2, 254, 4
_MESSAGE = struct.Struct("=BBBBBBBBI")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def ensure(netns: str) -> None:
    """Rule and route exist, once, for both families. Raises EnvironmentProblem."""
    _change_in(netns, _RTM_NEWROUTE, _RTM_NEWRULE)


def remove(netns: str) -> None:
    """Rule and route are gone. Raises EnvironmentProblem."""
    _change_in(netns, _RTM_DELROUTE, _RTM_DELRULE)


def _change_in(netns: str, route: int, rule: int) -> None:
    try:
        in_namespace(Path(netns), lambda: _change(route, rule))
    except OSError as error:
        raise EnvironmentProblem(
            f"routing of captured replies in {netns} cannot be changed: {error.strerror}",
            "the namespace must exist with its loopback interface up, and the agent needs CAP_NET_ADMIN",
        ) from error


def _change(route: int, rule: int) -> None:
    loopback = socket.if_nametoindex("lo")
    for family in _FAMILIES:
        message = _MESSAGE.pack(family, 0, 0, 0, TABLE, _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL, 0)
        body = message + _number(_RTA_OIF, loopback) + _number(_RTA_TABLE, TABLE)
        _apply(route, netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE, body)
        message = _MESSAGE.pack(family, 0, 0, 0, TABLE, 0, 0, _FR_ACT_TO_TBL, 0)
        body = message + b"".join(
            (
                _number(_FRA_PRIORITY, PRIORITY),
                _number(_FRA_FWMARK, CONNECTION_MARK),
                _number(_FRA_FWMASK, MARK_MASK),
                _number(_FRA_TABLE, TABLE),
            )
        )
        _apply(rule, netlink.NLM_F_CREATE | netlink.NLM_F_EXCL, body)


def _apply(kind: int, creation: int, body: bytes) -> None:
    flags = netlink.NLM_F_ACK | (creation if kind in {_RTM_NEWROUTE, _RTM_NEWRULE} else 0)
    try:
        netlink.exchange(socket.NETLINK_ROUTE, kind, flags, body)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOENT, errno.ESRCH, errno.EAFNOSUPPORT}:
            raise


def _number(kind: int, value: int) -> bytes:
    return netlink.attribute(kind, struct.pack("=I", value))
