"""Typed projection of Istio's Telemetry: the fields that the compiler reads, and those of which it says that they do
nothing."""

from typing import Any, Literal

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


class TelemetrySpec(msgspec.Struct, frozen=True, rename="camel"):
    """`metrics` and `tracing` are not read any deeper."""

    selector: WorkloadSelector | None = None
    target_ref: TargetRef | None = None
    target_refs: tuple[TargetRef, ...] = ()
    access_logging: tuple[AccessLogging, ...] = ()
    metrics: tuple[Any, ...] = ()
    tracing: tuple[Any, ...] = ()


class Telemetry(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: TelemetrySpec = TelemetrySpec()
