"""Access logs of requests that are sent to a service: records of OTLP, or Envoy's own entries, over gRPC.

A service that is away or slow costs no request anything: what Envoy cannot send it drops.
"""

from typing import Any

import msgspec
from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2, grpc_service_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2

from ambit.envoy.logs import access_log
from ambit.envoy.logs.request_log import usual_text
from ambit.envoy.words import pack, pack_untyped
from ambit.model.telemetry import Entries, LogService, RequestLog

_BY = "service.name"
_LOG = "log_name"
"""Of the resource that records are about: the proxy in words of OpenTelemetry, and Envoy's word for the log."""


class SentLog(msgspec.Struct, frozen=True):
    """What a proxy (`by`, in words of OpenTelemetry) tells the service behind `cluster`."""

    log: RequestLog
    to: LogService
    cluster: str
    by: str


def sent(given: SentLog, *, is_believed: bool = False) -> Any:
    """Every request that the filter is true of. `is_believed`: as in `request_log.every`."""
    entries = given.to.entries
    made = _otlp(given, is_believed=is_believed) if entries is None else _entries(given, entries)
    if given.log.filter:
        made.filter.extension_filter.CopyFrom(access_log.cel(given.log.filter))
    return made


def _otlp(given: SentLog, *, is_believed: bool) -> Any:
    # xds-protos 1.85 has only the deprecated `common_config`, which Envoy 1.40 warns about.
    text = given.log.printer.format.text or usual_text(is_believed=is_believed)
    fields = {
        "log_name": given.to.log_name,
        "grpc_service": {
            "envoy_grpc": {"cluster_name": given.cluster, "authority": given.to.service.hostname}
        },
        "disable_builtin_labels": True,
        "resource_attributes": _attributes({_BY: given.by, _LOG: given.to.log_name}),
        "body": {"string_value": text.removesuffix("\n")},
    }
    if given.to.attributes:
        fields["attributes"] = _attributes(dict(given.to.attributes))
    config = pack_untyped(
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig", fields
    )
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.open_telemetry", typed_config=config)


def _attributes(given: dict[str, str]) -> dict[str, Any]:
    return {"values": [{"key": key, "value": {"string_value": value}} for key, value in given.items()]}


def _entries(given: SentLog, entries: Entries) -> Any:
    config = als_pb2.HttpGrpcAccessLogConfig(
        common_config=als_pb2.CommonGrpcAccessLogConfig(
            log_name=given.to.log_name,
            grpc_service=grpc_service_pb2.GrpcService(
                envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(
                    cluster_name=given.cluster, authority=given.to.service.hostname
                )
            ),
            transport_api_version=config_source_pb2.ApiVersion.V3,
            filter_state_objects_to_log=entries.filter_state,
        ),
        additional_request_headers_to_log=entries.request_headers,
        additional_response_headers_to_log=entries.response_headers,
        additional_response_trailers_to_log=entries.response_trailers,
    )
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.http_grpc", typed_config=pack(config))
