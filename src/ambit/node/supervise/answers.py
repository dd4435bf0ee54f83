"""The process that answers in an older Envoy's place; it lives as long as the successor may ask, with or without agent.

It runs as a plain script without site packages (`python -I -S answers.py SOCKET PLACE INODE ASIDE PROC PID START`),
because it may live for as long as connections drain: only the standard library may be imported here. Frames and
messages: Envoy's `hot_restarting_base.cc` and `hot_restart.proto`.
"""

import contextlib
import os
import select
import socket
import sys

_LENGTH = 8
_SOCKET_REQUEST, _STATS_REQUEST, _TERMINATE_REQUEST = b"\x0a", b"\x1a", b"\x2a"
"""Tags of fields 1 (`pass_listen_socket`), 3 (`stats`) and 5 (`terminate`) in a `Request`, which is field 1 of the
message."""
_NOTHING = b"\x12\x02\x1a\x00"
"""A `Reply` (field 2) with empty `Stats` (field 3)."""
_NO_SOCKET = b"\x12\x0d\x0a\x0b\x08" + b"\xff" * 9 + b"\x01"
"""A `Reply` with `PassListenSocket` (field 1), whose `fd` (field 1) is -1."""
_LOOK_MILLISECONDS = 1000
"""Between two looks whether the successor still runs, and whether the place is still ours."""


def frame(message: bytes) -> bytes:
    """A message as Envoy sends it: behind its length."""
    return len(message).to_bytes(_LENGTH, "big") + message


TERMINATE = frame(b"\x0a\x02\x2a\x00")
"""A `Request` with empty `Terminate`."""
NOTHING_TO_REPORT = frame(_NOTHING)
_ANSWERS = {_STATS_REQUEST: NOTHING_TO_REPORT, _SOCKET_REQUEST: frame(_NO_SOCKET)}


def kind(message: bytes) -> bytes:
    """The tag of the request in a frame; empty when it is none."""
    request = message[_LENGTH:]
    if request[:1] != b"\x0a":
        return b""
    # The request's length is a varint: of more than one byte when it names a listener.
    start = next((at + 1 for at in range(1, len(request)) if request[at] < 0x80), len(request))
    return request[start : start + 1]


def reply(message: bytes) -> bytes:
    """The frame that answers a frame; empty when none is expected."""
    return _ANSWERS.get(kind(message), b"")


def serve(taken: socket.socket, place: tuple[str, int], aside: str, successor: tuple[str, int, int]) -> None:
    """Answers until the successor (/proc, number and start time) is gone, asks no more, or somebody else has the place
    (path and inode)."""
    waiting = select.poll()
    waiting.register(taken, select.POLLIN)
    while _is_at(*place) and _runs(*successor):
        if waiting.poll(_LOOK_MILLISECONDS) and not _answered(taken, aside):
            return


def _answered(taken: socket.socket, aside: str) -> bool:
    """False when the successor's time for older generations was over: it asks no more."""
    message, peer = taken.recvfrom(65536)
    if kind(message) == _TERMINATE_REQUEST:
        _send(taken, TERMINATE, aside)
        return False
    answer = reply(message)
    if peer and answer:
        _send(taken, answer, peer)
    return True


def _send(taken: socket.socket, message: bytes, whom: str) -> None:
    with contextlib.suppress(OSError):  # gone meanwhile
        taken.sendto(message, whom)


def _is_at(place: str, inode: int) -> bool:
    try:
        return os.stat(place).st_ino == inode
    except OSError:
        return False


def _runs(proc: str, pid: int, began: int) -> bool:
    """As `daemon.process_id.start_time`, which is not at hand here."""
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == began


if __name__ == "__main__":
    given, where, inode, leaving, proc, pid, began = sys.argv[1:]
    serve(socket.socket(fileno=int(given)), (where, int(inode)), leaving, (proc, int(pid), int(began)))
