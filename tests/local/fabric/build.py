"""Short words for tests that send packets through a fabric."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from ambit.core.address import Address
from ambit.local.fabric.network import NetnsFabric, _unpin
from ambit.local.layout import NodeAddresses
from ambit.node.netns.enter import in_namespace

PATIENCE = 60
NODES = (NodeAddresses(1), NodeAddresses(2))


@asynccontextmanager
async def fabric(pins: Path) -> AsyncIterator[NetnsFabric]:
    built = NetnsFabric(NODES, pins)
    try:
        await built.prepare()
        yield built
    finally:
        for pin in pins.iterdir():
            _unpin(pin)


def family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def receiver(netns: Path, address: Address, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A bound socket inside the namespace; a listening one for SOCK_STREAM."""

    def make() -> socket.socket:
        made = socket.socket(family(address), kind)
        made.settimeout(PATIENCE)
        made.bind((str(address), 0))
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    return in_namespace(netns, make)


def send(netns: Path, to: tuple[str, int], *, source: str | None = None) -> None:
    """One datagram "x"; a foreign source is given as a raw sender would (IP_FREEBIND, transparent)."""
    version = 6 if ":" in to[0] else 4

    def run() -> None:
        with closing(
            socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
        ) as out:
            if source is not None:
                level, option = (41, 75) if version == 6 else (socket.SOL_IP, 19)
                out.setsockopt(level, option, 1)
                out.bind((source, 0))
            out.sendto(b"x", to)

    in_namespace(netns, run)


def arrives(sock: socket.socket) -> str | None:
    """The source address of the next datagram, None when none came within the socket's time."""
    try:
        return str(sock.recvfrom(100)[1][0])
    except TimeoutError:
        return None


def delivered(
    sock: socket.socket, netns: Path, to: tuple[str, int], *, source: str | None = None
) -> str | None:
    """As `answered`, of a datagram to `to`."""
    return answered(sock, lambda: send(netns, to, source=source))


def answered(sock: socket.socket, ask: Callable[[], object]) -> str | None:
    """What `arrives` of what `ask` sends, again when nothing came: right after a link comes up the kernel may drop a
    datagram (the interface sends nothing before the kernel has worked off its link events)."""
    before = sock.gettimeout()
    sock.settimeout(2)
    try:
        for _ in range(30):
            ask()
            if (found := arrives(sock)) is not None:
                return found
    finally:
        sock.settimeout(before)
    return None
