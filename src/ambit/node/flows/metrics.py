"""Istio's standard TCP metrics, counted by the agent: monotonic over every restart of Envoy.

Labels are ztunnel's (`src/proxy/metrics.rs`). A missing value is `unknown`.
"""

from collections.abc import Iterator

from ambit.node.flows.record import End, Flow

UNKNOWN = "unknown"
_END_LABELS = (
    "workload",
    "canonical_service",
    "canonical_revision",
    "workload_namespace",
    "principal",
    "app",
    "version",
    "cluster",
    "region",
    "zone",
)
LABELS = (
    "reporter",
    *(f"source_{label}" for label in _END_LABELS),
    *(f"destination_{label}" for label in _END_LABELS),
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
)
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
MAX_SERIES = 10_000
"""More label sets than this are counted as `unknown`: a peer must not be able to fill our memory."""

Labels = tuple[str, ...]


class TcpMetrics:
    """Counters by label set."""

    def __init__(self) -> None:
        self._series: dict[Labels, list[int]] = {}

    def __len__(self) -> int:
        return len(self._series)

    def series(self, labels: Labels) -> list[int]:
        """The counters of a label set, for adding to; in the order of OPENED to SENT."""
        found = self._series.get(labels)
        if found is None:
            if len(self._series) >= MAX_SERIES:
                labels = (labels[0], *(UNKNOWN for _ in labels[1:]))
            found = self._series.setdefault(labels, [0] * len(_FAMILIES))
        return found

    def render(self) -> Iterator[str]:
        """Prometheus text lines."""
        shown = {labels: _rendered(labels) for labels in self._series}
        for index, (name, text) in enumerate(_FAMILIES):
            yield f"# HELP {name}_total {text}."
            yield f"# TYPE {name}_total counter"
            for labels, counts in self._series.items():
                if counts[index] or index in (OPENED, RECEIVED, SENT):
                    yield f"{name}_total{{{shown[labels]}}} {counts[index]}"


def labels(flow: Flow) -> Labels:
    """The label values of a record, in the order of LABELS."""
    namespace, _, host = flow.destination.service.partition("/")
    return (
        flow.reporter.value,
        *_end(flow.source),
        *_end(flow.destination),
        host or UNKNOWN,
        namespace or UNKNOWN,
        host.partition(".")[0] or UNKNOWN,
        "tcp",
        flags(flow),
        "mutual_tls" if flow.mutual_tls else UNKNOWN,
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


def _end(end: End) -> tuple[str, ...]:
    principal = end.identity
    return (
        end.workload_name or end.workload or UNKNOWN,
        end.canonical_service or UNKNOWN,
        end.canonical_revision or UNKNOWN,
        end.namespace or UNKNOWN,
        principal or UNKNOWN,
        end.canonical_service or UNKNOWN,
        end.canonical_revision or UNKNOWN,
        end.cluster or UNKNOWN,
        end.region or UNKNOWN,
        end.zone or UNKNOWN,
    )


def _rendered(values: Labels) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(LABELS, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
