"""Typed projection of Istio's Telemetry: the fields that the compiler reads, and those of which it says that they do
nothing."""

from typing import Literal

import msgspec

from ambit.objects.istio import Provider, TargetRef, WorkloadSelector
from ambit.objects.meta import ObjectMeta

Mode = Literal["CLIENT_AND_SERVER", "CLIENT", "SERVER"]


class LoggingMatch(msgspec.Struct, frozen=True):
    mode: Mode = "CLIENT_AND_SERVER"


class LoggingFilter(msgspec.Struct, frozen=True):
    expression: str = ""


class AccessLogging(msgspec.Struct, frozen=True):
    match: LoggingMatch = LoggingMatch()
    providers: tuple[Provider, ...] = ()
    disabled: bool | None = None
    filter: LoggingFilter = LoggingFilter()


class TagValue(msgspec.Struct, frozen=True):
    value: str = ""


class TagName(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    default_value: str = ""


class CustomTag(msgspec.Struct, frozen=True):
    literal: TagValue | None = None
    environment: TagName | None = None
    header: TagName | None = None
    formatter: TagValue | None = None


class Tracing(msgspec.Struct, frozen=True, rename="camel"):
    match: LoggingMatch = LoggingMatch()
    providers: tuple[Provider, ...] = ()
    random_sampling_percentage: float | None = None
    disable_span_reporting: bool | None = None
    disable_context_propagation: bool | None = None
    custom_tags: dict[str, CustomTag] | None = None
    use_request_id_for_trace_sampling: bool | None = None
    enable_istio_tags: bool | None = None


class MetricMatch(msgspec.Struct, frozen=True, rename="camel"):
    metric: str = ""
    custom_metric: str = ""
    mode: Mode = "CLIENT_AND_SERVER"


class TagOverride(msgspec.Struct, frozen=True):
    operation: Literal["UPSERT", "REMOVE"] = "UPSERT"
    value: str = ""


class MetricsOverride(msgspec.Struct, frozen=True, rename="camel"):
    match: MetricMatch = MetricMatch()
    disabled: bool | None = None
    tag_overrides: dict[str, TagOverride] = {}


class Metrics(msgspec.Struct, frozen=True):
    providers: tuple[Provider, ...] = ()
    overrides: tuple[MetricsOverride, ...] = ()


class TelemetrySpec(msgspec.Struct, frozen=True, rename="camel"):
    selector: WorkloadSelector | None = None
    target_ref: TargetRef | None = None
    target_refs: tuple[TargetRef, ...] = ()
    access_logging: tuple[AccessLogging, ...] = ()
    metrics: tuple[Metrics, ...] = ()
    tracing: tuple[Tracing, ...] = ()


class Telemetry(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: TelemetrySpec = TelemetrySpec()
