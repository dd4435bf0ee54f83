"""The DNS proxy of one pod: loopback sockets in its network namespace, where the capture sends its questions.

Because each pod has its own sockets, who asks is known without looking at addresses.
"""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from ambit.agent.nameservers import Forwarder
from ambit.core.address import Address
from ambit.core.dns import (
    MAX_TCP,
    Malformed,
    Query,
    Rcode,
    Soa,
    Srv,
    encode_reply,
    error_reply,
    parse_query,
)
from ambit.core.dns_reply import unfinished_chain
from ambit.core.names import DNS_MARK, DNS_PORT, PROXY_MARK
from ambit.model.service import Service
from ambit.node.dns.answer import (
    Client,
    Resolution,
    ServiceNames,
    Settings,
    answer,
    asks_for_addresses,
    find,
    finish,
)
from ambit.node.dns.server import DnsServer, listen
from ambit.node.netns.enter import in_namespace

LOOPBACKS = ("127.0.0.1", "::1")
PREPARATION = 0.05
"""Seconds that an answer waits at most until the pod's proxy is prepared; without, the first connection takes a
hop more inside Envoy."""


class PodDns:
    """Answers one pod's questions between `start` and `close`.

    `nameservers` are the pod's own, asked from inside its namespace. `on_resolved` hears of each service
    that a name was resolved to, and its addresses, so that the pod's proxy can prepare for the connection that
    follows; the answer waits a moment for what it returns. `on_query` hears of each question: its type and whether
    it came over TCP. `on_forwarded` hears of those that went to a nameserver as well: after how many seconds, and
    whether there was an answer.
    """

    def __init__(
        self,
        netns: Path,
        client: Client,
        view: ServiceNames,
        nameservers: Sequence[tuple[Address, int]],
        *,
        settings: Settings | None = None,
        on_resolved: Callable[[Service, Sequence[Address]], Awaitable[object] | None] | None = None,
        on_query: Callable[[int, bool], None] = lambda *_: None,
        on_forwarded: Callable[[int, bool, float, bool], None] = lambda *_: None,
        port: int = DNS_PORT,
    ) -> None:
        self.client = client
        self.view = view
        self.settings = settings or Settings()
        self._netns = netns
        self._on_resolved = on_resolved
        self._on_query = on_query
        self._on_forwarded = on_forwarded
        self._port = port
        self.addresses = tuple(address for address, _ in nameservers)
        """Of its nameservers."""
        self._forwarder = Forwarder(nameservers, self._open, self.settings.forward_timeout)
        self._server: DnsServer | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the namespace is gone or the port is taken."""
        udp, tcp = in_namespace(self._netns, lambda: listen(LOOPBACKS, self._port, DNS_MARK))
        self._server = DnsServer(self.handle, udp, tcp)
        await self._server.start()

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None
        self._forwarder.close()

    def handle(self, data: bytes, over_tcp: bool) -> bytes | Awaitable[bytes | None] | None:
        """The reply to these bytes, now or from the nameserver; None when they deserve none."""
        try:
            query = parse_query(data)
        except Malformed:
            return error_reply(data, Rcode.FORMERR)
        resolution = answer(query, self.client, self.view, self.settings, random.shuffle)
        self._on_query(query.type, over_tcp)
        if resolution is None:
            return self._forward(query, data, over_tcp)
        return self._answered(query, resolution, data, over_tcp)

    async def ask(self, data: bytes, over_tcp: bool = False) -> bytes | None:
        """What the pod's nameservers say themselves, asked from inside the pod; None when none answers."""
        return await self._forwarder.ask(data, over_tcp)

    @property
    def waiting(self) -> int:
        """Questions that nameservers have not answered yet."""
        return self._forwarder.waiting

    def _answered(
        self,
        query: Query,
        resolution: Resolution,
        data: bytes,
        over_tcp: bool,
        *,
        authoritative: bool = True,
    ) -> bytes | Awaitable[bytes] | None:
        try:
            reply = encode_reply(
                query,
                resolution.rcode,
                resolution.answers,
                authorities=resolution.authorities,
                authoritative=authoritative and resolution.service is not None,
                limit=MAX_TCP if over_tcp else query.reply_limit,
            )
        except Malformed:
            return error_reply(data, Rcode.SERVFAIL)
        if resolution.service is None or self._on_resolved is None:
            return reply
        addresses = [each.data for each in resolution.answers if not isinstance(each.data, str | Srv | Soa)]
        prepared = self._on_resolved(resolution.service, addresses)
        return reply if prepared is None else _after(prepared, reply)

    async def _forward(self, query: Query, data: bytes, over_tcp: bool) -> bytes | None:
        """The nameserver's reply as it is, but for two things that it cannot know: where an alias leads that ends in
        the mesh, and that a name which the mesh answers exists for other types as well."""
        began = time.perf_counter()
        reply = await self._forwarder.ask(data, over_tcp)
        self._on_forwarded(query.type, over_tcp, time.perf_counter() - began, reply is not None)
        if reply is None or len(reply) < 4:
            return error_reply(data, Rcode.SERVFAIL)
        if asks_for_addresses(query):
            chain = unfinished_chain(reply, query.name)
            finished = chain and finish(query, chain, self.client, self.view, self.settings, random.shuffle)
            if finished:
                answered = self._answered(query, finished, data, over_tcp, authoritative=False)
                return answered if answered is None or isinstance(answered, bytes) else await answered
        elif reply[3] & 15 == Rcode.NXDOMAIN and self._exists(query):
            return reply[:3] + bytes((reply[3] & 0xF0,)) + reply[4:]
        return reply

    def _exists(self, query: Query) -> bool:
        found = find(query.name, self.client, self.view, self.settings) if query.name else None
        return found is not None and not found.candidate.search

    def _open(self, family: int, kind: int) -> socket.socket:
        def make() -> socket.socket:
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
            return sock

        return in_namespace(self._netns, make)


async def _after(prepared: Awaitable[object], reply: bytes) -> bytes:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PREPARATION):
            await prepared
    return reply
