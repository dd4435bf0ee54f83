"""Istio's standard metrics of requests, counted by the agent: monotonic over every restart of Envoy.

Buckets are Envoy's own, which Istio's waypoints have for all three (`envoy.config.metrics.v3.HistogramBucketSettings`).
"""

from bisect import bisect_left
from collections.abc import Iterator

import msgspec

from ambit.agent.record import End, Flow, Reporter
from ambit.agent.request_entry import Entry
from ambit.agent.series import AS_COUNTED, ENDS, UNKNOWN, Labels, Series, ends
from ambit.model.metrics import MetricsNote

LABELS = (
    "reporter",
    *ENDS,
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
)
MAX_SERIES = 4_000
"""Label sets; each is some seventy lines of text, which a scrape takes."""
BOUNDS = (
    *(0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000),
    *(300_000, 600_000, 1_800_000, 3_600_000),
)
_BUCKETS = len(BOUNDS) + 1
REQUESTS, MESSAGES_IN, MESSAGES_OUT = range(3)
"""Positions in the numbers of a label set."""
_WIDTH = _BUCKETS + 1


class _Histogram(msgspec.Struct, frozen=True):
    """`first` is the position of its buckets, each with its own count; their sum follows, in parts of `unit`."""

    name: str
    text: str
    first: int
    unit: int = 1


_COUNTERS = (
    ("istio_requests", "Requests that ended", REQUESTS),
    ("istio_request_messages", "Messages of gRPC from clients", MESSAGES_IN),
    ("istio_response_messages", "Messages of gRPC to clients", MESSAGES_OUT),
)
_DURATION, _RECEIVED, _SENT = HISTOGRAMS = (
    _Histogram("istio_request_duration_milliseconds", "How long requests took", 3, 1000),
    _Histogram("istio_request_bytes", "Bytes of requests' bodies", 3 + _WIDTH),
    _Histogram("istio_response_bytes", "Bytes of answers' bodies", 3 + 2 * _WIDTH),
)


def series() -> Series:
    """Numbers by label set, none yet."""
    return Series(LABELS, 3 + 3 * _WIDTH, MAX_SERIES)


def count(numbers: list[int], entry: Entry, milliseconds: float) -> None:
    """Adds a request to the numbers of its label set."""
    numbers[REQUESTS] += 1
    if entry.messages is not None:
        numbers[MESSAGES_IN] += entry.messages[0]
        numbers[MESSAGES_OUT] += entry.messages[1]
    numbers[_DURATION.first + bisect_left(BOUNDS, milliseconds)] += 1
    numbers[_DURATION.first + _BUCKETS] += round(milliseconds * 1000)
    for histogram, value in ((_RECEIVED, entry.received), (_SENT, entry.sent)):
        numbers[histogram.first + bisect_left(BOUNDS, value)] += 1
        numbers[histogram.first + _BUCKETS] += value


def labels(flow: Flow, own: End) -> Labels:
    """The label values of a record, in the order of LABELS. A gateway counts as the source, which it is to the mesh:
    `own` is its end, as Istio has it."""
    request = flow.request
    assert request is not None, "a record of a request"
    is_edge = flow.reporter is Reporter.GATEWAY
    return (
        (Reporter.SOURCE if is_edge else flow.reporter).value,
        *ends(own if is_edge else flow.source, flow.destination),
        "grpc" if request.grpc_status else "http",
        str(request.code),
        request.grpc_status,
        request.flags or "-",
        _security(flow, is_edge=is_edge),
    )


def _security(flow: Flow, *, is_edge: bool) -> str:
    proven = bool(flow.destination.identity) if is_edge else flow.mutual_tls
    return "mutual_tls" if proven else UNKNOWN


def render(found: Series, note: MetricsNote = AS_COUNTED) -> Iterator[str]:
    """Prometheus text, a piece for each label set and metric: whole it can be megabytes. `note` says what is left
    out."""
    for name, text, position in _COUNTERS:
        yield f"# HELP {name}_total {text}.\n# TYPE {name}_total counter\n"
        for shown, numbers in found.shown(name, note):
            if numbers[position]:
                yield f"{name}_total{{{shown}}} {numbers[position]}\n"
    for histogram in HISTOGRAMS:
        name = histogram.name
        yield f"# HELP {name} {histogram.text}.\n# TYPE {name} histogram\n"
        for shown, numbers in found.shown(name, note):
            if numbers[REQUESTS]:
                yield "".join(_lines(histogram, shown, numbers))


def _lines(histogram: _Histogram, shown: str, numbers: list[int]) -> Iterator[str]:
    below = 0
    for index, bound in enumerate((*BOUNDS, "+Inf")):
        below += numbers[histogram.first + index]
        yield f'{histogram.name}_bucket{{{shown},le="{bound}"}} {below}\n'
    total = numbers[histogram.first + _BUCKETS]
    yield f"{histogram.name}_sum{{{shown}}} {total if histogram.unit == 1 else total / histogram.unit}\n"
    yield f"{histogram.name}_count{{{shown}}} {below}\n"
