"""What clients of UDP sent and got by a gateway, with the labels of Istio's TCP metrics: Istio has none of UDP."""

from collections.abc import Iterator

from ambit.agent import connection_metrics
from ambit.agent.record import End, Flow
from ambit.agent.series import MAX_SERIES, Labels, Series

_PROTOCOL = connection_metrics.LABELS.index("request_protocol")
_FAMILIES = (
    ("ambit_udp_sessions", "Sessions of UDP clients that have ended"),
    ("ambit_udp_received_datagrams", "Datagrams from clients in sessions that have ended"),
    ("ambit_udp_sent_datagrams", "Datagrams to clients in sessions that have ended"),
    ("ambit_udp_received_bytes", "Bytes of the datagrams from clients"),
    ("ambit_udp_sent_bytes", "Bytes of the datagrams to clients"),
)
SESSIONS, DATAGRAMS_RECEIVED, DATAGRAMS_SENT, RECEIVED, SENT = range(5)
"""Positions in the numbers of a label set."""


def series() -> Series:
    """Counters by label set, none yet."""
    return Series(connection_metrics.LABELS, len(_FAMILIES), MAX_SERIES)


def render(counters: Series) -> Iterator[str]:
    """Prometheus text lines."""
    for index, (name, text) in enumerate(_FAMILIES):
        yield f"# HELP {name}_total {text}."
        yield f"# TYPE {name}_total counter"
        for labels, counts in counters.shown(name):
            yield f"{name}_total{{{labels}}} {counts[index]}"


def labels(flow: Flow, own: End) -> Labels:
    """The label values of a record: those of a connection, but of UDP."""
    of_tcp = connection_metrics.labels(flow, own)
    return (*of_tcp[:_PROTOCOL], "udp", *of_tcp[_PROTOCOL + 1 :])
