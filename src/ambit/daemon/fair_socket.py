"""A listening socket that no single caller can use up.

Each accepted connection costs memory before anybody has said who they are: TLS in asyncio takes 300 KiB. So one address
may have so many connections open at a time, and further ones are closed unread. Callers on the same machine (loopback)
are the user's own and not counted.
"""

import socket
import weakref
from collections import Counter
from ipaddress import ip_address
from typing import Any


class FairSocket(socket.socket):
    """Serves the same port as `listening` did, which may be closed. For asyncio, which takes a refused connection as
    one that the caller gave up."""

    def __init__(self, listening: socket.socket, per_caller: int) -> None:
        with listening.dup() as copy:
            super().__init__(listening.family, listening.type, listening.proto, fileno=copy.detach())
        self._per_caller = per_caller
        self._open: Counter[str] = Counter()

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises ConnectionAbortedError when the caller has too many."""
        connection, address = super().accept()
        caller = str(address[0])
        if ip_address(caller).is_loopback:
            return connection, address
        if self._open[caller] >= self._per_caller:
            connection.close()
            raise ConnectionAbortedError(f"{caller} has {self._per_caller} connections")
        self._open[caller] += 1
        weakref.finalize(connection, self._ended, caller)
        return connection, address

    def _ended(self, caller: str) -> None:
        self._open[caller] -= 1
        if not self._open[caller]:
            del self._open[caller]
