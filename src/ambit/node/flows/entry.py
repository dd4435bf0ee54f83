"""Lines of Envoy's access log as values. Pure; what `ambit.envoy.logs.access_log` writes is read here.

A line is five numbers and a text that many lines share: `lines` splits them, which every connection costs, and
`read` understands the text, which is done once for each. "Received" is client to server and "sent" server to
client, for both reporters, as Istio's metrics have it.
"""

import re
from collections.abc import Iterator

import msgspec

from ambit.agent.log_texts import named, texts
from ambit.agent.record import LONGEST_PLACE
from ambit.envoy import names
from ambit.envoy.logs import access_log
from ambit.envoy.logs.access_log import (
    BAGGAGE,
    CLOSED,
    HOST,
    LAYOUTS,
    NUMBERS,
    REQUEST_SEPARATOR,
    RESET,
    SEPARATOR,
)
from ambit.plan.node.ways import DIRECT, REFUSED, SAME_NODE, TUNNEL

_NO_POLICY = "default"
"""RBAC's rule name when no policy decided."""
_PERIODIC = frozenset({"TcpPeriodic", "DownstreamPeriodic"})
_UNAUTHORIZED, _OK = "401", "200"
_DENIED = "denied"
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_NUMBERS = len(NUMBERS)
_LAYOUTS = {kind: tuple(key for key in layout if key not in NUMBERS) for kind, layout in LAYOUTS.items()}
__all__ = ["DIRECT", "REFUSED", "SAME_NODE", "TUNNEL", "About", "Line", "lines", "read"]

_CALLED = re.compile(r'(?:^|[;,])\s*host="?([A-Za-z0-9._-]{1,253})"?\s*(?:[;,]|$)')
_TRACEPARENT = 55
"""Characters of a `traceparent`; of these 3 to 34 are the trace."""

Line = tuple[int, float, str, int, int, bytes, str]
"""Begin (nanoseconds since 1970), time of the report (seconds), the client's port, bytes received and sent, the trace
(16 bytes, empty when the peer named none), and the text for `read`."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says about a connection but for its numbers; `ended` false means it goes on.

    `kind` is the listener's (`ambit.envoy.names.LOG_*`), `pod` the key of the pod whose listener it is (empty for
    `tunnel`), `client` an address (IPv6 in brackets), `destination` one with port. `identity`: for inbound the peer's
    verified one, for outbound the destination's pinned one.
    """

    kind: str
    pod: str
    client: str
    destination: str
    ended: bool = True
    carried: bool = True
    """Whether bytes came from the application: those of a refused tunnel are Envoy's own."""
    route: str = ""
    target: str = ""
    workload: str = ""
    service: str = ""
    identity: str = ""
    denied: bool = False
    policy: str = ""
    dry_run: str = ""
    """The rule of dry-run policies that would have denied it, of tunnels that were allowed."""
    failure: str = ""
    called: str = ""
    """The service's host that a tunnel's client says it asked for."""
    baggage: str = ""
    """What it says of itself."""
    cut_short: bool = False
    """A tunnel whose other side reset it: the client must not take what it got for the whole."""


def lines(message: bytes) -> Iterator[Line]:
    """The lines of one message from Envoy; what is not one of ours, or is about a request, is left out."""
    for started, whole in texts(message):
        try:
            now, port, received, sent, text = whole.split(SEPARATOR, _NUMBERS)
            if not text[:1].isalpha():
                continue  # of a request (`ambit.agent.request_entry`)
            trace = b""
            if REQUEST_SEPARATOR in text:
                text, trace = _request(text)
            yield started, float(now), port, int(received), int(sent), trace, text
        except ValueError:
            continue


def read(text: str) -> About | None:
    """The text of a line; None when it is not one of ours."""
    text, _, called = text.partition(REQUEST_SEPARATOR)
    kind, *values = text.split(SEPARATOR)
    layout = _LAYOUTS.get(kind, ())
    found = named(layout, values)
    if not layout or found is None:
        return None
    return _hbone(kind, found, called) if kind == names.LOG_INBOUND else _tcp(kind, found)


def _request(text: str) -> tuple[str, bytes]:
    """A tunnel's text with no more of its request than the host, which others share, and its trace."""
    text, _, headers = text.partition(REQUEST_SEPARATOR)
    traceparent, _, forwarded = headers.partition(REQUEST_SEPARATOR)
    called = _CALLED.search(forwarded) if "host=" in forwarded else None
    if called is not None:
        text = f"{text}{REQUEST_SEPARATOR}{called[1]}"
    if len(traceparent) != _TRACEPARENT:
        return text, b""
    try:
        trace = bytes.fromhex(traceparent[3:35])
    except ValueError:
        return text, b""
    return text, trace if len(trace) == 16 else b""


def _tcp(kind: str, found: dict[str, str]) -> About:
    def endpoint_first(key: str) -> str:
        return found[HOST + key] or found.get(key, "")

    route, policy = endpoint_first(access_log.ROUTE), endpoint_first(access_log.POLICY)
    refused = route == REFUSED
    return About(
        kind=kind,
        pod=found["pod"],
        client=_bracketed(found["client"]),
        destination=found["destination"],
        ended=found["type"] not in _PERIODIC,
        route=route,
        target=found[HOST + access_log.TARGET],
        workload=endpoint_first(access_log.WORKLOAD),
        service=found.get(access_log.SERVICE, ""),
        identity=endpoint_first(access_log.IDENTITY),
        denied=(refused and bool(policy)) or found["upstream_failure"].endswith(":401"),
        policy=policy,
        failure=endpoint_first(access_log.REASON) if refused else _failure(found),
        cut_short=found.get(CLOSED) == RESET,
    )


def _hbone(kind: str, found: dict[str, str], called: str) -> About:
    accepted = found["status"] == _OK
    policy = found[access_log.POLICY]
    return About(
        kind=kind,
        pod=found["pod"],
        client=_bracketed(found["client"]),
        destination=found["authority"][:LONGEST_PLACE],
        ended=found["type"] not in _PERIODIC,
        carried=accepted,
        route=TUNNEL,
        identity=found[access_log.IDENTITY].partition(",")[0],
        denied=found["status"] == _UNAUTHORIZED,
        policy="" if policy == _NO_POLICY else policy,
        dry_run=found[access_log.DRY_RUN] if accepted and found[access_log.DRY_RUN_RESULT] == _DENIED else "",
        called=called,
        baggage=found[BAGGAGE],
        failure="" if accepted else _failure(found) or f"answered {found['status'] or 0}",
    )


def _failure(found: dict[str, str]) -> str:
    """Envoy's own words for what went wrong, empty when nothing did."""
    flags = _WORD.sub(" ", found["flags"]).lower().replace(",", ", ")
    return found["upstream_failure"] or found["downstream_failure"] or flags


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
