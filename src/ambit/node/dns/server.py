"""A DNS server on given sockets: UDP datagrams and TCP frames go to one handler, replies go back.

RFC 1035 4.2, RFC 7766 (several queries on one TCP connection). What the handler can answer at once costs no
task; the rest is bounded, and a question beyond the bound is dropped, as a full network would.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from ambit.node.netns.transparent import make_transparent

Answer: TypeAlias = bytes | None
Handler: TypeAlias = Callable[[bytes, bool], Answer | Awaitable[Answer]]
"""Takes a query and whether it came by TCP; None means no reply."""

log = logging.getLogger(__name__)

PENDING = 512
"""Questions of one server that may wait for somebody else."""
BURST = 64
"""Datagrams taken in one turn of the event loop."""
CONNECTIONS = 64
IDLE = 10.0
"""Seconds that a TCP connection may rest."""


class DnsServer:
    """Serves until closed; owns its sockets."""

    def __init__(self, handler: Handler, udp: Sequence[socket.socket], tcp: Sequence[socket.socket]) -> None:
        self._handler = handler
        self._udp = tuple(udp)
        self._tcp = tuple(tcp)
        self._pending: set[asyncio.Task[Any]] = set()
        self._connections: set[asyncio.Task[Any]] = set()
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._udp:
            sock.setblocking(False)
            loop.add_reader(sock, self._receive, sock)
        for sock in self._tcp:
            self._servers.append(await asyncio.start_server(self._connected, sock=sock))

    async def close(self) -> None:
        """Stop answering; questions that wait for somebody else are given up."""
        loop = asyncio.get_running_loop()
        for sock in self._udp:
            loop.remove_reader(sock)
            sock.close()
        for server in self._servers:
            server.close()
        tasks = [*self._pending, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(BURST):
            try:
                data, peer = sock.recvfrom(4096)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.debug("DNS socket: %s", error)
                return
            answer = self._handler(data, False)
            if isinstance(answer, bytes):
                _send(sock, answer, peer)
            elif answer is not None and len(self._pending) < PENDING:
                self._keep(self._pending, self._send_later(sock, answer, peer))
            elif answer is not None and asyncio.iscoroutine(answer):
                answer.close()

    async def _send_later(self, sock: socket.socket, answer: Awaitable[Answer], peer: Any) -> None:
        data = await answer
        if data is not None:
            _send(sock, data, peer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._converse(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE):
                size = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(size)
            answer = self._handler(data, True)
            if answer is not None and not isinstance(answer, bytes):
                answer = await answer
            if answer is None:
                return
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()

    def _keep(self, tasks: set[asyncio.Task[Any]], work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _send(sock: socket.socket, data: bytes, peer: Any) -> None:
    with contextlib.suppress(OSError):
        sock.sendto(data, peer)


def listen(
    addresses: Sequence[str], port: int, mark: int | None = None
) -> tuple[list[socket.socket], list[socket.socket]]:
    """UDP and TCP sockets in the calling thread's namespace; with a `mark` also for questions to other addresses, where
    capture sends them here as they are. Raises OSError.

    An IPv6 address that the namespace does not have is left out.
    """
    udp: list[socket.socket] = []
    tcp: list[socket.socket] = []
    try:
        for address in addresses:
            for kind, made in ((socket.SOCK_DGRAM, udp), (socket.SOCK_STREAM, tcp)):
                sock = _bound(address, port, kind, mark)
                if sock is not None:
                    made.append(sock)
    except OSError:
        for sock in (*udp, *tcp):
            sock.close()
        raise
    return udp, tcp


def _bound(address: str, port: int, kind: int, mark: int | None) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, kind)
    except OSError:
        if family == socket.AF_INET6:
            return None
        raise
    try:
        if mark is not None:
            make_transparent(sock, mark)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if family == socket.AF_INET6 and error.errno == 99:
            return None
        raise
    return sock
