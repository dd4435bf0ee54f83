"""Texts of Envoy's access log of clients of UDP, as values. Pure; what `ambit.envoy.logs.datagram_log` writes is read
here."""

from collections.abc import Iterator

import msgspec

from ambit.agent.ends import bracketed
from ambit.agent.log_texts import endpoint, named, texts
from ambit.envoy.logs.access_log import SEPARATOR
from ambit.envoy.logs.datagram_log import ABOUT, KIND
from ambit.envoy.logs.request_log import LINE

_ABOUT = tuple(ABOUT)
_MARK = f"{KIND}{SEPARATOR}".encode()


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What sessions have in common. `target` is the endpoint's address and port, `dialled` the gateway's."""

    listener: str
    route: str
    service: str
    target: str
    dialled: str


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One session: `started` in nanoseconds since 1970, `now` (its end) in seconds. `about` is for `read`."""

    started: int
    now: float
    client: str
    received: int
    sent: int
    datagrams_received: int
    datagrams_sent: int
    about: str


def sessions(message: bytes) -> Iterator[Entry]:
    """The sessions of one message from Envoy; what is not one of ours is left out."""
    if _MARK not in message:
        return
    for started, text in texts(message):
        try:
            numbers, about = text.split(LINE, 1)
            kind, now, client, port, *counts = numbers.split(SEPARATOR)
            received, sent, datagrams_received, datagrams_sent = (int(float(each)) for each in counts)
            if kind == KIND:
                place = f"{bracketed(client)}:{int(port)}"
                yield Entry(
                    started, float(now), place, received, sent, datagrams_received, datagrams_sent, about
                )
        except (ValueError, OverflowError):
            continue


def read(text: str) -> About | None:
    """The line that sessions share; None when it is not one of ours."""
    found = named(_ABOUT, text.split(SEPARATOR))
    if found is None:
        return None
    listener, route, service = endpoint(found["known"])
    return About(
        listener=listener, route=route, service=service, target=found["upstream"], dialled=found["dialled"]
    )
