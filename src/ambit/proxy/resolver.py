"""Answers the waypoint's own Envoy when it asks for hosts of clients' hellos: what may be reached, and nothing else.

Rules:
1. Only IPv4 addresses of names that the control plane says (`NamesNote`); everything else has none.
2. Of what nameservers say only addresses are passed on that connections may go to. Envoy dials whatever it is told, so
   it never hears of the others.
3. Whoever cannot be asked, or cannot be understood, is a failure, never an answer.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
from pathlib import Path

from ambit.agent.nameservers import Forwarder
from ambit.core.address import Address
from ambit.core.dns import (
    CLASS_IN,
    Malformed,
    Query,
    Rcode,
    Type,
    address_record,
    encode_query,
    encode_reply,
    parse_query,
)
from ambit.core.dns_reply import read_answers
from ambit.core.errors import BadInput
from ambit.model.server_names import NamesNote

_log = logging.getLogger("ambit.proxy.resolver")
LIFETIME = 4.0
"""Seconds for all nameservers together; Envoy waits for 5."""
PENDING = 256
"""Questions at once. One more is dropped, as a full network would."""
MOST = 16
"""Addresses in an answer, so that it fits into a datagram."""
_DATAGRAM = 4096
_LONGEST = 60
"""Seconds that Envoy may keep an answer."""
_NOWHERE = ipaddress.IPv4Address("255.255.255.255")
"""Where no connection goes: the kernel refuses it at once (connect(2), ENETUNREACH). Of an answer without an address
Envoy would keep the former one, as long as the name is asked for."""
_HEADER, _TRUNCATED = 12, 0x02
_PASSED_ON = frozenset({Rcode.NOERROR, Rcode.NXDOMAIN})


class Resolver:
    """On a port of the loopback, from `start` to `close`. `note` says what may be asked for."""

    def __init__(self, resolv_conf: Path = Path("/etc/resolv.conf"), port: int = 53) -> None:
        """Asks the nameservers of this file, at this port."""
        self.note = NamesNote()
        self._resolv_conf = resolv_conf
        self._port = port
        self._upstream: Forwarder | None = None
        self._socket: socket.socket | None = None
        self._pending: set[asyncio.Task[None]] = set()

    def start(self, host: str, port: int) -> None:
        """Raises OSError, and BadInput where nobody could be asked."""
        servers = nameservers(self._resolv_conf.read_text())
        if not servers:
            raise BadInput(f"{self._resolv_conf} names no nameserver")
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            made.bind((host, port))
        except OSError:
            made.close()
            raise
        self._upstream = Forwarder([(each, self._port) for each in servers], socket.socket, LIFETIME)
        self._socket = made
        asyncio.get_running_loop().add_reader(made, self._receive, made)

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        for task in self._pending:
            task.cancel()
        if self._upstream is not None:
            self._upstream.close()

    def _receive(self, made: socket.socket) -> None:
        try:
            data, peer = made.recvfrom(_DATAGRAM)
        except OSError:
            return
        if len(self._pending) < PENDING:
            task = asyncio.get_running_loop().create_task(self._serve(made, data, peer))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _serve(self, made: socket.socket, data: bytes, peer: tuple[str, int]) -> None:
        with contextlib.suppress(Malformed, OSError):
            query = parse_query(data)
            made.sendto(await self._answer(query), peer)

    async def _answer(self, query: Query) -> bytes:
        if query.opcode or (query.type, query.klass) != (Type.A, CLASS_IN):
            return encode_reply(query)
        if not self.note.covers(query.name):
            return encode_reply(query, Rcode.NXDOMAIN)
        try:
            rcode, ttl, given = await self._asked(query.name)
        except (Malformed, TimeoutError) as problem:
            _log.warning("%s cannot be resolved: %s", query.name, problem)
            return encode_reply(query, Rcode.SERVFAIL)
        allowed = self.note.reachable(given)
        if len(allowed) < len(given):
            refused = ", ".join(str(each) for each in given if each not in allowed)
            _log.warning("%s is said to be at %s, where names of hellos lead nobody", query.name, refused)
        told = allowed[:MOST] if allowed or not given else [_NOWHERE]
        answers = [address_record(query.name, min(ttl, _LONGEST), each) for each in told]
        return encode_reply(query, rcode, answers)

    async def _asked(self, name: str) -> tuple[Rcode, int, list[Address]]:
        """What nameservers say. Raises Malformed and TimeoutError."""
        assert self._upstream is not None, "it was started"
        asked = encode_query(name, Type.A)
        reply = await self._upstream.ask(asked, over_tcp=False)
        if reply is not None and reply[2] & _TRUNCATED:
            reply = await self._upstream.ask(asked, over_tcp=True)
        if reply is None:
            raise TimeoutError("no nameserver answers")
        if len(reply) < _HEADER:
            raise Malformed("a nameserver's answer is shorter than a header")
        answers, rcode = read_answers(reply), reply[3] & 15
        if answers is None or rcode not in _PASSED_ON:
            raise Malformed(f"a nameserver's answer cannot be used (code {rcode})")
        found = {each.data: each.ttl for each in answers if isinstance(each.data, ipaddress.IPv4Address)}
        return Rcode(rcode), min(found.values(), default=0), list(found)


def nameservers(text: str) -> list[Address]:
    """Those of a resolv.conf(5)."""
    found: list[Address] = []
    for words in map(str.split, text.splitlines()):
        if len(words) > 1 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                found.append(ipaddress.ip_address(words[1]))
    return found
