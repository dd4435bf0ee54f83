"""Hands a question to a nameserver and brings its answer back, both byte for byte except the identifier.

The sockets are opened inside a given network namespace with the proxy's mark, so that the pod's own capture
lets them out. One UDP socket for each nameserver serves all questions; each gets a random identifier that is
unused on that socket, and only an answer from that nameserver with that identifier and question is taken.
"""

import asyncio
import errno
import secrets
import socket
from collections.abc import Callable, Sequence

from ambit.core.address import Address

TIMEOUT = 5.0
"""Seconds for all nameservers together; each gets an equal part of what is left (ztunnel's default)."""

OpenSocket = Callable[[int, int], socket.socket]
"""Makes a socket of a family and a kind in the right namespace; blocks for well under a millisecond."""


class Forwarder:
    """Asks the nameservers in order until one answers."""

    def __init__(
        self,
        nameservers: Sequence[tuple[Address, int]],
        open_socket: OpenSocket,
        timeout: float = TIMEOUT,
    ) -> None:
        self._upstreams = [_Upstream(address, port, open_socket) for address, port in nameservers]
        self._timeout = timeout

    async def ask(self, query: bytes, over_tcp: bool) -> bytes | None:
        """The nameserver's reply, None when none answers."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._timeout
        for asked, upstream in enumerate(self._upstreams):
            try:
                async with asyncio.timeout((end - clock()) / (len(self._upstreams) - asked)):
                    return await (upstream.ask_tcp(query) if over_tcp else upstream.ask_udp(query))
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        return None

    @property
    def waiting(self) -> int:
        """Questions by UDP whose answers are still to come."""
        return sum(upstream.waiting for upstream in self._upstreams)

    def close(self) -> None:
        for upstream in self._upstreams:
            upstream.close()


class _Upstream:
    def __init__(self, address: Address, port: int, open_socket: OpenSocket) -> None:
        self._peer = (str(address), port)
        self._family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self._open = open_socket
        self._udp: socket.socket | None = None
        self._waiting: dict[int, tuple[bytes, asyncio.Future[bytes]]] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def ask_udp(self, query: bytes) -> bytes:
        """Raises OSError."""
        sock = self._udp or self._open_udp()
        number = secrets.randbelow(65536)
        while number in self._waiting:
            number = secrets.randbelow(65536)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (_question(query), answer)
        try:
            sock.send(number.to_bytes(2, "big") + query[2:])
            return query[:2] + (await answer)[2:]
        finally:
            del self._waiting[number]

    async def ask_tcp(self, query: bytes) -> bytes:
        """Raises OSError or IncompleteReadError."""
        sock = self._open(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        writer: asyncio.StreamWriter | None = None
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._peer)
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(len(query).to_bytes(2, "big") + query)
            size = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(size)
        finally:
            if writer is not None:
                writer.close()
            else:
                sock.close()

    def close(self) -> None:
        if self._udp is not None:
            asyncio.get_running_loop().remove_reader(self._udp)
            self._udp.close()
            self._udp = None

    def _open_udp(self) -> socket.socket:
        sock = self._open(self._family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(self._peer)
        except OSError:
            sock.close()
            raise
        asyncio.get_running_loop().add_reader(sock, self._receive, sock)
        self._udp = sock
        return sock

    def _receive(self, sock: socket.socket) -> None:
        while True:
            try:
                data = sock.recv(65535)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(error)
                return
            question, answer = self._waiting.get(int.from_bytes(data[:2], "big"), (b"", None))
            if answer is None or answer.done() or len(data) < 12:
                continue
            if data[12:].lower().startswith(question) or data[4:6] == b"\0\0":
                answer.set_result(data)

    def _fail(self, error: OSError) -> None:
        """An ICMP error: it concerns the nameserver, so everybody who waits for it."""
        refused = OSError(error.errno or errno.EIO, "nameserver unreachable")
        for _, answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(refused)


def _question(query: bytes) -> bytes:
    """The question section of a query with one question, lower case; empty when it cannot be found."""
    position = 12
    while position < len(query) and query[position]:
        position += 1 + query[position]
    return query[12 : position + 5].lower()
