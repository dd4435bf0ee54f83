"""Bounds what strangers hold of the TLS port: connections on which nobody has shown a valid token.

grpc ends handshakes after 10 s and knows a maximum, but neither whose connections they are nor whether their callers
were believed. So this process looks through its own sockets:

1. Whoever was believed once on a connection keeps it.
2. Others have SILENT seconds; no address has more than PER_PEER of them, and all together at most STRANGERS. The oldest
   go first, of the addresses that have most.
3. With few connections there is nothing to look through.
4. A connection on which FAILURES calls showed no valid token ends, whatever else is open.
"""

import asyncio
import ipaddress
import logging
import os
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from urllib.parse import unquote

import msgspec

from ambit.daemon.logs import event

log = logging.getLogger("ambit.control.guard")

TICK = 0.25
"""Seconds between two looks."""
SILENT = 30.0
PER_PEER = 64
STRANGERS = 512
FAILURES, MOST_FAILING = 16, 4_096
FEW = 128
"""So many open files besides those of known callers are no reason to look at each."""

Peer = tuple[str, int]
"""Address and port of the other end."""


class Limits(msgspec.Struct, frozen=True):
    silent: float = SILENT
    per_peer: int = PER_PEER
    strangers: int = STRANGERS
    few: int = FEW


class ConnectionGuard:
    """`admit` is told of callers that were believed; `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float], limits: Limits = Limits()) -> None:  # noqa: B008 - immutable
        self._clock = clock
        self._limits = limits
        self._known: set[Peer] = set()
        self._seen: dict[Peer, float] = {}
        self._failures: Counter[Peer] = Counter()
        self._failing = False
        self.ended = 0
        """Connections ended so far."""

    def admit(self, peer: str) -> None:
        """A caller, as grpc names the other end (`ipv4:10.0.0.1:4711`), has shown a valid token."""
        found = parse_peer(peer)
        if found is not None:
            self._known.add(found)

    def distrust(self, peer: str) -> None:
        """A call on this connection showed no valid token."""
        found = parse_peer(peer)
        if found is not None and found not in self._known:
            self._failures[found] += 1
            too_many = self._failures[found] >= FAILURES or len(self._failures) > MOST_FAILING
            self._failing = self._failing or too_many

    async def run(self, port: int) -> None:
        """Look after the connections of this port until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            files = len(os.listdir("/proc/self/fd"))
            if len(self._known) > files:
                # Connections that have closed must not hide those of strangers.
                self._known &= dict(_connections(port)).keys()
            if self._failing or files > self._limits.few + len(self._known):
                self.look(port)

    def look(self, port: int) -> int:
        """End what is too much now; how many those were."""
        open_now = dict(_connections(port))
        now = self._clock()
        self._known &= open_now.keys()
        self._seen = {peer: self._seen.get(peer, now) for peer in open_now if peer not in self._known}
        failed = {peer for peer, count in self._failures.items() if count >= FAILURES}
        condemned = {*surplus(self._seen, now, self._limits), *failed & self._seen.keys()}
        self._failures.clear()
        self._failing = False
        ended = sum(_end(open_now[peer], peer, port) for peer in condemned)
        self.ended += ended
        if ended:
            event(log, logging.WARNING, "connections of strangers ended", count=ended, open=len(open_now))
        return ended


def surplus(seen: Mapping[Peer, float], now: float, limits: Limits) -> Collection[Peer]:
    """Which of the strangers' connections must go; `seen` is when each was first noticed. Pure."""
    by_address: dict[str, list[Peer]] = defaultdict(list)
    for peer in sorted(seen, key=lambda peer: (-seen[peer], peer)):
        if now - seen[peer] < limits.silent:
            by_address[peer[0]].append(peer)
    ranked = [
        (rank, -seen[peer], peer) for several in by_address.values() for rank, peer in enumerate(several)
    ]
    kept = {peer for rank, _, peer in sorted(ranked)[: limits.strangers] if rank < limits.per_peer}
    return seen.keys() - kept


def parse_peer(peer: str) -> Peer | None:
    """Address and port in grpc's words; None for what is no TCP peer."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    try:
        return _plain(host.strip("[]")), int(port)
    except ValueError:
        return None


def _plain(host: str) -> str:
    """One spelling for each address: sockets of both families show IPv4 in IPv6's clothes."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _connections(port: int) -> Iterator[tuple[Peer, int]]:
    """The other end and the descriptor of each connection that this process has accepted on `port`."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                yield from ((peer, int(name)) for peer in _peers(int(name), port))


def _peers(descriptor: int, port: int) -> Iterable[Peer]:
    """None or one. Raises OSError for what is not connected, or gone."""
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if duplicate.family not in (socket.AF_INET, socket.AF_INET6) or duplicate.getsockname()[1] != port:
            return ()
        host, number = duplicate.getpeername()[:2]
        return ((_plain(host), number),)


def _end(descriptor: int, peer: Peer, port: int) -> bool:
    """Ends the connection, unless the descriptor is another's by now: grpc closes its own."""
    try:
        if peer not in _peers(descriptor, port):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True
