"""Requests that are routed in their caller's own node proxy: the listener that reads them.

pod ─> outbound listener ─> cluster `dst|…` ─> internal listener `req|…` ─> table `req|…` ─> cluster `svc|req|…` of a
backend ─> the same internal listeners by which bytes go on, as the same pod
"""

from collections.abc import Iterable
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2

from ambit.core.address import Address, host_port
from ambit.core.identity import Identity
from ambit.envoy import defaults, filter_state, names, request_manager, tcp_proxy
from ambit.envoy.waypoint_services import REQUESTS
from ambit.envoy.words import pack, uint32
from ambit.model.telemetry import RequestLog

_ANY_PORT = 0


def listener(
    name: str,
    *,
    pod: str,
    netns: str,
    client: Address,
    identity: Identity,
    default_host: str,
    logs: Iterable[RequestLog] = (),
) -> Any:
    """Reads one pod's requests by the table of the same name. What goes on goes as the pod: from its namespace, with
    its certificate, from its address, but for the port, so that requests of several connections share one."""
    as_pod = filter_state.network_filter(
        filter_state.upstream_namespace(netns),
        filter_state.client_certificate(names.client_secret(identity)),
        filter_state.own_address(host_port(client, _ANY_PORT)),
        filter_state.own_caller(identity.uri),
        filter_state.trace(tcp_proxy.trace(pod)),
    )
    manager = request_manager.of_caller(stat=REQUESTS, table=name, default_host=default_host, logs=logs)
    return listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.original_dst", typed_config=pack(original_dst_pb2.OriginalDst())
            )
        ],
        filter_chains=[listener_components_pb2.FilterChain(name=name, filters=[as_pod, manager])],
    )
