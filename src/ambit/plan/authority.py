"""What the agent of an L7 proxy is told about the authority, among the resources of its Envoy.

It has one certificate, which it must renew when another authority signs or when it is revoked; nodes read that from a
ConfigMap, for which a proxy would need access to the API server.
"""

import msgspec
from google.protobuf.any_pb2 import Any

from ambit.envoy import names, tls
from ambit.plan.values import SECRET, PlannedResource, planned


class AuthorityNote(msgspec.Struct, frozen=True):
    """`signer` is the key identifier (hex) of who signs now; `revoked` are serial numbers, sorted, in decimal."""

    signer: str = ""
    revoked: tuple[str, ...] = ()


def resource(note: AuthorityNote) -> PlannedResource:
    return planned(SECRET, names.AUTHORITY, tls.note(names.AUTHORITY, msgspec.json.encode(note).decode()))


def parse(body: bytes) -> AuthorityNote:
    """The note in a resource's body. Raises ValueError."""
    try:
        return msgspec.json.decode(tls.note_in(Any.FromString(body).value), type=AuthorityNote)
    except msgspec.DecodeError as problem:
        raise ValueError(f"the note about the authority cannot be read: {problem}") from None
