"""Texts of Envoy's access log of requests as values. Pure; what `ambit.envoy.logs.request_log` writes is read here.

A text is numbers, a line that many requests share, and what the client asked: `requests` splits them, which every
request costs; `read` understands the second, which is done once for each.
"""

import re
from collections.abc import Iterator

import msgspec

from ambit.agent.ends import NO_POLICY, WOULD_DENY, Ends, caller, in_words
from ambit.agent.log_texts import endpoint, named, texts
from ambit.agent.series import Values
from ambit.envoy import http_rbac
from ambit.envoy.http import authorizers
from ambit.envoy.logs.access_log import (
    BAGGAGE,
    DRY_RUN,
    DRY_RUN_RESULT,
    HOST,
    IDENTITY,
    POD,
    POLICY,
    ROUTE,
    SEPARATOR,
    SERVICE,
    UNKNOWN,
    WORKLOAD,
)
from ambit.envoy.logs.request_log import ABOUT, AUTHORITY, LINE, MARKS, PORT, REQUEST, SHOWN

_ABOUT = tuple(ABOUT)
_REQUEST = len(REQUEST)
_BY_OTHERS = (authorizers.DENIED, authorizers.FAILED)
_REFUSALS = ("rbac_access_denied", "jwt_authn_access_denied", *_BY_OTHERS)
"""Beginnings of details of answers that are decisions."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")
_B3 = re.compile(r"(?:[0-9a-f]{16}){1,2}")


class About(Ends, frozen=True, kw_only=True):
    """What requests have in common. `target_workload` (its uid), `target_way` (a `route` of
    `ambit.envoy.logs.access_log`) and `target_policy` (why it was refused there) are what the caller's node says."""

    protocol: str = ""
    code: int = 0
    flags: str = ""
    grpc_status: str = ""
    route: str = ""
    target_workload: str = ""
    target_way: str = ""
    target_policy: str = ""
    audited: tuple[str, ...] = ()
    details: str = ""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One request: `started` in nanoseconds since 1970, `ended` in seconds, bytes of bodies, messages of gRPC in both
    directions. `about` is for `read`, `asked` for `read_asked`."""

    started: int
    ended: float
    client_port: str
    received: int
    sent: int
    attempts: int
    messages: tuple[int, int] | None
    about: str
    asked: str
    values: Values = ()


class Asked(msgspec.Struct, frozen=True):
    """What the client asked; `tunnel` is the trace of the connection that the request came on, `trace` its own."""

    method: str = ""
    host: str = ""
    path: str = ""
    trace: str = ""
    id: str = ""
    tunnel: str = ""


def requests(message: bytes) -> Iterator[Entry]:
    """The requests of one message from Envoy; what is not one of ours is left out."""
    for started, text in texts(message):
        try:
            numbers, about, asked = text.split(LINE, 2)
            now, peer, received, sent, attempts, messages, *marks = numbers.split(SEPARATOR)
            values: Values = ()
            if marks:
                values, asked = _valued(marks[0].split(MARKS), asked)
            yield Entry(
                started,
                float(now),
                peer.rpartition(":")[2],
                int(received),
                int(sent),
                0 if attempts == UNKNOWN else int(attempts),
                None if messages == UNKNOWN else _messages(messages),
                about,
                asked,
                values,
            )
        except ValueError:
            continue


def _valued(marks: list[str], text: str) -> tuple[Values, str]:
    """The values of expressions, and the lines after them: nothing of both where one has line feeds of its own, and so
    could be anything."""
    lines = text.split(LINE)
    if len(lines) != len(marks) + _REQUEST:
        return (), ""
    found = zip(marks, lines, strict=False)
    return tuple((each, value) for each, value in found if value != UNKNOWN), LINE.join(lines[len(marks) :])


def read(text: str) -> About | None:
    """The line that requests share; None when it is not one of ours."""
    found = named(_ABOUT, text.split(SEPARATOR))
    if found is None:
        return None
    details = found["details"]
    pod, identity, baggage = endpoint(found[HOST + POD])
    denied = details.startswith(_REFUSALS)
    policy = _shown(found[SHOWN]) if details.startswith(_BY_OTHERS) else found[POLICY]
    dry_run, audited = http_rbac.parse_audit(found[DRY_RUN])
    return About(
        **caller(found),
        is_edge=not found[SERVICE],
        port=found[PORT],
        protocol=found["protocol"],
        code=int(found["code"]) if found["code"].isdecimal() else 0,
        flags=found["flags"],
        grpc_status=found["grpc"],
        route=found["route"],
        target=found[HOST + AUTHORITY] or found["upstream"],
        target_pod=pod,
        target_identity=identity or found[HOST + IDENTITY],
        target_baggage=baggage or found[HOST + BAGGAGE],
        target_workload=found[HOST + WORKLOAD],
        target_way=found[HOST + ROUTE],
        target_policy=found[HOST + POLICY],
        denied=denied,
        policy="" if policy == NO_POLICY else policy,
        dry_run=dry_run if not denied and found[DRY_RUN_RESULT] == WOULD_DENY else "",
        audited=audited,
        details=details,
        error="" if denied else in_words(found["reason"]),
    )


def read_asked(text: str) -> Asked:
    """What the client asked, as far as it is known."""
    lines = [line if line != UNKNOWN else "" for line in text.split(LINE)]
    if len(lines) != _REQUEST:
        return Asked()
    asked, traceparent, b3, identifier, tunnel = lines
    method, _, rest = asked.partition(" ")
    host, _, path = rest.partition(" ")
    return Asked(
        method=method,
        host="" if host == UNKNOWN else host,
        path="" if path == UNKNOWN else path,
        trace=_trace(traceparent) or (b3.zfill(32) if _B3.fullmatch(b3) else ""),
        id=identifier,
        tunnel=_trace(tunnel),
    )


def _shown(actions: str) -> str:
    """The rule by which a request was shown to who said no. Envoy does not tell who of several it was, so they are all
    named."""
    try:
        found = msgspec.json.decode(actions, type=dict[str, str])
    except msgspec.MsgspecError:
        return ""
    return " or ".join(sorted(found.values()))


def _messages(text: str) -> tuple[int, int]:
    """Raises ValueError."""
    received, _, sent = text.partition(",")
    return int(received), int(sent)


def _trace(traceparent: str) -> str:
    found = _TRACEPARENT.match(traceparent)
    return found[1] if found else ""
