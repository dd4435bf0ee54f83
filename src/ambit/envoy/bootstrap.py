"""What Envoy is started with: the agent's sockets and process-wide settings. All else comes over ADS."""

from collections.abc import Iterable
from typing import Any

from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import backoff_pb2, base_pb2, config_source_pb2, grpc_service_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.metrics.v3 import stats_pb2
from envoy.config.overload.v3 import overload_pb2
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.resource_monitors.downstream_connections.v3 import downstream_connections_pb2
from envoy.extensions.resource_monitors.fixed_heap.v3 import fixed_heap_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.wrappers_pb2 import UInt32Value, UInt64Value

from ambit.envoy import defaults, names
from ambit.envoy.words import extension, from_ads, pack, pipe, seconds

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_KEPT_STATS = ("server.", "listener_manager.", "cluster_manager.", "control_plane.", "http.hbone.rbac.")
"""All other statistics are dropped: at 110 pods this is 13,500 lines and 5 MiB less."""
_UINT32 = 0xFFFFFFFF
_RUNTIME = {
    # With the default, a server that closes first through an internal hop loses half of its short responses, and one
    # that answers and then resets (bytes unread) loses its answer on every way. The price: docs/limits.md.
    "envoy.reloadable_features.propagate_upstream_rst_through_tunneled_tcp_proxy": False,
    # With the default, 100, one long expression (a route's, an origin's, a namespace's name) has the whole table it
    # is in refused. RE2 knows a bound of its own, by which expressions of routes are judged before.
    "re2.max_program_size.error_level": _UINT32,
    "re2.max_program_size.warn_level": _UINT32,
    # The defaults are 5 spans or 5 s: with many requests a message for every few of them.
    "tracing.opentelemetry.min_flush_spans": 200,
    "tracing.opentelemetry.flush_interval_ms": 1_000,
}


def proxy(
    *,
    node: str,
    xds_socket: str,
    logs_socket: str,
    admin_socket: str,
    max_connections: int,
    statistics: Iterable[str] = (),
    soft_memory: int = defaults.SOFT_MEMORY_LIMIT,
    shortens_timeouts: bool = False,
) -> Any:
    """The bootstrap of an Envoy beside an agent; write it as `*.pb`. `statistics` begin so, besides the usual ones.
    Streams of who does not read end before new connections are refused; with `shortens_timeouts` whoever stands still
    has less time as well."""
    bootstrap = bootstrap_pb2.Bootstrap(
        node=base_pb2.Node(id=node, cluster="ambit"),
        dynamic_resources=bootstrap_pb2.Bootstrap.DynamicResources(
            ads_config=config_source_pb2.ApiConfigSource(
                api_type=config_source_pb2.ApiConfigSource.DELTA_GRPC,
                transport_api_version=config_source_pb2.V3,
                set_node_on_first_message_only=True,
                grpc_services=[
                    grpc_service_pb2.GrpcService(
                        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(
                            cluster_name=names.XDS_CLUSTER,
                            retry_policy=base_pb2.RetryPolicy(
                                retry_back_off=backoff_pb2.BackoffStrategy(
                                    base_interval=seconds(defaults.RECONNECT_FIRST),
                                    max_interval=seconds(defaults.RECONNECT_LAST),
                                )
                            ),
                        )
                    )
                ],
            ),
            cds_config=from_ads(),
            lds_config=from_ads(),
        ),
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            clusters=[_discovery(xds_socket), _agent(names.LOGS_CLUSTER, logs_socket)]
        ),
        bootstrap_extensions=[
            extension("envoy.bootstrap.internal_listener", internal_listener_pb2.InternalListener())
        ],
        stats_config=stats_pb2.StatsConfig(
            stats_matcher=stats_pb2.StatsMatcher(
                inclusion_list=string_pb2.ListStringMatcher(
                    patterns=[
                        string_pb2.StringMatcher(prefix=prefix) for prefix in (*_KEPT_STATS, *statistics)
                    ]
                )
            )
        ),
        overload_manager=_overload(max_connections, shortens_timeouts=shortens_timeouts),
        memory_allocator_manager=_allocator(soft_memory),
    )
    bootstrap.admin.address.CopyFrom(pipe(admin_socket))
    layer = bootstrap.layered_runtime.layers.add(name="static")
    layer.static_layer.update(_RUNTIME)
    return bootstrap


def _discovery(path: str) -> Any:
    options = http_protocol_options_pb2.HttpProtocolOptions(
        explicit_http_config=http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
            http2_protocol_options=protocol_pb2.Http2ProtocolOptions()
        )
    )
    cluster = _agent(names.XDS_CLUSTER, path)
    cluster.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(pack(options))
    return cluster


def _agent(name: str, path: str) -> Any:
    """The agent on one of its sockets."""
    endpoint = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=pipe(path))
    )
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.STATIC,
        connect_timeout=seconds(defaults.LOCAL_CONNECT_TIMEOUT),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])],
        ),
    )


def _allocator(soft_memory: int) -> Any:
    """Field numbers 3 and 4 are Envoy 1.40's own; xds-protos 1.85 does not know them yet."""
    limit = UInt64Value(value=soft_memory).SerializeToString()
    cache = UInt32Value(value=defaults.CACHE_PER_CPU).SerializeToString()
    return bootstrap_pb2.MemoryAllocatorManager.FromString(
        bootstrap_pb2.MemoryAllocatorManager(
            bytes_to_release=defaults.RELEASE_BYTES,
            memory_release_interval=seconds(defaults.RELEASE_INTERVAL),
        ).SerializeToString()
        + bytes([3 << 3 | 2, len(limit)])
        + limit
        + bytes([4 << 3 | 2, len(cache)])
        + cache
    )


def _overload(max_connections: int, *, shortens_timeouts: bool) -> Any:
    heap, connections = (
        "envoy.resource_monitors.fixed_heap",
        ("envoy.resource_monitors.global_downstream_max_connections"),
    )
    manager = overload_pb2.OverloadManager(
        refresh_interval=seconds(0.25),
        resource_monitors=[
            overload_pb2.ResourceMonitor(
                name=heap,
                typed_config=pack(fixed_heap_pb2.FixedHeapConfig(max_heap_size_bytes=defaults.HEAP_LIMIT)),
            ),
            overload_pb2.ResourceMonitor(
                name=connections,
                typed_config=pack(
                    downstream_connections_pb2.DownstreamConnectionsConfig(
                        max_active_downstream_connections=max_connections
                    )
                ),
            ),
        ],
    )
    for name, threshold in (("shrink_heap", 0.8), ("stop_accepting_connections", 0.95)):
        action = manager.actions.add(name=f"envoy.overload_actions.{name}")
        action.triggers.add(name=heap, threshold=overload_pb2.ThresholdTrigger(value=threshold))
    _end_hoarders(manager, heap)
    if shortens_timeouts:
        _shorten_timeouts(manager, heap)
    return manager


def _end_hoarders(manager: Any, heap: str) -> None:
    """Streams with the largest buffers go first; Envoy knows them for HTTP/2 only, and until their answer has come to
    its end. At nodes the agent ends others (`ambit.node.load_shedding`)."""
    manager.buffer_factory_config.minimum_account_to_track_power_of_two = defaults.HOARD_LOG2
    reset = manager.actions.add(name="envoy.overload_actions.reset_high_memory_stream")
    reset.triggers.add(
        name=heap,
        scaled=overload_pb2.ScaledTrigger(
            scaling_threshold=defaults.HOARDERS_FROM, saturation_threshold=defaults.HOARDERS_ALL
        ),
    )


def _shorten_timeouts(manager: Any, heap: str) -> None:
    """Whoever stands still has less time: requests. Tunnels may be idle for as long as they like."""
    timers = overload_pb2.ScaleTimersOverloadActionConfig()
    for kind in ("CONNECTION_IDLE", "STREAM_IDLE", "STREAM_FLUSH"):
        timers.timer_scale_factors.add(
            timer=f"HTTP_DOWNSTREAM_{kind}", min_timeout=seconds(defaults.IDLE_UNDER_PRESSURE)
        )
    reduce = manager.actions.add(name="envoy.overload_actions.reduce_timeouts", typed_config=pack(timers))
    reduce.triggers.add(name=heap, threshold=overload_pb2.ThresholdTrigger(value=defaults.HOARDERS_FROM))
