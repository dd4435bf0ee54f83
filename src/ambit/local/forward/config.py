"""Envoy configuration of the two forwarders, as JSON values.

Pure. The outer Envoy lives in the host's network namespace and listens on 127.0.0.1; the inner one lives in
the fabric's and knows the way to pods and Services. A Unix socket with a path joins them, because a path,
unlike an address, can be reached from both network namespaces. Listeners and clusters are files that Envoy
watches and reads again after a rename.

Datagrams go through the same sockets: those of each sender are a request of their own (RFC 9298, CONNECT-UDP over
HTTP/2), which the inner Envoy makes datagrams again.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

_TYPE = "type.googleapis.com/"
_CONNECT_TIMEOUT = "2s"
_BUFFER = 256 * 1024
"""Bytes that one side may be ahead of the other."""
_CONNECTIONS = 4096
"""At a time, through all forwards: far more than a developer's tools open, far less than descriptors run
out."""


_DATAGRAM = 65_535
"""The largest. Envoy's own limit, 1500 bytes, drops what is larger."""
_SILENCE = "60s"
"""After so long a sender's datagrams are those of a new one."""


class Forward(msgspec.Struct, frozen=True, omit_defaults=True):
    """`host_port` on 127.0.0.1 leads to `address`, `port` inside (an IP address as text). `name` is the
    caller's. `protocol`: TCP or UDP."""

    name: str
    host_port: int
    address: str
    port: int
    protocol: str = "TCP"

    @property
    def is_udp(self) -> bool:
        return self.protocol == "UDP"

    @property
    def resource(self) -> str:
        """Its name in both configurations. A listener cannot go from one protocol to the other."""
        return f"forward-udp-{self.host_port}" if self.is_udp else f"forward-{self.host_port}"


class Files(msgspec.Struct, frozen=True):
    """Where one forwarder's configuration lies, and the directory of the sockets between the two."""

    directory: Path
    role: str

    @property
    def bootstrap(self) -> Path:
        return self.directory / f"{self.role}.json"

    @property
    def listeners(self) -> Path:
        return self.directory / f"{self.role}-listeners.json"

    @property
    def clusters(self) -> Path:
        return self.directory / f"{self.role}-clusters.json"

    def socket(self, forward: Forward) -> Path:
        return self.directory / f"{forward.resource}.sock"


def bootstrap(files: Files) -> dict[str, Any]:
    """Everything from files; no admin port, because nobody asks."""

    def watched(path: Path) -> dict[str, Any]:
        return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}

    limit = {
        "@type": _TYPE
        + "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": _CONNECTIONS,
    }
    monitor = {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": limit}
    return {
        "node": {"id": f"forward-{files.role}", "cluster": "forward"},
        "overload_manager": {"resource_monitors": [monitor]},
        "dynamic_resources": {
            "lds_config": watched(files.listeners),
            "cds_config": watched(files.clusters),
        },
    }


def outer_listeners(forwards: Iterable[Forward]) -> dict[str, Any]:
    return _response(
        "envoy.config.listener.v3.Listener",
        [
            _outer_udp(forward)
            if forward.is_udp
            else _listener(
                forward,
                {"socket_address": {"address": "127.0.0.1", "port_value": forward.host_port}},
            )
            for forward in forwards
        ],
    )


def outer_clusters(files: Files, forwards: Iterable[Forward]) -> dict[str, Any]:
    return _response(
        "envoy.config.cluster.v3.Cluster",
        [
            _cluster(forward, {"pipe": {"path": str(files.socket(forward))}})
            | (_HTTP2 if forward.is_udp else {})
            for forward in forwards
        ],
    )


def inner_listeners(files: Files, forwards: Iterable[Forward]) -> dict[str, Any]:
    return _response(
        "envoy.config.listener.v3.Listener",
        [
            (_inner_udp if forward.is_udp else _listener)(
                forward, {"pipe": {"path": str(files.socket(forward)), "mode": 0o600}}
            )
            for forward in forwards
        ],
    )


def inner_clusters(forwards: Iterable[Forward]) -> dict[str, Any]:
    return _response(
        "envoy.config.cluster.v3.Cluster",
        [
            _cluster(
                forward,
                {
                    "socket_address": {
                        "address": forward.address,
                        "port_value": forward.port,
                        **({"protocol": "UDP"} if forward.is_udp else {}),
                    }
                },
            )
            for forward in forwards
        ],
    )


def _response(kind: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    return {"resources": [{"@type": _TYPE + kind, **resource} for resource in resources]}


def _listener(forward: Forward, address: dict[str, Any]) -> dict[str, Any]:
    proxy = {
        "@type": _TYPE + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "forward",
        "cluster": forward.resource,
        "idle_timeout": "0s",
    }
    return {
        "name": forward.resource,
        "address": address,
        "per_connection_buffer_limit_bytes": _BUFFER,
        "filter_chains": [{"filters": [{"name": "tcp_proxy", "typed_config": proxy}]}],
    }


def _cluster(forward: Forward, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": forward.resource,
        "type": "STATIC",
        "connect_timeout": _CONNECT_TIMEOUT,
        "per_connection_buffer_limit_bytes": _BUFFER,
        "load_assignment": {"cluster_name": forward.resource, "endpoints": endpoints},
    }


_CAPSULE = "envoy.extensions.filters.udp.udp_proxy.session.http_capsule.v3.FilterConfig"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_HTTP2 = {
    "typed_extension_protocol_options": {
        _OPTIONS: {
            "@type": _TYPE + _OPTIONS,
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}


def _outer_udp(forward: Forward) -> dict[str, Any]:
    """The target that is asked for says nothing: the inner Envoy has one for each socket."""
    route = {
        "name": "route",
        "typed_config": {
            "@type": _TYPE + "envoy.extensions.filters.udp.udp_proxy.v3.Route",
            "cluster": forward.resource,
        },
    }
    proxy = {
        "@type": _TYPE + "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
        "stat_prefix": "forward",
        "matcher": {"on_no_match": {"action": route}},
        "idle_timeout": _SILENCE,
        "upstream_socket_config": {"max_rx_datagram_size": _DATAGRAM},
        "session_filters": [{"name": "capsule", "typed_config": {"@type": _TYPE + _CAPSULE}}],
        "tunneling_config": {
            "proxy_host": "forward",
            "target_host": "127.0.0.1",
            "default_target_port": forward.port,
            "retry_options": {"max_connect_attempts": 2},
            "buffer_options": {"max_buffered_datagrams": 1024, "max_buffered_bytes": _BUFFER},
        },
    }
    place = {"address": "127.0.0.1", "port_value": forward.host_port, "protocol": "UDP"}
    return {
        "name": forward.resource,
        "address": {"socket_address": place},
        "udp_listener_config": {"downstream_socket_config": {"max_rx_datagram_size": _DATAGRAM}},
        "listener_filters": [{"name": "envoy.filters.udp_listener.udp_proxy", "typed_config": proxy}],
    }


def _inner_udp(forward: Forward, address: dict[str, Any]) -> dict[str, Any]:
    upgrade = {"upgrade_type": "connect-udp"}
    route = {
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": forward.resource,
            "timeout": "0s",
            "upgrade_configs": [{**upgrade, "connect_config": {}}],
        },
    }
    manager = {
        "@type": _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "forward",
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": True},
        "stream_idle_timeout": "0s",
        "upgrade_configs": [upgrade],
        # Envoy may read of listeners before it reads of clusters, whichever file was written first.
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
            "validate_clusters": False,
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _TYPE + "envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": forward.resource, "address": address, "filter_chains": [{"filters": filters}]}
