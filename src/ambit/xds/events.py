"""What a client's requests meant, and where one type of one stream stands: what `ServerSession` tells."""

import msgspec

from ambit.xds.frames import Response


class ProtocolViolation(ValueError):
    """The client did something no client may do; the stream should end with this text."""


class Asked(msgspec.Struct, frozen=True):
    """Names that were subscribed to and do not exist yet."""

    type_url: str
    names: tuple[str, ...]


class Released(msgspec.Struct, frozen=True):
    """Names that were unsubscribed from."""

    type_url: str
    names: tuple[str, ...]


class Acknowledged(msgspec.Struct, frozen=True):
    """The client applied this response."""

    response: Response


class Rejected(msgspec.Struct, frozen=True):
    """The client applied this response in part or not at all; `error` is its own text."""

    response: Response
    error: str


Event = Asked | Released | Acknowledged | Rejected


SHOWN = 5


class TypeStatus(msgspec.Struct, frozen=True, rename={"acknowledged": "acked"}):
    """Where one type of one stream stands. Revisions are the store's; -1 means never.

    `acknowledged` is the newest revision up to which every response was answered; `error` is the text of a
    rejection for as long as something rejected has not been replaced by something accepted; `rejected` names what, at
    most `SHOWN` of it.
    """

    sent: int = -1
    acknowledged: int = -1
    error: str = ""
    rejected: tuple[str, ...] = ()
    wildcard: bool = False
    names: int = 0
    unanswered: int = 0
    unacknowledged: int = 0
