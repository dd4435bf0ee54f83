"""The HTTP connection manager of requests, hardened: what waypoints and gateways read applications' bytes with.

Paths are normalised before anything is compared (RFC 3986: dots and escapes of unreserved characters), so that a rule
about `/admin` is not passed by `/./admin`. Slashes are left as they are: `//a` and `%2F` mean things to applications.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Any

from envoy.config.core.v3 import protocol_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from ambit.envoy import defaults, filter_state, refusals
from ambit.envoy.http import filters as http_filters
from ambit.envoy.http import taken_headers, tracing
from ambit.envoy.http.telling import NOTHING, Told
from ambit.envoy.logs import log_services, request_lines, request_log
from ambit.envoy.words import boolean, from_ads, pack, seconds, uint32

_Manager = http_connection_manager_pb2.HttpConnectionManager
_Told = _Manager.SetCurrentClientCertDetails


class Certificates(Enum):
    """What clients at the edge show: nothing that they were asked for, what nobody has verified, or what was."""

    NONE = "none"
    UNVERIFIED = "unverified"
    VERIFIED = "verified"


def requests(
    *,
    stat: str,
    table: str,
    subject: str,
    port: int,
    default_host: str,
    by: str,
    told: Told = NOTHING,
    places: int = 1,
) -> Any:
    """HTTP/1.1 and HTTP/2, whichever the client speaks, answered by the RouteConfiguration `table` as the policies of
    this port of `subject` permit (`filters.chain`). Requests of HTTP/1.0 without a host are for `default_host`."""
    filters = http_filters.chain(subject, port, places=places, by=by)
    return _inside(_manager(stat, table, filters, taken_headers.where_questions_come(), told), default_host)


def of_caller(*, stat: str, table: str, default_host: str, told: Told = NOTHING) -> Any:
    """As `requests`, in the node proxy of who calls: policies are decided elsewhere, and the agent prints lines."""
    manager = _manager(stat, table, http_filters.of_caller(), taken_headers.of_pods())
    lines, sent = map(request_lines.to_agent, told.logs), map(log_services.sent, told.sent)
    manager.access_log.extend((request_log.of_node(told.values), *lines, *sent))
    if told.spans is not None:
        tracing.configure(manager, told.spans)
    return _inside(manager, default_host)


def of_pod(
    *, stat: str, table: Any, subject: str, port: int, default_host: str, by: str, places: int = 1
) -> Any:
    """As `requests`, where the server is: `table` is the RouteConfiguration itself, because it never changes."""
    filters = http_filters.of_pod(subject, port, places=places, by=by)
    manager = _manager(stat, "", filters, taken_headers.where_questions_come())
    manager.access_log.append(request_log.of_node())
    manager.route_config.CopyFrom(table)
    return _inside(manager, default_host)


def _inside(manager: Any, default_host: str) -> Any:
    manager.http_protocol_options.default_host_for_http_10 = default_host
    manager.http2_protocol_options.max_concurrent_streams.value = defaults.CONCURRENT_STREAMS_IN
    manager.common_http_protocol_options.idle_timeout.CopyFrom(seconds(0))
    manager.use_remote_address.value = False
    manager.skip_xff_append = True
    manager.local_reply_config.CopyFrom(refusals.reasons())
    return _filter(manager)


def at_the_edge(
    *,
    stat: str,
    table: str,
    subject: str,
    port: int,
    told: Told = NOTHING,
    trusted_proxies: int = 0,
    certificates: Certificates = Certificates.NONE,
    by_quic: bool = False,
    places: int = 1,
) -> Any:
    """The same for clients whom nobody knows: what they say of the way that a request has come is replaced by what
    the gateway sees (`x-forwarded-for`, `x-forwarded-proto`), but for what the last `trusted_proxies` before it have
    added. Names in clients' `certificates` count where those are verified. Over QUIC it is HTTP/3."""
    seen = [filter_state.client_at_the_edge()]
    if certificates is Certificates.VERIFIED:
        seen.append(filter_state.caller_at_the_edge())
    filters = [filter_state.http_filter(*seen), *http_filters.chain(subject, port, places=places)]
    manager = _manager(stat, table, filters, taken_headers.at_the_edge(), told, is_believed=True)
    manager.http2_protocol_options.max_concurrent_streams.value = defaults.EDGE_STREAMS
    manager.common_http_protocol_options.idle_timeout.CopyFrom(seconds(defaults.EDGE_IDLE_TIMEOUT))
    manager.stream_idle_timeout.CopyFrom(seconds(defaults.EDGE_STREAM_IDLE))
    manager.use_remote_address.value = True
    manager.xff_num_trusted_hops = trusted_proxies
    _tell_backends(manager, certificates)
    if by_quic:
        manager.codec_type = _Manager.HTTP3
        manager.http3_protocol_options.allow_extended_connect = True
        manager.http3_protocol_options.quic_protocol_options.CopyFrom(quic_options())
    return _filter(manager)


def _tell_backends(manager: Any, certificates: Certificates) -> None:
    """`x-forwarded-client-cert` has the client's certificate, if he showed one, and nothing that he wrote himself.
    Names only when they were verified: others are anybody's to write, and would look the same."""
    if certificates is Certificates.NONE:
        return  # taken away, which is Envoy's default
    are_true = certificates is Certificates.VERIFIED
    manager.forward_client_cert_details = _Manager.SANITIZE_SET
    manager.set_current_client_cert_details.CopyFrom(
        _Told(cert=True, subject=boolean(are_true), uri=are_true, dns=are_true)
    )


def quic_options() -> Any:
    """Of connections of clients whom nobody knows, as far as HTTP/2 has the same bounds."""
    return protocol_pb2.QuicProtocolOptions(
        max_concurrent_streams=uint32(defaults.EDGE_STREAMS),
        initial_stream_window_size=uint32(defaults.STREAM_WINDOW),
        initial_connection_window_size=uint32(defaults.CONNECTION_WINDOW),
    )


def _manager(
    stat: str,
    table: str,
    filters: Iterable[Any],
    taken: Any,
    told: Told | None = None,
    *,
    is_believed: bool = False,
) -> Any:
    manager = _Manager(
        stat_prefix=stat,
        codec_type=_Manager.AUTO,
        http_protocol_options=protocol_pb2.Http1ProtocolOptions(accept_http_10=True),
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(
            allow_connect=True,
            initial_stream_window_size=uint32(defaults.STREAM_WINDOW),
            initial_connection_window_size=uint32(defaults.CONNECTION_WINDOW),
        ),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            max_headers_count=uint32(defaults.HEADERS_COUNT)
        ),
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type="websocket")],
        max_request_headers_kb=uint32(defaults.REQUEST_HEADERS_KIB),
        request_headers_timeout=seconds(defaults.HEADERS_TIMEOUT),
        stream_idle_timeout=seconds(0),
        stream_flush_timeout=seconds(defaults.FLUSH_TIMEOUT),
        request_timeout=seconds(0),
        normalize_path=boolean(True),
        proxy_100_continue=True,
        server_header_transformation=_Manager.PASS_THROUGH,
        preserve_external_request_id=True,
        early_header_mutation_extensions=[taken],
        rds=http_connection_manager_pb2.Rds(config_source=from_ads(), route_config_name=table),
        http_filters=filters,
        access_log=_logs(told, is_believed=is_believed) if told is not None else (),
    )
    if told is not None and told.spans is not None:
        tracing.configure(manager, told.spans)
    return manager


def _filter(manager: Any) -> Any:
    return listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=pack(manager)
    )


def _logs(told: Told, *, is_believed: bool) -> list[Any]:
    return [
        request_log.every(told.values, is_believed=is_believed),
        *(request_log.printed(each, is_believed=is_believed) for each in told.logs),
        *(log_services.sent(each, is_believed=is_believed) for each in told.sent),
    ]
