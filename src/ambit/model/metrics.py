"""What metrics leave out or add: Istio's Telemetry, as values."""

import hashlib
from collections.abc import Mapping

import msgspec

OF_REQUESTS: Mapping[str, str] = {
    "REQUEST_COUNT": "istio_requests",
    "REQUEST_DURATION": "istio_request_duration_milliseconds",
    "REQUEST_SIZE": "istio_request_bytes",
    "RESPONSE_SIZE": "istio_response_bytes",
    "GRPC_REQUEST_MESSAGES": "istio_request_messages",
    "GRPC_RESPONSE_MESSAGES": "istio_response_messages",
}
OF_CONNECTIONS: Mapping[str, str] = {
    "TCP_OPENED_CONNECTIONS": "istio_tcp_connections_opened",
    "TCP_CLOSED_CONNECTIONS": "istio_tcp_connections_closed",
    "TCP_RECEIVED_BYTES": "istio_tcp_received_bytes",
    "TCP_SENT_BYTES": "istio_tcp_sent_bytes",
}
METRICS: Mapping[str, str] = {**OF_REQUESTS, **OF_CONNECTIONS}
"""Of waypoints and gateways: Istio's words for them, and what they are called (counters without `_total`)."""
FAILED = "istio_tcp_connections_failed"
"""Of connections, too, without a word of Istio's."""
ALL = (*METRICS.values(), FAILED)

Labels = tuple[tuple[str, str | None], ...]
"""Labels by name, sorted: the value that each gets, or None where it is left out."""
Expressions = tuple[tuple[str, str], ...]
"""Labels by name, sorted: the expression (CEL) whose value each gets. Only requests have such values."""


class MetricsRule(msgspec.Struct, frozen=True):
    """One override of these metrics (by their names). What is None stays as it is said farther away."""

    metrics: tuple[str, ...]
    disabled: bool | None = None
    labels: Labels = ()
    at_waypoints: bool = True
    at_gateways: bool = True
    expressions: Expressions = ()


class Override(msgspec.Struct, frozen=True):
    """What becomes of a metric."""

    disabled: bool = False
    labels: Labels = ()
    expressions: Expressions = ()


class MetricsNote(msgspec.Struct, frozen=True):
    """What a proxy is to do, by metric; of the services that have something else said of them (by key) that alone."""

    usual: Mapping[str, Override] = {}
    services: Mapping[str, Mapping[str, Override]] = {}

    def of(self, service: str) -> Mapping[str, Override]:
        return self.services.get(service, self.usual)

    def changes(self, metric: str) -> bool:
        """Whether anything is said of a metric at all."""
        return any(metric in each for each in (self.usual, *self.services.values()))


def mark(expression: str) -> str:
    """A short name for an expression, in records that have its value: what is told of before and after a change must
    not be taken for one another's."""
    return hashlib.sha256(expression.encode()).hexdigest()[:8]
