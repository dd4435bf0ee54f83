"""Access logs: one gRPC stream per listener kind to the agent, with what joins an entry to the mesh as tags.

Tags, when they apply (`ambit.envoy.names.METADATA`): `pod` is the key of the pod whose listener this is; the
others come from the chosen cluster and endpoint: `reason`, `policy` (why it was refused), `service`,
`workload`, `identity` of the destination, `route` (how it goes there), `target` (address and port of the
endpoint). Entries come at the end of a connection and every `LOG_PERIOD` seconds with running totals.
"""

from collections.abc import Iterable
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import config_source_pb2, grpc_service_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as accesslog_data_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.grpc.v3 import als_pb2
from envoy.type.tracing.v3 import custom_tag_pb2

from ambit.envoy import defaults, names
from ambit.envoy.words import pack, seconds, uint32

POD = "pod"
REASON = "reason"
POLICY = "policy"
SERVICE = "service"
WORKLOAD = "workload"
IDENTITY = "identity"
ROUTE = "route"
TARGET = "target"
CLOSED = "closed"
RESET = "RemoteReset"
"""How the destination's side ended a tunnel, and the value that means: before all bytes were through."""
_CLUSTER_TAGS = (REASON, POLICY, SERVICE, WORKLOAD, IDENTITY, ROUTE)
_HOST_TAGS = (WORKLOAD, IDENTITY, ROUTE, TARGET, REASON, POLICY)


def tcp(log_name: str, *, pod: str) -> Any:
    """Every connection of a tcp_proxy. An endpoint's tags go before its cluster's (`host.` prefix)."""
    return _tcp(log_name, (_literal(POD, pod), *_destination_tags()))


def tcp_failures(log_name: str) -> Any:
    """Only connections that failed, of a listener that all pods share; joined by the client's address."""
    log = _tcp(log_name, map(_dynamic, _HOST_TAGS))
    log.filter.response_flag_filter.SetInParent()
    return log


def tunnels(log_name: str) -> Any:
    """As `tcp_failures`, and every tunnel that carried enough to be cut short (`CLOSED`), at once: the agent has to
    reset the client before it has read what is left (docs/limits.md). No filter knows how a tunnel ended, and one
    message for each costs the agent ten times as much as an entry among others."""
    common = _common(
        log_name, (*map(_dynamic, _HOST_TAGS), _format(CLOSED, "%UPSTREAM_DETECTED_CLOSE_TYPE%"))
    )
    common.buffer_size_bytes.CopyFrom(uint32(0))
    config = als_pb2.TcpGrpcAccessLogConfig(common_config=common)
    log = accesslog_pb2.AccessLog(name="envoy.access_loggers.tcp_grpc", typed_config=pack(config))
    both = log.filter.and_filter.filters
    both.add().log_type_filter.types.append(accesslog_data_pb2.TcpConnectionEnd)
    either = both.add().or_filter.filters
    either.add().response_flag_filter.SetInParent()
    large = cel_pb2.ExpressionFilter(expression=f"response.size >= {defaults.TUNNEL_LOG_FROM}")
    either.add().extension_filter.CopyFrom(
        accesslog_pb2.ExtensionFilter(
            name="envoy.access_loggers.extension_filters.cel", typed_config=pack(large)
        )
    )
    return log


def http(log_name: str, *, pod: str) -> Any:
    """Every tunnel of an HBONE listener; `request.authority` is the destination, RBAC's decision is in the
    entry's metadata `envoy.filters.http.rbac`."""
    config = als_pb2.HttpGrpcAccessLogConfig(common_config=_common(log_name, (_literal(POD, pod),)))
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.http_grpc", typed_config=pack(config))


def _tcp(log_name: str, tags: Iterable[Any]) -> Any:
    config = als_pb2.TcpGrpcAccessLogConfig(common_config=_common(log_name, tags))
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.tcp_grpc", typed_config=pack(config))


def _common(log_name: str, tags: Iterable[Any]) -> Any:
    return als_pb2.CommonGrpcAccessLogConfig(
        log_name=log_name,
        transport_api_version=config_source_pb2.V3,
        grpc_service=grpc_service_pb2.GrpcService(
            envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=names.XDS_CLUSTER)
        ),
        buffer_flush_interval=seconds(defaults.LOG_FLUSH_INTERVAL),
        custom_tags=tags,
    )


def _destination_tags() -> Iterable[Any]:
    yield from map(_cluster, _CLUSTER_TAGS)
    yield from (_format(f"host.{tag}", f"%UPSTREAM_METADATA({names.METADATA}:{tag})%") for tag in _HOST_TAGS)


def _cluster(tag: str) -> Any:
    # A format, not a tag of kind metadata: that is empty when the cluster had no endpoint to choose.
    return _format(tag, f"%CLUSTER_METADATA({names.METADATA}:{tag})%")


def _dynamic(tag: str) -> Any:
    return _format(tag, f"%DYNAMIC_METADATA({names.METADATA}:{tag})%")


def _literal(tag: str, value: str) -> Any:
    return custom_tag_pb2.CustomTag(tag=tag, literal=custom_tag_pb2.CustomTag.Literal(value=value))


def _format(tag: str, template: str) -> Any:
    return custom_tag_pb2.CustomTag(tag=tag, value=template)
