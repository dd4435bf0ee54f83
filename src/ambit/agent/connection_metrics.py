"""Istio's standard TCP metrics, counted by the agent: monotonic over every restart of Envoy."""

from collections.abc import Iterator

from ambit.agent.record import End, Flow, Reporter
from ambit.agent.series import AS_COUNTED, ENDS, MAX_SERIES, UNKNOWN, Labels, Series, ends
from ambit.model.metrics import MetricsNote

LABELS = ("reporter", *ENDS, "request_protocol", "response_flags", "connection_security_policy")
_FAMILIES = (
    ("istio_tcp_connections_opened", "The total number of TCP connections opened"),
    ("istio_tcp_connections_closed", "The total number of TCP connections closed"),
    ("istio_tcp_connections_failed", "The total number of TCP connections that failed"),
    (
        "istio_tcp_received_bytes",
        "The size of total bytes received during request in case of a TCP connection",
    ),
    ("istio_tcp_sent_bytes", "The size of total bytes sent during response in case of a TCP connection"),
)
OPENED, CLOSED, FAILED, RECEIVED, SENT = range(5)
"""Positions in the numbers of a label set."""


def series() -> Series:
    """Counters by label set, none yet."""
    return Series(LABELS, len(_FAMILIES), MAX_SERIES)


def render(counters: Series, note: MetricsNote = AS_COUNTED) -> Iterator[str]:
    """Prometheus text lines. `note` says what is left out."""
    for index, (name, text) in enumerate(_FAMILIES):
        yield f"# HELP {name}_total {text}."
        yield f"# TYPE {name}_total counter"
        for labels, counts in counters.shown(name, note):
            if counts[index] or index in (OPENED, RECEIVED, SENT):
                yield f"{name}_total{{{labels}}} {counts[index]}"


def labels(flow: Flow, own: End | None = None) -> Labels:
    """The label values of a record, in the order of LABELS. A gateway counts as the source, which it is to the mesh:
    `own` is its end, as Istio has it."""
    is_edge = flow.reporter is Reporter.GATEWAY
    proven = bool(flow.destination.identity) if is_edge else flow.mutual_tls
    return (
        (Reporter.SOURCE if is_edge else flow.reporter).value,
        *ends(own if is_edge and own is not None else flow.source, flow.destination),
        "tcp",
        flags(flow),
        "mutual_tls" if proven else UNKNOWN,
    )


def flags(flow: Flow) -> str:
    """ztunnel's response flags: why it failed, `-` when it did not."""
    if flow.decision == "deny":
        return "DENY"
    if not flow.error:
        return "-"
    if "TLS" in flow.error or "CERT" in flow.error:
        return "TLS_FAILURE"
    return "CONNECT"
