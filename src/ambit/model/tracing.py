"""Which requests leave spans, with which tags, and where these go: Istio's Telemetry and MeshConfig, as values."""

from enum import Enum

import msgspec

from ambit.model.provider import ProviderService

USUAL_SAMPLING = 1.0
"""Percent of requests, when nobody says anything (istiod: `PILOT_TRACE_SAMPLING`)."""


class TagSource(Enum):
    """Where a tag's value is from: `FORMAT` is in Envoy's words for access logs."""

    LITERAL = "literal"
    ENVIRONMENT = "environment"
    HEADER = "header"
    FORMAT = "format"


class SpanTag(msgspec.Struct, frozen=True):
    """`value` is the text, or the name of what has it; `default` when that is not there."""

    name: str
    source: TagSource
    value: str
    default: str = ""


class OverHttp(msgspec.Struct, frozen=True):
    """Spans are posted to this path (OTLP/HTTP)."""

    path: str


class Tracer(msgspec.Struct, frozen=True):
    """A collector that is told of spans by OTLP (Istio: `opentelemetry`), over gRPC unless `http`. `timeout` is in
    milliseconds, `headers` go with every message; `path_length` bounds the path in a span (0: Envoy's own bound).
    With `from_environment` spans have the proxy's `OTEL_RESOURCE_ATTRIBUTES`, too."""

    name: str
    service: ProviderService
    timeout: int
    http: OverHttp | None = None
    headers: tuple[tuple[str, str], ...] = ()
    path_length: int = 0
    from_environment: bool = False

    @property
    def is_grpc(self) -> bool:
        return self.http is None


class TracingRule(msgspec.Struct, frozen=True):
    """One entry: what is None stays as it is said farther away. `sampling` is in percent. It is for waypoints (servers
    of who calls), for gateways (clients of what they lead to), or for both."""

    tracer: Tracer | None = None
    sampling: float | None = None
    disabled: bool | None = None
    tags: tuple[SpanTag, ...] | None = None
    by_request_id: bool | None = None
    usual_tags: bool | None = None
    propagated: bool | None = None
    at_waypoints: bool = True
    at_gateways: bool = True


class Tracing(msgspec.Struct, frozen=True):
    """What a proxy does. `by_request_id`: of two proxies that see one `x-request-id` both take the request or neither.
    Without `propagated` the next hop is not told of the trace."""

    tracer: Tracer
    sampling: float = USUAL_SAMPLING
    tags: tuple[SpanTag, ...] = ()
    by_request_id: bool = True
    usual_tags: bool = True
    propagated: bool = True


class MeshTracing(msgspec.Struct, frozen=True):
    """What the mesh's settings say: collectors, and what holds when no object says otherwise."""

    tracers: tuple[Tracer, ...] = ()
    default: TracingRule | None = None

    def tracer(self, name: str) -> Tracer | None:
        return next((each for each in self.tracers if each.name == name), None)
