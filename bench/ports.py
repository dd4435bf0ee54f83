"""Ports of this machine for servers that are started a moment later."""

import socket
from contextlib import closing, suppress
from random import SystemRandom

PORTS = range(22_000, 32_000)
"""Below those that the kernel gives to who asks for any (`net.ipv4.ip_local_port_range`, from 32,768)."""

_kept: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody has, of TCP or UDP, and that this function gives to no other process until this one ends.

    Raises OSError when none is found.
    """
    return free_ports(1)


def free_ports(count: int) -> int:
    """As `free_port`, the first of so many in a row. Raises OSError when none are found."""
    places = PORTS[:-count:count]
    for first in SystemRandom().sample(places, min(1000, len(places))):
        if all(_is_free(port) and _is_kept(port) for port in range(first, first + count)):
            return first
    raise OSError(f"no {count} ports in a row were found free between {PORTS.start} and {PORTS.stop}")


def _is_free(port: int) -> bool:
    with (
        closing(socket.socket()) as stream,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams,
        suppress(OSError),
    ):
        stream.bind(("", port))
        datagrams.bind(("", port))
        return True
    return False


def _is_kept(port: int) -> bool:
    """Whether it is ours now: a name among abstract sockets has one owner, and goes with its process."""
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        mark.bind(f"\0ambit-bench-port-{port}")
    except OSError:
        mark.close()
        return False
    _kept.append(mark)
    return True
