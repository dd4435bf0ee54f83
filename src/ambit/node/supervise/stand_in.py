"""Answers for an older Envoy while its successor still asks it: one that died, or one that is to end.

A successor asks its parent every few seconds for statistics, and for the socket of each new listener, until it has
ended it. When the parent is gone too early, stock Envoy retries on its main thread (policies stand still meanwhile) and
aborts after ten seconds; when the parent dies with a question unanswered it waits for ever. So the agent takes the
parent's place on its datagram socket and says that there is nothing to report and no socket to inherit. Frames and
messages: Envoy's `hot_restarting_base.cc` and `hot_restart.proto`.
"""

import asyncio
import contextlib
import socket
from pathlib import Path

_SLOTS = 3
"""Envoy numbers its sockets by epoch modulo three (`MaxConcurrentProcesses`)."""
_LENGTH = 8
_SOCKET_REQUEST, _STATS_REQUEST = b"\x0a", b"\x1a"
"""Tags of fields 1 (`pass_listen_socket`) and 3 (`stats`) in a `Request`, which is field 1 of the message."""
_NOTHING = b"\x12\x02\x1a\x00"
"""A `Reply` (field 2) with empty `Stats` (field 3)."""
_NO_SOCKET = b"\x12\x0d\x0a\x0b\x08" + b"\xff" * 9 + b"\x01"
"""A `Reply` with `PassListenSocket` (field 1), whose `fd` (field 1) is -1."""
_TERMINATE = b"\x0a\x02\x2a\x00"
"""A `Request` with empty `Terminate` (field 5)."""


def terminate(run: Path, base_id: int, epoch: int) -> None:
    """Ends the generation as its successor would: by a message, which reaches a process of another namespace too.
    Raises OSError when nobody listens."""
    place = _place("parent", run, base_id, epoch)
    aside = _place("leaving", run, base_id, epoch)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(1)
        sender.sendto(_frame(_TERMINATE), str(aside if aside.exists() else place))


class StandIn:
    """In the place of generation `epoch` of `base_id`; listens until closed. The socket of a generation that still
    `lives` is kept aside, for `terminate`."""

    def __init__(self, run: Path, base_id: int, epoch: int, *, lives: bool = False) -> None:
        self.base_id = base_id
        self.epoch = epoch
        self.answered = 0
        path = _place("parent", run, base_id, epoch)
        aside = _place("leaving", run, base_id, epoch)
        if lives and not aside.exists():
            path.rename(aside)
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        if not lives:
            aside.unlink(missing_ok=True)
        self._successor = _place("child", run, base_id, epoch + 1)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def release(self) -> None:
        """Answers what the successor asked the dead, which it waits for. Never when it does not wait: it would take the
        answer for that to its next question, and aborts when their kinds differ."""
        with contextlib.suppress(OSError):
            self._socket.sendto(_frame(_NOTHING), str(self._successor))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                message, peer = self._socket.recvfrom(65536)
                answer = reply(message)
                if peer and answer:
                    self._socket.sendto(answer, peer)
                    self.answered += 1


def reply(frame: bytes) -> bytes:
    """The frame that answers a frame (length, then a message); empty when none is expected."""
    message = frame[_LENGTH:]
    if message[:1] != b"\x0a":
        return b""
    # The request's length is a varint: of more than one byte when it names a listener.
    start = next((at + 1 for at in range(1, len(message)) if message[at] < 0x80), len(message))
    answers = {_STATS_REQUEST: _frame(_NOTHING), _SOCKET_REQUEST: _frame(_NO_SOCKET)}
    return answers.get(message[start : start + 1], b"")


def _frame(message: bytes) -> bytes:
    return len(message).to_bytes(_LENGTH, "big") + message


def _place(role: str, run: Path, base_id: int, epoch: int) -> Path:
    return run / f"restart_{role}_{base_id * 10 + epoch % _SLOTS}"
