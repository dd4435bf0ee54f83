"""What an L7 proxy does with bytes that it reads no requests in: TLS by the name that the client asks for, TCP, UDP."""

import msgspec

from ambit.core.address import Address
from ambit.core.finding import ObjectRef
from ambit.model.http import Backend


class Stream(msgspec.Struct, frozen=True):
    """One rule of a TLSRoute, TCPRoute or UDPRoute. `hostnames` are those of the client's hello (SNI), in which
    `*.example.com` stands for everything below; empty for any. Of `backends` only service, port and weight count; the
    share of one without a service, and everything when no backend has a weight, is refused. `name` is as an Entry's."""

    name: str
    backends: tuple[Backend, ...]
    hostnames: tuple[str, ...] = ()
    origin: ObjectRef | None = None


class Datagrams(msgspec.Struct, frozen=True):
    """Where datagrams (UDP) to a port of a service (by its key) go: address and port of each of its ready endpoints.
    A service's own `ports` are those of TCP, and no node carries these."""

    service: str
    port: int
    endpoints: tuple[tuple[Address, int], ...] = ()

    @property
    def key(self) -> str:
        return datagrams_key(self.service, self.port)


def datagrams_key(service: str, port: int) -> str:
    """Under what `Datagrams` are kept."""
    return f"{service}:{port}"
