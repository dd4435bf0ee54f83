"""Spans of requests: Envoy's OpenTelemetry tracer, which tells a collector of them by OTLP.

Envoy reads and writes the headers of W3C only (`traceparent`, `tracestate`). What a request says of its trace in
Zipkin's headers (B3) is written as `traceparent` before Envoy looks for that, where there is none; Zipkin's own go on
as they came.

Spans of a waypoint have its client's workload: what the tunnel says of it, or the client's own node knows, is put into
a header, which the first filter takes apart and away.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2, grpc_service_pb2, http_service_pb2, http_uri_pb2
from envoy.config.trace.v3 import http_tracer_pb2, opentelemetry_pb2
from envoy.extensions.filters.http.header_to_metadata.v3 import header_to_metadata_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.extensions.request_id.uuid.v3 import uuid_pb2
from envoy.type.matcher.v3 import regex_pb2
from envoy.type.tracing.v3 import custom_tag_pb2
from envoy.type.v3 import percent_pb2

from ambit.envoy import filter_state, names
from ambit.envoy.logs import request_log
from ambit.envoy.words import boolean, pack, pack_untyped, seconds, uint32
from ambit.model.tracing import SpanTag, TagSource, Tracer, Tracing
from ambit.model.workload import WorkloadType

_Manager = http_connection_manager_pb2.HttpConnectionManager
_Tracing = _Manager.Tracing
_Rewrite = regex_pb2.RegexMatchAndSubstitute
_OPERATION = "%REQ(:METHOD)% %ROUTE_NAME%"
_NO_CONTEXT_PROPAGATION = bytes([13 << 3, 1])
"""A field that xds-protos 1.85 lacks, as it is on the wire."""
_SAID = "x-ambit-client"
"""The header with the client's identity and, after a comma, what it says of itself."""
_CLIENT = "ambit.client"
"""Dynamic metadata with the parts of that."""
_KINDS = "|".join(kind.name.lower() for kind in WorkloadType)
_PARTS = {
    "namespace": r"spiffe://[^/,]*/ns/([^/,]*)/sa/",
    "workload": rf"[^,]*,(?:.*,)?k8s\.(?:{_KINDS})\.name=([^,;]*)",
    "cluster_id": r"[^,]*,(?:.*,)?k8s\.cluster\.name=([^,;]*)",
    "canonical_service": r"[^,]*,(?:.*,)?service\.name=([^,;]*)",
    "canonical_revision": r"[^,]*,(?:.*,)?service\.version=([^,;]*)",
}
"""Each with how it is found; the namespace is the certificate's."""


class Spans(msgspec.Struct, frozen=True):
    """What a proxy (`service`, in words of OpenTelemetry) tells the collector behind `cluster` of; every span has the
    tags `about`."""

    tracing: Tracing
    cluster: str
    service: str
    about: tuple[tuple[str, str], ...] = ()
    is_edge: bool = False
    client: str = ""
    """Who calls, where that is known before: an identity and, after a comma, what the client says of itself."""
    endpoint: str = ""
    """Begins the keys of an endpoint's metadata that have the parts of whom it is."""


def configure(manager: Any, spans: Spans) -> None:
    """Has a connection manager tell of its requests."""
    tracing = spans.tracing
    made = _Tracing(
        client_sampling=percent_pb2.Percent(value=100),
        random_sampling=percent_pb2.Percent(value=tracing.sampling),
        overall_sampling=percent_pb2.Percent(value=100),
        custom_tags=sorted(_tags(spans), key=lambda each: each.tag),
        operation=_OPERATION,
        provider=http_tracer_pb2.Tracing.Http(
            name="envoy.tracers.opentelemetry", typed_config=pack(_tracer(spans))
        ),
    )
    if tracing.tracer.path_length:
        made.max_path_tag_length.CopyFrom(uint32(tracing.tracer.path_length))
    if not tracing.propagated:
        made.MergeFromString(_NO_CONTEXT_PROPAGATION)
    manager.tracing.CopyFrom(made)
    manager.request_id_extension.typed_config.CopyFrom(
        pack(uuid_pb2.UuidRequestIdConfig(use_request_id_for_trace_sampling=boolean(tracing.by_request_id)))
    )
    manager.early_header_mutation_extensions.append(_before(spans))
    if not spans.is_edge:
        manager.http_filters.insert(0, _taken_apart())


def _tracer(spans: Spans) -> Any:
    given = spans.tracing.tracer
    made = opentelemetry_pb2.OpenTelemetryConfig(service_name=spans.service)
    if given.from_environment:
        made.resource_detectors.add(
            name="envoy.tracers.opentelemetry.resource_detectors.environment",
            typed_config=pack_untyped(
                "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig",
                {},
            ),
        )
    _collector(made, given, spans.cluster)
    return made


def _collector(made: Any, given: Tracer, cluster: str) -> None:
    headers = [base_pb2.HeaderValue(key=key, value=value) for key, value in given.headers]
    host, timeout = given.service.hostname, seconds(given.timeout / 1000)
    if given.http is None:
        made.grpc_service.CopyFrom(
            grpc_service_pb2.GrpcService(
                envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=cluster, authority=host),
                timeout=timeout,
                initial_metadata=headers,
            )
        )
        return
    made.http_service.CopyFrom(
        http_service_pb2.HttpService(
            http_uri=http_uri_pb2.HttpUri(
                uri=f"http://{host}{given.http.path}", cluster=cluster, timeout=timeout
            ),
            request_headers_to_add=[base_pb2.HeaderValueOption(header=each) for each in headers],
        )
    )


def _tags(spans: Spans) -> Iterator[Any]:
    """One's own tag goes before one of ours with the same name."""
    own = {each.name: each for each in spans.tracing.tags}
    yield from map(_tag, own.values())
    if spans.tracing.usual_tags:
        for name, value in spans.about:
            if name not in own:
                yield custom_tag_pb2.CustomTag(
                    tag=name, literal=custom_tag_pb2.CustomTag.Literal(value=value)
                )
    for name, value in (
        *_ends("destination", _UPSTREAM.format(spans.endpoint)),
        *(() if spans.is_edge else _SOURCE),
    ):
        if name not in own:
            yield custom_tag_pb2.CustomTag(tag=name, value=value)


def _ends(end: str, template: str) -> Iterator[tuple[str, str]]:
    for part in _PARTS:
        yield f"istio.{end}_{part}", template.format(part)


_UPSTREAM = f"%UPSTREAM_METADATA({names.METADATA}:{{}}{{{{}}}})%"
_SOURCE = tuple(_ends("source", f"%DYNAMIC_METADATA({_CLIENT}:{{}})%"))


def _tag(given: SpanTag) -> Any:
    made = custom_tag_pb2.CustomTag(tag=given.name)
    match given.source:
        case TagSource.LITERAL:
            made.literal.value = given.value
        case TagSource.ENVIRONMENT:
            made.environment.name, made.environment.default_value = given.value, given.default
        case TagSource.HEADER:
            made.request_header.name, made.request_header.default_value = given.value, given.default
        case TagSource.FORMAT:
            made.value = given.value
    return made


def _before(spans: Spans) -> Any:
    """What is done to a request's headers before anybody reads them."""
    mutations = [_removed(each) for each in (_SAID, *_WHOLE)]
    mutations += _parents_in_b3()
    if not spans.is_edge:
        mutations.append(
            _added(
                _SAID,
                spans.client.replace("%", "%%")
                or f"{filter_state.CALLER_FORMAT},{request_log.CLIENT_BAGGAGE}",
                is_replaced=True,
            )
        )
    return extension_pb2.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=pack(header_mutation_pb2.HeaderMutation(mutations=mutations)),
    )


_WHOLE = ("x-ambit-b3-long", "x-ambit-b3-short")
"""Headers with Zipkin's single one, where it is well-formed and its trace has 32 digits, or 16."""
_LONG, _SHORT = 32, 16
_PADDED = "00-0000000000000000"


def _parents_in_b3() -> Iterator[Any]:
    """In Envoy's CEL no texts can be joined and expressions have to be short, so it is several, and what is empty does
    nothing. Whoever says no decision wants to be recorded."""
    trace, span, sampled = (f"request.headers['x-b3-{each}']" for each in ("traceid", "spanid", "sampled"))
    several = (
        "'x-b3-traceid' in request.headers && 'x-b3-spanid' in request.headers"
        f" && {span}.matches('^[0-9a-f]{{16}}$') && {trace}.matches('^([0-9a-f]{{16}}){{1,2}}$')"
    )
    yield _added(
        "traceparent",
        _if(several, f"size({trace}) == {_SHORT} ? '{_PADDED}' : '00-'")
        + _if(several, trace)
        + _if(several, "'-'")
        + _if(several, span)
        + _if(several, f"'x-b3-sampled' in request.headers && {sampled} in ['0', 'false'] ? '-00' : '-01'"),
    )
    one = "request.headers['b3']"
    for name, digits, begin in zip(_WHOLE, (_LONG, _SHORT), ("00-", _PADDED), strict=True):
        ids = digits + 1 + _SHORT
        whole = (
            f"'b3' in request.headers && size({one}) in [{ids}, {ids + 2}, {ids + 3 + _SHORT}]"
            f" && {one}.matches('^[0-9a-f]{{{digits}}}-')"
            f" && {one}.matches('^[0-9a-f]+-[0-9a-f]+(-[01d](-[0-9a-f]+)?)?$')"
        )
        yield _added(name, _if(whole, one))
        is_there = f"'{name}' in request.headers"
        unsampled = f"{one}.matches('^[0-9a-f]+-[0-9a-f]+-0') ? '-00' : '-01'"
        yield _added(
            "traceparent", f"{_if(is_there, repr(begin))}%REQ({name}):{ids}%{_if(is_there, unsampled)}"
        )
        yield _removed(name)


def _if(condition: str, value: str) -> str:
    return f"%CEL({condition} ? ({value}) : '')%"


def _added(name: str, template: str, *, is_replaced: bool = False) -> Any:
    """Where it is not there yet, unless it `is_replaced`."""
    option = base_pb2.HeaderValueOption
    return mutation_rules_pb2.HeaderMutation(
        append=option(
            header=base_pb2.HeaderValue(key=name, value=template),
            append_action=option.OVERWRITE_IF_EXISTS_OR_ADD if is_replaced else option.ADD_IF_ABSENT,
        )
    )


def _removed(name: str) -> Any:
    return mutation_rules_pb2.HeaderMutation(remove=name)


def _taken_apart() -> Any:
    """The first filter of a waypoint: what its client says of itself, part by part, and no longer in a header."""
    rules = [
        header_to_metadata_pb2.Config.Rule(
            header=_SAID,
            on_header_present=header_to_metadata_pb2.Config.KeyValuePair(
                metadata_namespace=_CLIENT,
                key=part,
                regex_value_rewrite=_Rewrite(
                    # Without the second branch a text without the part would be taken whole.
                    pattern=regex_pb2.RegexMatcher(regex=f"^{pattern}.*$|^.*$"),
                    substitution=r"\1",
                ),
            ),
        )
        for part, pattern in _PARTS.items()
    ]
    rules[-1].remove = True
    return http_connection_manager_pb2.HttpFilter(
        name="envoy.filters.http.header_to_metadata",
        typed_config=pack(header_to_metadata_pb2.Config(request_rules=rules)),
    )
