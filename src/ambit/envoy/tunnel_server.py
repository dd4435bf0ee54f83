"""The HTTP connection manager of whoever serves HBONE tunnels, pods and waypoints alike."""

from typing import Any

from envoy.config.core.v3 import protocol_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from ambit.envoy import defaults
from ambit.envoy.words import boolean, seconds, uint32

_Manager = http_connection_manager_pb2.HttpConnectionManager


def manager(stat_prefix: str, **more: Any) -> Any:
    """HTTP/2 with CONNECT, windows and keepalives of tunnels, no time limit on streams. `more`: further fields."""
    return _Manager(
        stat_prefix=stat_prefix,
        codec_type=_Manager.HTTP2,
        http2_protocol_options=protocol_pb2.Http2ProtocolOptions(
            allow_connect=True,
            max_concurrent_streams=uint32(defaults.CONCURRENT_STREAMS_IN),
            initial_stream_window_size=uint32(defaults.STREAM_WINDOW),
            initial_connection_window_size=uint32(defaults.CONNECTION_WINDOW),
            connection_keepalive=protocol_pb2.KeepaliveSettings(
                interval=seconds(defaults.PING_INTERVAL), timeout=seconds(defaults.PING_TIMEOUT)
            ),
        ),
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(idle_timeout=seconds(0)),
        upgrade_configs=[_Manager.UpgradeConfig(upgrade_type="CONNECT")],
        stream_idle_timeout=seconds(0),
        request_timeout=seconds(0),
        generate_request_id=boolean(False),
        server_header_transformation=_Manager.PASS_THROUGH,
        skip_xff_append=True,
        use_remote_address=boolean(True),
        **more,
    )
