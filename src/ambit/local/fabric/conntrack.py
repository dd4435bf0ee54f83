"""Forgetting UDP flows that lead to an endpoint which is gone.

The kernel keeps a flow's translation for as long as packets come, so a client that never closes its socket
would send to a dead pod for ever; kube-proxy cuts such flows too. TCP needs no help: its peer is gone and
says so. Layout: `linux/netfilter/nfnetlink_conntrack.h`.
"""

import errno
import socket
import struct
from collections.abc import Set as AbstractSet

from ambit.local.fabric import netlink
from ambit.local.fabric.netlink import Message
from ambit.local.fabric.service_table import Target

_PROTOCOL = 12
_GET, _DELETE = 0x101, 0x102
_ORIGINAL, _REPLY = 1, 2
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SOURCE_V4, _SOURCE_V6 = 1, 3
_NUMBER, _SOURCE_PORT = 1, 2
_GENERIC = struct.Struct("=BBH")


def forget_udp(targets: AbstractSet[Target]) -> int:
    """Delete the calling thread's namespace's UDP flows to these places; how many. Raises OSError."""
    doomed: list[Message] = []
    for version in {target.address.version for target in targets}:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        listed = netlink.dump(Message(_GET, 0, _GENERIC.pack(family, 0, 0), "UDP flows"), _PROTOCOL)
        places = {(target.address.packed, target.port) for target in targets}
        for body in listed:
            flow = netlink.attributes(body[_GENERIC.size :])
            if _answering(flow.get(_REPLY, b"")) in places:
                original = netlink.attribute(_ORIGINAL | netlink.NESTED, flow[_ORIGINAL])
                request = _GENERIC.pack(family, 0, 0) + original
                doomed.append(Message(_DELETE, 0, request, "UDP flow", (errno.ENOENT,)))
    netlink.send(doomed, _PROTOCOL)
    return len(doomed)


def _answering(reply: bytes) -> tuple[bytes, int] | None:
    """Who answers a UDP flow, from the tuple of its answers; None for other protocols."""
    parts = netlink.attributes(reply)
    place = netlink.attributes(parts.get(_TUPLE_IP, b""))
    transport = netlink.attributes(parts.get(_TUPLE_PROTO, b""))
    address = place.get(_SOURCE_V4) or place.get(_SOURCE_V6)
    port = transport.get(_SOURCE_PORT)
    if address is None or port is None or transport.get(_NUMBER) != bytes((socket.IPPROTO_UDP,)):
        return None
    return address, int.from_bytes(port, "big")
