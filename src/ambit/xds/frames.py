"""What travels on a delta xDS stream, as values: requests, responses and resources.

Spec: the incremental variant of the xDS transport protocol (Envoy, `xds_protocol`).
"""

from collections.abc import Mapping

import msgspec


class Resource(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One named resource. `version` identifies its content; `body` is a serialised `google.protobuf.Any`.

    An `on_demand` resource is sent only to those who subscribed to its name, never for a wildcard.
    Two resources are equal when name, version and `on_demand` are.
    """

    name: str
    version: str
    body: bytes
    on_demand: bool = False
    encoded: bytes = b""
    """Its field of a response as `ambit.xds.wire` last encoded it: one encoding serves every stream."""

    def content(self) -> bytes:
        """What is sent: `body`, unless it is kept in another form (`ambit.xds.compact`)."""
        return self.body

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resource):
            return NotImplemented
        return (self.name, self.version, self.on_demand) == (other.name, other.version, other.on_demand)

    def __ne__(self, other: object) -> bool:
        # The base class compares by identity here, so `!=` must be said as well.
        return not self == other

    def __hash__(self) -> int:
        return hash((self.name, self.version, self.on_demand))


class Node(msgspec.Struct, frozen=True):
    """Who opened a stream. Only the first request of a stream carries it; of its metadata the texts are
    kept.
    """

    id: str = ""
    cluster: str = ""
    metadata: Mapping[str, str] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`nonce` answers a response: an acknowledgement, or a rejection when `error` is not None (it may be
    empty).
    """

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = {}
    nonce: str = ""
    error: str | None = None
    node: Node | None = None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What changed. No name is both in `resources` and in `removed`. `revision` is informational."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()
    revision: str = ""
