"""What the waypoint's Envoy is told of names in clients' hellos, by a nameserver that anybody may own."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from bench.ports import free_port

from ambit.core.errors import BadInput
from ambit.model.server_names import NamesNote
from ambit.proxy.resolver import MOST, Resolver

HOSTS = {
    "out.example.com.": ["93.184.216.34"],
    "mixed.example.com.": ["127.0.0.1", "93.184.216.34", "169.254.169.254", "10.0.0.1"],
    "inner.example.com.": ["10.0.0.1"],
    "private.example.com.": ["10.20.0.1"],
    "many.example.com.": [f"93.184.216.{number}" for number in range(1, 40)],
    "out.example.org.": ["93.184.216.34"],
}


class Nameserver(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        name = query.question[0].name.to_text().lower()
        self.asked.append(name)
        if name == "broken.example.com.":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name not in HOSTS:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            response.answer.append(dns.rrset.from_text(query.question[0].name, 3600, "IN", "A", *HOSTS[name]))
        assert self.transport is not None
        self.transport.sendto(response.to_wire(), addr)


class Asker:
    """`ask` gives the answer's code, its addresses, and how long they count."""

    def __init__(self, resolver: Resolver, nameserver: Nameserver, port: int) -> None:
        self.resolver, self.nameserver, self.port = resolver, nameserver, port

    async def send(self, data: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", self.port))
            await loop.sock_sendall(sock, data)
            async with asyncio.timeout(60):
                return await loop.sock_recv(sock, 4096)

    async def ask(self, name: str, kind: str = "A") -> tuple[str, list[str], int]:
        query = dns.message.make_query(name, kind)
        response = dns.message.from_wire(await self.send(query.to_wire()))
        assert response.id == query.id and response.flags & dns.flags.RA
        found = [each.to_text() for rrset in response.answer for each in rrset]
        return (
            dns.rcode.to_text(response.rcode()),
            found,
            min((each.ttl for each in response.answer), default=0),
        )


@pytest.fixture
async def asker(tmp_path: Path) -> AsyncIterator[Asker]:
    loop = asyncio.get_running_loop()
    transport, nameserver = await loop.create_datagram_endpoint(Nameserver, local_addr=("127.0.0.1", 0))
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 127.0.0.1\n")
    resolver = Resolver(file, transport.get_extra_info("sockname")[1])
    port = free_port()
    resolver.start("127.0.0.1", port)
    resolver.note = NamesNote(("*.example.com",), ("10.20.0.0/16",))
    yield Asker(resolver, nameserver, port)
    resolver.close()
    transport.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("out.example.com", ("NOERROR", ["93.184.216.34"], 60)),
        ("OUT.example.com", ("NOERROR", ["93.184.216.34"], 60)),
        ("mixed.example.com", ("NOERROR", ["93.184.216.34"], 60)),
        ("private.example.com", ("NOERROR", ["10.20.0.1"], 60)),
        ("inner.example.com", ("NOERROR", ["255.255.255.255"], 60)),
        ("gone.example.com", ("NXDOMAIN", [], 0)),
        ("broken.example.com", ("SERVFAIL", [], 0)),
    ],
)
async def test_envoy_hears_of_what_may_be_reached_only(
    asker: Asker, name: str, expected: tuple[str, list[str], int]
) -> None:
    assert await asker.ask(name) == expected


async def test_an_answer_fits_into_a_datagram(asker: Asker) -> None:
    assert len((await asker.ask("many.example.com"))[1]) == MOST


async def test_other_names_and_kinds_are_not_even_asked_for(asker: Asker) -> None:
    assert await asker.ask("out.example.org") == ("NXDOMAIN", [], 0)
    assert await asker.ask("out.example.com", "AAAA") == ("NOERROR", [], 0)
    assert await asker.ask("out.example.com", "TXT") == ("NOERROR", [], 0)
    assert asker.nameserver.asked == []
    asker.resolver.note = NamesNote()
    assert await asker.ask("out.example.com") == ("NXDOMAIN", [], 0)


async def test_what_is_no_question_is_passed_over(asker: Asker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for data in (b"", b"x", b"\0" * 12, b"\xff" * 40):
            sock.sendto(data, ("127.0.0.1", asker.port))
    assert (await asker.ask("out.example.com"))[0] == "NOERROR"


async def test_without_a_nameserver_it_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("")
    with pytest.raises(BadInput):
        Resolver(tmp_path / "resolv.conf").start("127.0.0.1", 0)
