"""Which namespace a path leads to, and which addresses live in it: checked before a pod's identity is
bound."""

import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from ambit.core.address import Address
from ambit.core.errors import EnvironmentProblem
from ambit.node.netns import netlink
from ambit.node.netns.enter import in_namespace

_RTM_GETADDR = 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_HEADER = struct.Struct("=BBBBI")
_SCOPE_UNIVERSE = 0


class NamespaceId(msgspec.Struct, frozen=True):
    """Device and inode: equal only for the same living namespace."""

    device: int
    inode: int


def identify(netns: str) -> NamespaceId:
    """The namespace at this path. Raises EnvironmentProblem when there is none."""
    try:
        found = os.stat(netns)
    except OSError as error:
        raise EnvironmentProblem(f"network namespace {netns} is gone: {error.strerror}") from error
    own = os.stat("/proc/self/ns/net")
    if found.st_dev != own.st_dev:
        raise EnvironmentProblem(f"{netns} is no network namespace")
    if found.st_ino == own.st_ino:
        raise EnvironmentProblem(
            f"{netns} is the agent's own network namespace", "a pod with hostNetwork cannot be enrolled"
        )
    return NamespaceId(found.st_dev, found.st_ino)


def addresses(netns: str) -> frozenset[Address]:
    """Global addresses of all interfaces in the namespace, except loopback and link-local. Raises OSError."""
    return in_namespace(Path(netns), _addresses)


def interfaces(netns: str, wanted: Collection[Address]) -> frozenset[str]:
    """Names of the interfaces that have one of these addresses. Raises OSError."""
    return in_namespace(
        Path(netns),
        lambda: frozenset(socket.if_indextoname(index) for index, each in _assigned() if each in wanted),
    )


def _addresses() -> frozenset[Address]:
    return frozenset(address for _, address in _assigned())


def _assigned() -> Iterator[tuple[int, Address]]:
    """Interface and global address."""
    request = _HEADER.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    for answer in netlink.exchange(socket.NETLINK_ROUTE, _RTM_GETADDR, netlink.NLM_F_DUMP, request):
        _, _, _, scope, index = _HEADER.unpack_from(answer)
        values = netlink.attributes(answer[_HEADER.size :])
        raw = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))
        if raw is not None and scope == _SCOPE_UNIVERSE:
            yield index, ipaddress.ip_address(raw)
