"""Collectors of spans (Istio: `opentelemetry` of `extensionProviders`), and what the mesh's settings say of tracing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ambit.core.errors import BadInput
from ambit.ingest.mesh_settings.providers import VALUE, Provider, convert, milliseconds, service
from ambit.ingest.mesh_settings.span_tags import BadTag, span_tags
from ambit.model.http_bounds import PLAIN_NAME
from ambit.model.tracing import MeshTracing, OverHttp, Tracer, TracingRule
from ambit.objects.telemetry import CustomTag

KINDS = ("opentelemetry",)
DEFAULT_CONFIG = "defaultConfig"
_USUAL_TIMEOUT = "3s"


class _Header(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: str
    value: str = ""


class _Http(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    path: str
    timeout: str = _USUAL_TIMEOUT
    headers: tuple[_Header, ...] = ()


class _Grpc(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    timeout: str = _USUAL_TIMEOUT
    initial_metadata: tuple[_Header, ...] = ()


class _Detectors(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    environment: dict[str, Any] | None = None
    dynatrace: dict[str, Any] | None = None


class _OpenTelemetry(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    service: str
    port: int
    max_tag_length: int = 0
    http: _Http | None = None
    grpc: _Grpc | None = None
    resource_detectors: _Detectors = _Detectors()


class GivenTracing(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """`tracing` of MeshConfig's `defaultConfig`."""

    sampling: float | None = None
    custom_tags: dict[str, CustomTag] | None = None
    max_path_tag_length: int = 0
    enable_istio_tags: bool | None = None


def tracer(given: Provider) -> Tracer:
    """The provider of one of these KINDS. Raises BadInput, which names the field."""
    fields = convert(given, _OpenTelemetry)
    if fields.http is not None and fields.grpc is not None:
        raise BadInput(f"{given.where} has http and grpc", "Keep one: how spans are sent.")
    if fields.resource_detectors.dynatrace is not None:
        raise BadInput(
            f"{given.where}.resourceDetectors.dynatrace: proxies have no files of Dynatrace's",
            "Leave it out.",
        )
    if fields.max_tag_length < 0:
        raise BadInput(f"{given.where}.maxTagLength: {fields.max_tag_length} is no length", "Leave it out.")
    if fields.http is not None and not re.fullmatch(r"/[!-~]*", fields.http.path):
        raise BadInput(f"{given.where}.http.path: {fields.http.path!r} is no path", "Write it as /v1/traces.")
    place = service(given, fields.service, fields.port)
    way = fields.http or fields.grpc or _Grpc()
    over_http = isinstance(way, _Http)
    return Tracer(
        given.name,
        place,
        milliseconds(given, "http.timeout" if over_http else "grpc.timeout", way.timeout),
        OverHttp(way.path) if isinstance(way, _Http) else None,
        _headers(given, way.headers if isinstance(way, _Http) else way.initial_metadata),
        fields.max_tag_length,
        from_environment=fields.resource_detectors.environment is not None,
    )


def mesh_tracing(
    tracers: Sequence[Tracer], names: Sequence[str], given: GivenTracing, file: str
) -> MeshTracing:
    """What holds without any Telemetry: `names` are the default providers. Raises BadInput, which names the field."""
    where = f"{file}: {DEFAULT_CONFIG}.tracing"
    if given.sampling is not None and not 0 <= given.sampling <= 100:
        raise BadInput(f"{where}.sampling: {given.sampling} is no percentage", "Write 0 to 100.")
    found = MeshTracing(tuple(_bounded(each, given.max_path_tag_length) for each in tracers))
    default = found.tracer(names[0]) if names else None
    if names and (default is None or len(names) > 1):
        raise BadInput(
            f"{file}: defaultProviders.tracing: {', '.join(names)}: it has to be one provider of spans",
            f"Name one of extensionProviders, of the kind {KINDS[0]}.",
        )
    try:
        tags = None if given.custom_tags is None else span_tags(given.custom_tags)
    except BadTag as problem:
        raise BadInput(f"{where}.customTags.{problem.path}: {problem}", "Correct the tag.") from problem
    rule = TracingRule(default, given.sampling, tags=tags, usual_tags=given.enable_istio_tags)
    return found if rule == TracingRule() else msgspec.structs.replace(found, default=rule)


def _bounded(given: Tracer, length: int) -> Tracer:
    return msgspec.structs.replace(given, path_length=given.path_length or length)


def _headers(given: Provider, headers: Iterable[_Header]) -> tuple[tuple[str, str], ...]:
    found: Mapping[str, str] = {each.name.lower(): each.value for each in headers}
    for name, value in found.items():
        if not PLAIN_NAME.fullmatch(name) or not VALUE.fullmatch(value):
            raise BadInput(
                f"{given.where}: {name!r} is no header, or has no such value",
                "Write names of headers and their values; values from the environment are not read.",
            )
    return tuple(sorted(found.items()))
