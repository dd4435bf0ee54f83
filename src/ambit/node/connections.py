"""What is open in a pod's namespace now: told from its sockets, so it does not depend on what anybody reported.

A connection of an enrolled pod shows in its namespace as (redirection keeps addresses and gives the proxy the other
end):
1. opened by the pod: the pod's socket to the original destination, and the proxy's on loopback, port 15001, whose
   peer is the pod's (connection tracking knows, when the pod's port had to be changed);
2. accepted by the pod: the proxy's socket from the client's address (marked), and the pod's whose peer is that. So
   tunnelled, plaintext and from the same node alike;
3. plaintext from others has also what the proxy accepted on port 15006, with the client's own port.
Of a pod that is captured without NAT the proxy's ends have the original destination for their own address, and tell by
their mark which listener accepted them.
A socket of the pod (unmarked, neither end on loopback) that has no other end here is **pre-mesh**: opened before the
pod was enrolled. To rule out what lost its other end since, only sockets count that were there at enrolment, known by
their kernel's cookies; that also holds after a restart of the agent.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TypeAlias

import msgspec

from ambit.core.address import Address
from ambit.core.names import (
    DIRECT_MARK,
    DNS_MARK,
    INBOUND_PLAINTEXT_PORT,
    MARK_MASK,
    OUTBOUND_MARK,
    OUTBOUND_PORT,
    PLAINTEXT_MARK,
    PROXY_MARK,
    RESERVED_PORTS,
)
from ambit.node.netns import conntrack, sockets
from ambit.node.netns.conntrack import Accepted, End
from ambit.node.netns.sockets import Socket
from ambit.plan.values import LocalPod

_ACCEPTED_MARKS = frozenset({OUTBOUND_MARK, PLAINTEXT_MARK, DNS_MARK})
_USUAL_EPHEMERAL = range(32768, 61000)
_Ends: TypeAlias = tuple[Address | int, ...]


class Connection(msgspec.Struct, frozen=True):
    """One connection; destroying `socket` ends it."""

    client: Address
    client_port: int
    destination: Address
    destination_port: int
    socket: Socket

    @property
    def reached(self) -> tuple[Address, Address, int]:
        """Who reached what; the client's port is another on each side of the proxy."""
        return self.client, self.destination, self.destination_port


class Open(msgspec.Struct, frozen=True):
    """A pod's open connections. `delivered` came through a tunnel or from a pod of this node, `plaintext` came as
    it is; an inbound one's client port in `delivered` is the proxy's choice."""

    outbound: tuple[Connection, ...] = ()
    delivered: tuple[Connection, ...] = ()
    plaintext: tuple[Connection, ...] = ()
    pre_mesh_inbound: tuple[Connection, ...] = ()
    pre_mesh_outbound: tuple[Connection, ...] = ()

    @property
    def pre_mesh(self) -> frozenset[int]:
        """The cookies of what is older than the mesh."""
        return frozenset(each.socket.cookie for each in (*self.pre_mesh_inbound, *self.pre_mesh_outbound))


def look(pod: LocalPod, before: Collection[int] = ()) -> Open:
    """What is open now; `before` are the cookies of what was there at enrolment. Blocks. Raises OSError."""
    found = sockets.listing(pod.netns, sockets.OPEN | sockets.OPENING | sockets.LISTENING)
    return sorted_out(
        found,
        frozenset(pod.addresses),
        frozenset(before),
        conntrack.redirected(pod.netns, asked) if (asked := _ends_to_track(found)) else {},
        _ephemeral(pod.netns) if before else _USUAL_EPHEMERAL,
    )


def cookies(netns: str, own: Collection[Address]) -> tuple[int, ...]:
    """The pod's own sockets of this moment that may be older than the mesh, also those that are just opening.
    Blocks. Raises OSError."""
    found = sockets.listing(netns, sockets.OPEN | sockets.OPENING)
    return tuple(sorted(each.cookie for each in found if _is_of_the_pod(each, own)))


def proxys_ends(netns: str, own: Collection[Address]) -> tuple[Socket, ...]:
    """The proxy's ends of connections with the pod itself, accepted and dialled, with their queues. Blocks. Raises
    OSError."""
    return tuple(
        each
        for each in sockets.listing(netns, moved=True)
        if _is_outbound(each)
        or _is_plaintext(each)
        or (each.peer in own and each.local not in own and not each.local.is_loopback)
    )


def accepted_outbound(netns: str) -> frozenset[int]:
    """Cookies of the proxy's ends of what the pod opened. Blocks. Raises OSError."""
    return frozenset(each.cookie for each in sockets.listing(netns) if _is_outbound(each))


def sorted_out(
    found: Collection[Socket],
    own: Collection[Address],
    before: Collection[int] = (),
    tracked: Mapping[Accepted, tuple[End, End]] = {},
    ephemeral: range = _USUAL_EPHEMERAL,
) -> Open:
    """The sockets of a namespace as connections of the pod with the addresses `own`. `tracked`: who opened what the
    proxy accepted, and where to (`conntrack.redirected`). Pure."""
    listened = {each.local_port for each in found if each.state == sockets.LISTENS}
    ends = [each for each in found if each.state != sockets.LISTENS]
    accepted = {_pods_end(each): each for each in ends if _is_outbound(each)}
    delivered = {
        (each.local, each.local_port, each.peer, each.peer_port): _from_local(each)
        for each in ends
        if each.peer in own
        and each.local not in own
        and not each.local.is_loopback
        and each.mark not in _ACCEPTED_MARKS
    }
    outbound, incoming, outgoing = [], [], []
    for each in ends:
        if not _is_of_the_pod(each, own) or _reversed(each) in delivered:
            continue
        if _taken(accepted, each):
            outbound.append(_from_local(each))
        elif each.cookie not in before:
            continue
        elif each.local_port in listened or each.local_port not in ephemeral:
            # The kernel does not say who opened a connection; a server's port is listened on or chosen by somebody.
            incoming.append(_from_peer(each, (each.local, each.local_port)))
        else:
            outgoing.append(_from_local(each))
    outbound += _whole(accepted.values(), tracked)
    plaintext = _whole((each for each in ends if _is_plaintext(each)), tracked)
    return Open(
        outbound=tuple(outbound),
        delivered=_without(delivered.values(), plaintext),
        plaintext=tuple(plaintext),
        pre_mesh_inbound=tuple(incoming),
        pre_mesh_outbound=tuple(outgoing),
    )


def _ends_to_track(found: Collection[Socket]) -> list[tuple[End, End]]:
    """Both ends of what the proxy accepted, where the sockets alone do not say everything."""
    local = {(each.local, each.local_port) for each in found}
    return [
        ((each.local, each.local_port), (each.peer, each.peer_port))
        for each in found
        if each.mark not in _ACCEPTED_MARKS
        and (_is_plaintext(each) or (_is_outbound(each) and (each.peer, each.peer_port) not in local))
    ]


def _without(delivered: Collection[Connection], plaintext: Collection[Connection]) -> tuple[Connection, ...]:
    """What the proxy delivered, without its second half of the plaintext connections."""
    halves = Counter(each.reached for each in plaintext)
    kept = []
    for each in delivered:
        if halves[each.reached] > 0:
            halves[each.reached] -= 1
        else:
            kept.append(each)
    return tuple(kept)


def _is_of_the_pod(end: Socket, own: Collection[Address]) -> bool:
    return (
        end.local in own
        and end.peer not in own
        and not end.peer.is_loopback
        and (end.mark & MARK_MASK != PROXY_MARK or end.mark == DIRECT_MARK)
        and end.local_port not in RESERVED_PORTS
    )


def _is_outbound(end: Socket) -> bool:
    if end.state == sockets.LISTENS:
        return False
    return end.mark == OUTBOUND_MARK or end.local_port == OUTBOUND_PORT


def _is_plaintext(end: Socket) -> bool:
    if end.state == sockets.LISTENS:
        return False
    return end.mark == PLAINTEXT_MARK or (end.mark == 0 and end.local_port == INBOUND_PLAINTEXT_PORT)


def _pods_end(end: Socket) -> _Ends:
    """How the pod's own end of what the proxy accepted is called in `accepted`: with NAT its destination is unknown."""
    return (end.peer, end.peer_port, *((end.local, end.local_port) if end.mark == OUTBOUND_MARK else ()))


def _taken(accepted: dict[_Ends, Socket], end: Socket) -> bool:
    """Whether the proxy has the other end of this one; it is taken out."""
    own = end.local, end.local_port
    return any(accepted.pop(each, None) is not None for each in (own, (*own, end.peer, end.peer_port)))


def _whole(found: Iterable[Socket], tracked: Mapping[Accepted, tuple[End, End]]) -> list[Connection]:
    """What the proxy accepted, where it is known who opened it and to where."""
    return [
        _from_peer(each, (each.local, each.local_port))
        if each.mark in _ACCEPTED_MARKS
        else _tracked(each, tracked)
        for each in found
        if each.mark in _ACCEPTED_MARKS or _accepted(each) in tracked
    ]


def _reversed(end: Socket) -> tuple[Address, int, Address, int]:
    return end.peer, end.peer_port, end.local, end.local_port


def _accepted(end: Socket) -> Accepted:
    return end.local_port, end.peer, end.peer_port


def _tracked(end: Socket, tracked: Mapping[Accepted, tuple[End, End]]) -> Connection:
    client, destination = tracked[_accepted(end)]
    return Connection(*client, *destination, end)


def _from_local(end: Socket) -> Connection:
    return Connection(end.local, end.local_port, end.peer, end.peer_port, end)


def _from_peer(end: Socket, destination: End) -> Connection:
    return Connection(end.peer, end.peer_port, *destination, end)


def _ephemeral(netns: str) -> range:
    with suppress(OSError, ValueError):
        return sockets.ephemeral_ports(netns)
    return _USUAL_EPHEMERAL
