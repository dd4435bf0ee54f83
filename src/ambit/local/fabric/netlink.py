"""Netlink framing: messages, attributes, and the exchange with the kernel on one socket.

netlink(7): a message is a header, a fixed part and attributes, each padded to four bytes; numbers are in the
machine's byte order.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence

import msgspec

HEADER = struct.Struct("=IHHII")
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
ERROR, DONE = 2, 3
NESTED = 0x8000
_KIND_MASK = 0x3FFF
_RECEIVE = 1 << 18


class Message(msgspec.Struct, frozen=True):
    """One request; `what` names it in errors, `tolerated` are errno values that count as success."""

    kind: int
    flags: int
    body: bytes
    what: str
    tolerated: tuple[int, ...] = ()


def send(messages: Sequence[Message], protocol: int) -> None:
    """Apply the messages in order in the calling thread's namespace. Raises OSError naming the first
    failure."""
    if not messages:
        return
    with _open(protocol) as channel:
        channel.send(b"".join(_packed(number, message, ACK) for number, message in enumerate(messages)))
        waiting = set(range(len(messages)))
        failures: list[OSError] = []
        while waiting:
            for kind, number, payload in _parts(channel.recv(_RECEIVE)):
                if kind != ERROR:
                    continue
                waiting.discard(number)
                code = -struct.unpack_from("=i", payload)[0]
                if code and code not in messages[number].tolerated:
                    failures.append(OSError(code, os.strerror(code), messages[number].what))
    if failures:
        raise failures[0]


def dump(message: Message, protocol: int) -> list[bytes]:
    """The bodies of everything the kernel lists in answer. Raises OSError."""
    found: list[bytes] = []
    with _open(protocol) as channel:
        channel.send(_packed(1, message, DUMP))
        while True:
            for kind, _, payload in _parts(channel.recv(_RECEIVE)):
                if kind == DONE:
                    return found
                if kind == ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, os.strerror(code), message.what)
                found.append(payload)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """Attributes by kind; of several with one kind, the last."""
    found: dict[int, bytes] = {}
    position = 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        found[kind & _KIND_MASK] = data[position + 4 : position + length]
        position += (max(length, 4) + 3) & ~3
    return found


def _open(protocol: int) -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    channel.bind((0, 0))
    return channel


def _packed(number: int, message: Message, flags: int) -> bytes:
    flags |= REQUEST | message.flags
    return HEADER.pack(HEADER.size + len(message.body), message.kind, flags, number, 0) + message.body


def _parts(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    position = 0
    while position + HEADER.size <= len(data):
        length, kind, _, number, _ = HEADER.unpack_from(data, position)
        yield kind, number, data[position + HEADER.size : position + length]
        position += (max(length, HEADER.size) + 3) & ~3
