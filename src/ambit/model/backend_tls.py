"""TLS that an L7 proxy speaks to the servers of a service."""

import msgspec


class BackendTls(msgspec.Struct, frozen=True):
    """`hostname` is asked for (SNI). The server must have a certificate of one of `roots` (PEM), or of those in the
    proxy's own `roots_file`, that says one of `names` (DNS) or `uris`. Without any nobody can be trusted: nothing is
    sent."""

    hostname: str
    roots: str = ""
    names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    roots_file: str = ""

    @property
    def trusts(self) -> bool:
        """Whether there is anybody to trust."""
        return bool(self.roots or self.roots_file)
