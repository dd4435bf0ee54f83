"""Resources in little memory, for who keeps many and sends them rarely.

Resources of one type are much like each other, so each is deflated with the first of its type as the dictionary
(RFC 1951, RFC 1950 section 2.2): a listener of 4.5 KiB becomes 0.2.
"""

import zlib

from ambit.xds.frames import Resource

SHORT, LONG = 256, 32 << 10
"""Bytes. What is shorter, or longer, stays as it is: a table of all services changes with each of them, and takes some
ten milliseconds."""
_RAW = -zlib.MAX_WBITS
"""Neither header nor checksum: none of this leaves the process."""


class Compact(Resource, frozen=True, eq=False, kw_only=True):
    """One without a `body`."""

    deflated: bytes
    like: bytes

    def content(self) -> bytes:
        inflating = zlib.decompressobj(wbits=_RAW, zdict=self.like)
        return inflating.decompress(self.deflated) + inflating.flush()


class Compactor:
    """Knows what each type looks like."""

    def __init__(self) -> None:
        self._like: dict[str, bytes] = {}

    def compact(self, type_url: str, resource: Resource) -> Resource:
        """An equal resource with the same content. The first of each type is kept."""
        if not SHORT <= len(resource.body) <= LONG:
            return resource
        like = self._like.setdefault(type_url, resource.body)
        deflating = zlib.compressobj(wbits=_RAW, zdict=like)
        return Compact(
            name=resource.name,
            version=resource.version,
            body=b"",
            on_demand=resource.on_demand,
            deflated=deflating.compress(resource.body) + deflating.flush(),
            like=like,
        )
