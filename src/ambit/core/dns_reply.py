"""What a nameserver's reply says about aliases: read, as far as it takes to see whether a chain of CNAMEs ends in an
address.

RFC 1035 4.1.4 (compression) and RFC 1034 3.6.2 (aliases). A reply that cannot be read is handed on as it is,
so nothing here raises: what is not understood is not an unfinished chain.
"""

import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

from ambit.core.dns import CLASS_IN, Record, Type, address_record, label_text

_HEADER = 12
_FIXED = struct.Struct("!HHIH")
_MAX_RECORDS = 256
_MAX_ALIASES = 16
"""Longer chains are loops, or nothing a resolver would follow."""


def unfinished_chain(reply: bytes, name: str) -> tuple[Record, ...]:
    """The aliases that lead from `name` to a name of which the reply has no other record; empty when the reply answers,
    has none, was truncated, or cannot be understood."""
    records = read_answers(reply)
    if records is None or reply[2] & 0x02 or any(each.type != Type.CNAME for each in records):
        return ()
    return chain(records, name)


def chain(records: Iterable[Record], name: str) -> tuple[Record, ...]:
    """Those of the aliases among these records that lead on from `name`, in turn; empty when they are too many."""
    aliases: dict[str, Record] = {}
    for record in records:
        if record.type == Type.CNAME:
            aliases.setdefault(record.name, record)
    found: list[Record] = []
    while name in aliases and len(found) < _MAX_ALIASES:
        record = aliases.pop(name)
        found.append(record)
        name = str(record.data)
    return () if name in aliases else tuple(found)


def read_answers(reply: bytes) -> tuple[Record, ...] | None:
    """The aliases and addresses among a reply's answers; None for what cannot be understood."""
    try:
        return tuple(_answers(reply))
    except (IndexError, struct.error, ValueError):
        return None


def _answers(reply: bytes) -> Iterator[Record]:
    if len(reply) < _HEADER or not reply[2] & 0x80:
        raise ValueError("no reply")
    questions, answers = struct.unpack_from("!HH", reply, 4)
    if questions > 1 or answers > _MAX_RECORDS:
        raise ValueError("more than anybody needs")
    position = _HEADER
    for _ in range(questions):
        _, position = _name(reply, position)
        position += 4
    for _ in range(answers):
        owner, position = _name(reply, position)
        kind, klass, ttl, length = _FIXED.unpack_from(reply, position)
        position += _FIXED.size
        data = reply[position : position + length]
        if len(data) != length:
            raise ValueError("truncated")
        if klass == CLASS_IN and kind == Type.CNAME:
            yield Record(owner, ttl, _name(reply, position)[0], Type.CNAME)
        elif klass == CLASS_IN and kind in (Type.A, Type.AAAA):
            yield address_record(owner, ttl, IPv4Address(data) if kind == Type.A else IPv6Address(data))
        position += length


def _name(data: bytes, position: int) -> tuple[str, int]:
    """The name at `position` and where what follows it begins. Pointers lead backwards only, so it ends."""
    labels: list[str] = []
    behind = -1
    while length := data[position]:
        if length >= 0xC0:
            target = int.from_bytes(data[position : position + 2], "big") & 0x3FFF
            behind = position + 2 if behind < 0 else behind
            if target >= position:
                raise ValueError("a pointer forwards")
            position = target
            continue
        if length > 63 or len(labels) > 127:
            raise ValueError("no name")
        labels.append(label_text(data[position + 1 : position + 1 + length]))
        position += 1 + length
    return ".".join(labels), position + 1 if behind < 0 else behind
