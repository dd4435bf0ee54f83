"""What an L7 proxy does with bytes that it reads no requests in: TLS by the name that the client asks for, TCP, UDP."""

import msgspec

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
