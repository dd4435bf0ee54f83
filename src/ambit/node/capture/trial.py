"""Whether this kernel can capture without NAT: it is tried in an empty network namespace, which vanishes afterwards.

A pod's rules and routes, with addresses of its own on loopback; a connection to an address that does not exist must
come to the listener, which must see that address.
"""

import contextlib
import ipaddress
import socket
import struct
import subprocess

from ambit.core.errors import EnvironmentProblem
from ambit.core.names import OUTBOUND_MARK, OUTBOUND_PORT
from ambit.node.capture import ruleset
from ambit.node.netns import netlink, nft, steering
from ambit.node.netns.enter import in_own_thread, new_namespace
from ambit.node.netns.transparent import make_transparent

_TIMEOUT = 5.0
_FAR: dict[int, tuple[str, str, str]] = {
    socket.AF_INET: ("127.0.0.1", "192.0.2.2", "192.0.2.1"),
    socket.AF_INET6: ("::1", "2001:db8::2", "2001:db8::1"),
}
"""Loopback, and two documentation addresses (RFC 5737, RFC 3849): the pod's own and one that does not exist."""
_RTM_NEWLINK, _RTM_NEWADDR, _IFF_UP = 16, 20, 1
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_IFA_LOCAL, _IFA_F_NODAD = 2, 2


def problem() -> str:
    """Why it cannot; empty when it can. Blocks for some milliseconds."""
    try:
        return in_own_thread(_try)
    except EnvironmentProblem as found:
        return found.message
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)


def _try() -> str:
    new_namespace()
    up = _LINK.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex("lo"), _IFF_UP, _IFF_UP)
    netlink.exchange(socket.NETLINK_ROUTE, _RTM_NEWLINK, netlink.NLM_F_ACK, up)
    families = [family for family, (loopback, _, _) in _FAR.items() if _has(family, loopback)]
    own = tuple(ipaddress.ip_address(_FAR[family][1]) for family in families)
    for family, address in zip(families, own, strict=True):
        header = _ADDRESS.pack(
            family, address.max_prefixlen, _IFA_F_NODAD, socket.AF_UNSPEC, socket.if_nametoindex("lo")
        )
        body = header + netlink.attribute(_IFA_LOCAL, address.packed)
        netlink.exchange(socket.NETLINK_ROUTE, _RTM_NEWADDR, netlink.NLM_F_ACK | netlink.NLM_F_CREATE, body)
    steering.ensure_here(own)
    nft.load_here(ruleset.redirect(ruleset.Capture(transparent=True, addresses=own)))
    for family in families:
        seen, wanted = _seen(family), _FAR[family][2]
        if seen != wanted:
            return f"a connection to {wanted} came as one to {seen}"
    return ""


def _seen(family: int) -> str:
    """Where the listener thinks that a connection to the far address goes."""
    loopback, _, far = _FAR[family]
    with socket.socket(family, socket.SOCK_STREAM) as server, socket.socket(family) as client:
        make_transparent(server, OUTBOUND_MARK)
        server.bind((loopback, OUTBOUND_PORT))
        server.listen()
        for each in (server, client):
            each.settimeout(_TIMEOUT)
        client.connect((far, 80))
        accepted, _ = server.accept()
        with accepted:
            return str(accepted.getsockname()[0])


def _has(family: int, address: str) -> bool:
    with contextlib.suppress(OSError), socket.socket(family) as probe:
        probe.bind((address, 0))
        return True
    return False
