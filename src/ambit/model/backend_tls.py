"""TLS that an L7 proxy speaks to the servers of a service."""

import msgspec


class BackendTls(msgspec.Struct, frozen=True):
    """`hostname` is asked for (SNI). The server must have a certificate of one of `roots` (PEM) that says one of
    `names` (DNS) or `uris`. Without roots nobody can be trusted: nothing is sent."""

    hostname: str
    roots: str = ""
    names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
