"""Texts of Envoy's access log of connections in which nobody reads requests, as values. Pure; what
`ambit.envoy.logs.stream_log` writes is read here."""

from collections.abc import Iterator

import msgspec

from ambit.agent.ends import NO_POLICY, WOULD_DENY, Ends, caller, in_words
from ambit.agent.log_texts import endpoint, named, texts
from ambit.agent.record import LONGEST_PLACE
from ambit.envoy import names
from ambit.envoy.logs.access_log import (
    BAGGAGE,
    DRY_RUN,
    DRY_RUN_RESULT,
    HOST,
    IDENTITY,
    POD,
    POLICY,
    SEPARATOR,
    SERVICE,
    UNKNOWN,
)
from ambit.envoy.logs.request_log import AUTHORITY, LINE, PORT
from ambit.envoy.logs.stream_log import ABOUT, DENIED, KIND, OWN

_ABOUT = tuple(ABOUT)
_MARK = f"{KIND}{SEPARATOR}".encode()
_PERIODIC = "TcpPeriodic"
_RULES = 3


class About(Ends, frozen=True, kw_only=True):
    """What connections have in common; `ended` false means that they go on. `dialled` is the address and port that the
    client wanted."""

    ended: bool
    dialled: str = ""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One connection: `started` in nanoseconds since 1970, `now` in seconds. `about` is for `read`."""

    started: int
    now: float
    client_port: str
    received: int
    sent: int
    about: str


def connections(message: bytes) -> Iterator[Entry]:
    """The connections of one message from Envoy; what is not one of ours is left out."""
    if _MARK not in message:
        return  # of requests, of which there are many
    for started, text in texts(message):
        try:
            numbers, about = text.split(LINE, 1)
            kind, now, port, received, sent = numbers.split(SEPARATOR)
            if kind == KIND:
                yield Entry(started, float(now), port, int(received), int(sent), about)
        except ValueError:
            continue


def read(text: str) -> About | None:
    """The line that connections share; None when it is not one of ours."""
    found = named(_ABOUT, text.split(SEPARATOR))
    if found is None:
        return None
    found["dialled"] = found["dialled"][:LONGEST_PLACE]
    chain, _, rule = found["chain"].partition("|")
    denied = chain == DENIED
    policy, dry_run, result = _ruled(found)
    pod, identity, baggage = endpoint(found[HOST + POD])
    return About(
        ended=found["type"] != _PERIODIC,
        **caller(found),
        is_edge=not found[SERVICE] and not found["cluster"].startswith(names.WAY),
        port=found[PORT] or found["dialled"].rpartition(":")[2],
        dialled=found["dialled"],
        target=found[HOST + AUTHORITY] or (found["dialled"] if found[OWN + POD] else found["upstream"]),
        target_pod=pod or found[OWN + POD],
        target_identity=identity or found[HOST + IDENTITY] or found[OWN + IDENTITY],
        target_baggage=baggage or found[HOST + BAGGAGE],
        denied=denied,
        policy=rule if denied and rule else "" if policy == NO_POLICY else policy,
        dry_run=dry_run if not denied and result == WOULD_DENY else "",
        error="" if denied else found["failure"] or in_words(found["flags"]),
    )


def _ruled(found: dict[str, str]) -> tuple[str, str, str]:
    """The rule that decided, the one that would have, and what that would have done."""
    said = found["ruled"].split(" ")
    if len(said) != _RULES:
        said = [found[key] for key in (POLICY, DRY_RUN, DRY_RUN_RESULT)]
    policy, dry_run, result = (each if each != UNKNOWN else "" for each in said)
    return policy, dry_run, result
