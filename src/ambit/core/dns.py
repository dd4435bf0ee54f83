"""DNS messages as far as servers of cluster names need them: read a query, write a reply.

RFC 1035 (messages, names, compression), RFC 2782 (SRV), RFC 3596 (AAAA), RFC 6891 (EDNS). Names are text
without the final dot, ASCII letters in lower case; a dot or backslash inside a label is escaped. The question
is echoed byte for byte, so a resolver that varies the case of its questions recognises its answer.
"""

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

import msgspec

_HEADER = struct.Struct("!HHHHHH")
_FIXED = struct.Struct("!HHIH")
_QUESTION = struct.Struct("!HH")
_POINTER_TO_QUESTION = b"\xc0\x0c"
_MAX_NAME = 255

CLASS_IN = 1
CLASS_ANY = 255
MIN_UDP = 512
MAX_UDP = 4096
"""Bytes of a UDP reply: without EDNS, and the most we send with it (the networks here are local)."""
MAX_TCP = 65535


class Type(IntEnum):
    """Record types that are understood here; questions may carry any other number."""

    A = 1
    CNAME = 5
    SOA = 6
    PTR = 12
    AAAA = 28
    SRV = 33
    OPT = 41
    ANY = 255


class Rcode(IntEnum):
    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class Malformed(ValueError):
    """The bytes are not a query that can be answered."""


class Query(msgspec.Struct, frozen=True):
    """One question. `question` is its wire form; `udp_size` is None without EDNS, whose version is 0 (RFC 6891)
    unless the client is newer than that: it gets BADVERS."""

    identifier: int
    opcode: int
    recursion_desired: bool
    checking_disabled: bool
    name: str
    type: int
    klass: int
    question: bytes
    udp_size: int | None = None
    edns_version: int = 0

    @property
    def reply_limit(self) -> int:
        """Bytes that a UDP reply may have."""
        return MIN_UDP if self.udp_size is None else max(MIN_UDP, min(self.udp_size, MAX_UDP))


class Srv(msgspec.Struct, frozen=True):
    priority: int
    weight: int
    port: int
    target: str


class Soa(msgspec.Struct, frozen=True):
    server: str
    mailbox: str
    serial: int
    refresh: int
    retry: int
    expire: int
    minimum: int


class Record(msgspec.Struct, frozen=True):
    """A record of class IN; the kind of `data` decides its type, text being a CNAME unless `type` says
    PTR."""

    name: str
    ttl: int
    data: IPv4Address | IPv6Address | str | Srv | Soa
    type: Type


def address_record(name: str, ttl: int, address: IPv4Address | IPv6Address) -> Record:
    return Record(name, ttl, address, Type.A if address.version == 4 else Type.AAAA)


def parse_query(data: bytes) -> Query:
    """The query in these bytes. Raises Malformed."""
    if len(data) < _HEADER.size:
        raise Malformed("shorter than a header")
    identifier, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(data)
    if flags & 0x8000:
        raise Malformed("not a query but a reply")
    if questions != 1:
        raise Malformed(f"{questions} questions")
    try:
        name, position = _read_name(data, _HEADER.size)
        kind, klass = _QUESTION.unpack_from(data, position)
        position += _QUESTION.size
        question = data[_HEADER.size : position]
        size, version = _read_edns(data, position, answers + authorities, additionals)
    except (IndexError, struct.error) as error:
        raise Malformed("truncated") from error
    return Query(
        identifier=identifier,
        opcode=flags >> 11 & 15,
        recursion_desired=bool(flags & 0x0100),
        checking_disabled=bool(flags & 0x0010),
        name=name,
        type=kind,
        klass=klass,
        question=question,
        udp_size=size,
        edns_version=version,
    )


def encode_query(name: str, kind: int, identifier: int = 0) -> bytes:
    """A plain recursive query of class IN. Raises Malformed when the name is none."""
    header = _HEADER.pack(identifier, 0x0100, 1, 0, 0, 0)
    return header + _plain_name(name) + _QUESTION.pack(kind, CLASS_IN)


def encode_reply(
    query: Query,
    rcode: Rcode = Rcode.NOERROR,
    answers: Sequence[Record] = (),
    *,
    authorities: Sequence[Record] = (),
    additionals: Sequence[Record] = (),
    authoritative: bool = False,
    limit: int = MAX_TCP,
) -> bytes:
    """The reply, recursion available. What exceeds `limit` bytes is left out; missing answers set TC."""
    writer = _Writer(query, limit - (11 if query.udp_size is not None else 0))
    kept = writer.add(answers)
    complete = kept == len(answers)
    named = writer.add(authorities) if complete else 0
    extra = writer.add(additionals) if complete else 0
    flags = 0x8000 | query.opcode << 11 | 0x0080 | rcode & 15
    flags |= 0x0400 if authoritative else 0
    flags |= 0 if complete else 0x0200
    flags |= 0x0100 if query.recursion_desired else 0
    flags |= 0x0010 if query.checking_disabled else 0
    body = writer.body
    if query.udp_size is not None:
        body += b"\0" + _FIXED.pack(Type.OPT, MAX_UDP, rcode >> 4 << 24, 0)
        extra += 1
    return _HEADER.pack(query.identifier, flags, 1, kept, named, extra) + bytes(body)


def error_reply(data: bytes, rcode: Rcode) -> bytes | None:
    """A bare error for bytes that `parse_query` refused; None where an answer could make a loop."""
    if len(data) < _HEADER.size or data[2] & 0x80:
        return None
    flags = 0x8080 | (data[2] & 0x79) << 8 | rcode
    return _HEADER.pack(int.from_bytes(data[:2], "big"), flags, 0, 0, 0, 0)


class _Writer:
    """Appends records, each name pointing to an earlier one that ends the same."""

    def __init__(self, query: Query, limit: int) -> None:
        self.body = bytearray(query.question)
        self._room = limit - _HEADER.size
        self._offsets = {query.name: _HEADER.size} if query.name else {}
        self._question = query.name

    def add(self, records: Iterable[Record]) -> int:
        """How many of the records fitted, in order."""
        count = 0
        for record in records:
            mark, known = len(self.body), dict(self._offsets)
            self._record(record)
            if len(self.body) > self._room:
                del self.body[mark:]
                self._offsets = known
                break
            count += 1
        return count

    def _record(self, record: Record) -> None:
        self._name(record.name)
        start = len(self.body)
        self.body += _FIXED.pack(record.type, CLASS_IN, record.ttl, 0)
        match record.data:
            case IPv4Address() | IPv6Address():
                self.body += record.data.packed
            case str():
                self._name(record.data)
            case Srv(priority, weight, port, target):
                self.body += struct.pack("!HHH", priority, weight, port) + _plain_name(target)
            case Soa() as soa:
                self._name(soa.server)
                self._name(soa.mailbox)
                self.body += struct.pack(
                    "!IIIII", soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum
                )
        struct.pack_into("!H", self.body, start + 8, len(self.body) - start - _FIXED.size)

    def _name(self, name: str) -> None:
        if name == self._question and name:
            self.body += _POINTER_TO_QUESTION
            return
        rest = name
        while rest:
            offset = self._offsets.get(rest)
            if offset is not None:
                self.body += (0xC000 | offset).to_bytes(2, "big")
                return
            position = len(self.body) + _HEADER.size
            if position < 0x4000:
                self._offsets[rest] = position
            label, rest = _split_label(rest)
            self.body += bytes((len(label),)) + label
        self.body.append(0)


def _plain_name(name: str) -> bytes:
    encoded = bytearray()
    rest = name
    while rest:
        label, rest = _split_label(rest)
        encoded += bytes((len(label),)) + label
    if len(encoded) >= _MAX_NAME:
        raise Malformed(f"{name!r} is too long for a name")
    return bytes(encoded) + b"\0"


def _split_label(name: str) -> tuple[bytes, str]:
    """The first label and the rest of the name."""
    if "\\" in name:
        position = 0
        while position < len(name) and name[position] != ".":
            position += 2 if name[position] == "\\" else 1
        text, rest = name[:position], name[position + 1 :]
        text = text.replace("\\.", ".").replace("\\\\", "\\")
    else:
        text, _, rest = name.partition(".")
    label = text.encode("latin-1", "replace")
    if not 0 < len(label) < 64:
        raise Malformed(f"{name!r} has a label of {len(label)} bytes")
    return label, rest


def _read_name(data: bytes, position: int) -> tuple[str, int]:
    """The name at `position` and where it ends. A question may not point elsewhere. Raises Malformed."""
    labels: list[str] = []
    size = 1
    while length := data[position]:
        if length > 63:
            raise Malformed("a compressed name in a question")
        label = data[position + 1 : position + 1 + length]
        if len(label) != length:
            raise Malformed("truncated")
        position += 1 + length
        size += 1 + length
        if size > _MAX_NAME:
            raise Malformed("a name longer than 255 bytes")
        labels.append(label_text(label))
    return ".".join(labels), position + 1


def label_text(label: bytes) -> str:
    """A label as it stands in a name: ASCII letters in lower case, dots and backslashes escaped."""
    text = label.lower().decode("latin-1")
    if "." in text or "\\" in text:
        text = text.replace("\\", "\\\\").replace(".", "\\.")
    return text


def _read_edns(data: bytes, position: int, skipped: int, additionals: int) -> tuple[int | None, int]:
    """The size an OPT record offers, None without one, and its version. Raises Malformed."""
    size: int | None = None
    version = 0
    for number in range(skipped + additionals):
        start = position
        while length := data[position]:
            if length >= 0xC0:
                position += 1
                break
            if length > 63:
                raise Malformed("an unknown kind of label")
            position += 1 + length
        position += 1
        kind, klass, ttl, length = _FIXED.unpack_from(data, position)
        position += _FIXED.size + length
        if position > len(data):
            raise Malformed("truncated")
        if kind == Type.OPT and number >= skipped:
            if size is not None or data[start] != 0:
                raise Malformed("more than one OPT record, or one with a name")
            size, version = klass, ttl >> 16 & 255
    return size, version
