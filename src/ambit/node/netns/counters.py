"""Named nftables counters of a namespace, read over netlink: starting nft for each of 250 pods whenever metrics are
asked for would cost more than all other metrics (linux/netfilter/nf_tables.h)."""

import errno
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ambit.node.netns.enter import in_namespace
from ambit.node.netns.netlink import NLM_F_DUMP, attribute, attributes, exchange

_NETLINK_NETFILTER = 12
_GET_OBJECTS = 10 << 8 | 19
_INET = struct.pack("=BBH", 1, 0, 0)
_TABLE, _NAME, _TYPE, _DATA = 1, 2, 3, 4
_COUNTER = struct.pack(">I", 1)
_BYTES, _PACKETS = 1, 2


class Count(msgspec.Struct, frozen=True):
    """What a counter counted."""

    packets: int = 0
    bytes: int = 0


def read(netns: str, table: str) -> Mapping[str, Count]:
    """The counters of the inet table by name; none when there is no such table. Blocks for less than a millisecond.
    Raises OSError."""
    asked = _INET + attribute(_TABLE, table.encode() + b"\0") + attribute(_TYPE, _COUNTER)
    try:
        answers = in_namespace(
            Path(netns), lambda: exchange(_NETLINK_NETFILTER, _GET_OBJECTS, NLM_F_DUMP, asked)
        )
    except OSError as problem:
        if problem.errno == errno.ENOENT and problem.filename is None:
            return {}
        raise
    found: dict[str, Count] = {}
    for answer in answers:
        fields = attributes(answer[len(_INET) :])
        # An older kernel does not filter by table.
        if fields.get(_TABLE, b"").rstrip(b"\0") == table.encode():
            data = attributes(fields.get(_DATA, b""))
            name = fields.get(_NAME, b"").rstrip(b"\0").decode()
            found[name] = Count(_number(data.get(_PACKETS)), _number(data.get(_BYTES)))
    return found


def _number(value: bytes | None) -> int:
    return int.from_bytes(value or b"", "big")
