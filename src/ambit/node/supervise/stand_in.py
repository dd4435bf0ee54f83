"""Answers for an older Envoy that died while its successor still asks it for statistics.

A successor asks its parent every few seconds until it has ended it. When the parent is gone too early, stock
Envoy retries on its main thread (policies stand still meanwhile) and aborts after ten seconds. So the agent takes
the dead parent's place on its datagram socket and says that there is nothing to report. Frames and messages:
Envoy's `hot_restarting_base.cc` and `hot_restart.proto`.
"""

import asyncio
import contextlib
import socket
from pathlib import Path

_SLOTS = 3
"""Envoy numbers its sockets by epoch modulo three (`MaxConcurrentProcesses`)."""
_LENGTH = 8
_STATS_REQUEST = b"\x1a"
"""Tag of field 3 (`stats`) in a `Request`, which is field 1 of the message."""
_NOTHING = b"\x12\x02\x1a\x00"
"""A `Reply` (field 2) with empty `Stats` (field 3)."""


class StandIn:
    """In the place of generation `epoch` of `base_id`; listens until closed."""

    def __init__(self, run: Path, base_id: int, epoch: int) -> None:
        self.base_id = base_id
        self.epoch = epoch
        self.answered = 0
        self._path = run / f"restart_parent_{base_id * 10 + epoch % _SLOTS}"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(self._path))
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                message, peer = self._socket.recvfrom(65536)
                if peer and asks_for_stats(message):
                    self._socket.sendto(len(_NOTHING).to_bytes(_LENGTH, "big") + _NOTHING, peer)
                    self.answered += 1


def asks_for_stats(frame: bytes) -> bool:
    """Whether a frame (length, then a message) is a request for statistics."""
    message = frame[_LENGTH:]
    return len(message) > 2 and message[0] == 0x0A and message[2:3] == _STATS_REQUEST
