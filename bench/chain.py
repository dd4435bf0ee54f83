"""The peer of a waypoint in pods: three stock Envoys in a row, with the same tunnels and the same filters.

    client → 15001 ══> 15008 (waypoint's part: requests are read) ══> 15008 (the other node's) → server

Each `══>` is HTTP/2 CONNECT under mutual TLS 1.3. What ambit adds to that is not here: capture, identities that are
looked up on demand, decisions about connections, records and metrics.
"""

from typing import Any

from bench.datapath.certificates import Leaf, leaves
from bench.servers import HTTP_PORT, envoy_command, typed

ENTRY, TUNNELS = 15001, 15008
PIECES = ("client", "waypoint", "server")
_NETWORK = "envoy.extensions.filters.network"
_HTTP = "envoy.extensions.filters.http"
_TLS = "envoy.extensions.transport_sockets.tls.v3"
_PROTOCOLS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def identities() -> tuple[Leaf, ...]:
    """One for each of `PIECES`."""
    return leaves(*(f"spiffe://bench/ns/chain/sa/{each}" for each in PIECES))


def client(own: Leaf, waypoint: str) -> list[str]:
    """Takes bytes at `ENTRY` and brings them to the waypoint's part, at this address."""
    listener = _listener("entry", ENTRY, [_into_tunnel("to-waypoint", f"server:{HTTP_PORT}")])
    return _envoy([listener], [_tunnel("to-waypoint", own, waypoint)])


def waypoint(own: Leaf, server: str) -> list[str]:
    """Reads requests out of tunnels, and sends them on in others, to the server's part at this address."""
    requests = typed(
        f"{_NETWORK}.http_connection_manager",
        f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="requests",
        route_config=_routes({"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "0s"}}),
        http_filters=_filters(),
    )
    inside = {"name": "inside", "internal_listener": {}, "filter_chains": [{"filters": [requests]}]}
    originate = {
        "name": "originate",
        "internal_listener": {},
        "filter_chains": [{"filters": [_into_tunnel("to-server", f"server:{HTTP_PORT}")]}],
    }
    return _envoy(
        [_terminating(own, "into"), inside, originate],
        [_internal("into", "inside"), _internal("backend", "originate"), _tunnel("to-server", own, server)],
        concurrency=2,
    )


def server(own: Leaf) -> list[str]:
    """Brings bytes out of tunnels to the server in the same pod."""
    return _envoy([_terminating(own, "app")], [_cluster("app", "127.0.0.1", HTTP_PORT)])


def _filters() -> list[dict[str, Any]]:
    """As `ambit.envoy.http.filters.chain`."""
    everybody = {
        "action": "ALLOW",
        "policies": {"all": {"permissions": [{"any": True}], "principals": [{"any": True}]}},
    }
    asked = {
        "object_key": "bench.asked",
        "factory_key": "envoy.string",
        "format_string": {
            "text_format_source": {"inline_string": "%REQ(:METHOD)% %REQ(:AUTHORITY)% %PATH(NQ)%"}
        },
    }
    state = f"{_HTTP}.set_filter_state.v3.Config"
    return [
        typed("envoy.filters.http.set_filter_state", state, on_request_headers=[asked]),
        typed("envoy.filters.http.grpc_stats", f"{_HTTP}.grpc_stats.v3.FilterConfig", emit_filter_state=True),
        typed("envoy.filters.http.rbac", f"{_HTTP}.rbac.v3.RBAC", rules=everybody),
        typed("envoy.filters.http.cors", f"{_HTTP}.cors.v3.Cors"),
        typed("envoy.filters.http.stateful_session", f"{_HTTP}.stateful_session.v3.StatefulSession"),
        typed("envoy.filters.http.router", f"{_HTTP}.router.v3.Router", dynamic_stats=False),
    ]


def _envoy(
    listeners: list[dict[str, Any]], clusters: list[dict[str, Any]], concurrency: int = 1
) -> list[str]:
    """With as many workers as the part that it stands for has in ambit."""
    internal = "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
    config = {
        "node": {"id": "chain", "cluster": "bench"},
        "bootstrap_extensions": [typed("envoy.bootstrap.internal_listener", internal)],
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }
    return envoy_command(config, concurrency)


def _listener(name: str, port: int, filters: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "filter_chains": [{"filters": filters, **more}],
    }


def _terminating(own: Leaf, cluster: str) -> dict[str, Any]:
    """Tunnels end here, and their bytes go on into `cluster`."""
    connect = {
        "match": {"connect_matcher": {}},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        },
    }
    manager = typed(
        f"{_NETWORK}.http_connection_manager",
        f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="tunnels",
        codec_type="HTTP2",
        http2_protocol_options={"allow_connect": True},
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        route_config=_routes(connect),
        http_filters=[typed("envoy.filters.http.router", f"{_HTTP}.router.v3.Router")],
    )
    return _listener("tunnels", TUNNELS, [manager], transport_socket=_tls("DownstreamTlsContext", own))


def _routes(route: dict[str, Any]) -> dict[str, Any]:
    return {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


def _into_tunnel(cluster: str, target: str) -> dict[str, Any]:
    proxy = f"{_NETWORK}.tcp_proxy"
    return typed(
        "envoy.filters.network.tcp_proxy",
        f"{proxy}.v3.TcpProxy",
        stat_prefix="tunnel",
        cluster=cluster,
        tunneling_config={"hostname": target},
    )


def _tunnel(name: str, own: Leaf, address: str) -> dict[str, Any]:
    http2 = typed("", _PROTOCOLS, explicit_http_config={"http2_protocol_options": {"allow_connect": True}})
    return {
        **_cluster(name, address, TUNNELS),
        "typed_extension_protocol_options": {_PROTOCOLS: http2["typed_config"]},
        "transport_socket": _tls("UpstreamTlsContext", own),
    }


def _cluster(name: str, address: str, port: int) -> dict[str, Any]:
    return _static(name, {"socket_address": {"address": address, "port_value": port}})


def _internal(name: str, listener: str) -> dict[str, Any]:
    transport = "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"
    raw = typed(
        "envoy.transport_sockets.raw_buffer", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
    )
    socket = typed("envoy.transport_sockets.internal_upstream", transport, transport_socket=raw)
    endpoint = {"envoy_internal_address": {"server_listener_name": listener}}
    return {**_static(name, endpoint), "transport_socket": socket}


def _static(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {
        "name": name,
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


def _tls(context: str, own: Leaf) -> dict[str, Any]:
    common = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {"certificate_chain": {"inline_string": own.chain}, "private_key": {"inline_string": own.key}}
        ],
        "validation_context": {
            "trusted_ca": {"inline_string": own.authority},
            "match_typed_subject_alt_names": [
                {"san_type": "URI", "matcher": {"prefix": "spiffe://bench/ns/chain/"}}
            ],
        },
    }
    fields: dict[str, Any] = {"common_tls_context": common}
    if context == "DownstreamTlsContext":
        fields["require_client_certificate"] = True
    return typed("envoy.transport_sockets.tls", f"{_TLS}.{context}", **fields)
