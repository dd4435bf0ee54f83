"""Requests that are routed in their caller's own node proxy: the listener that reads them.

pod ─> outbound listener ─> cluster `dst|…` ─> internal listener `req|…` ─> table `req|…` ─> cluster `svc|req|…` of a
backend ─> the same internal listeners by which bytes go on, as the same pod

Copies of requests go by a cluster `svc|req|…|copies|…` to the backend's (`ambit.envoy.calls`).
"""

from typing import Any

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2

from ambit.envoy import calls, defaults, names
from ambit.envoy.calls import Caller
from ambit.envoy.http import manager as request_manager
from ambit.envoy.http.telling import NOTHING, Told
from ambit.envoy.logs import access_log, request_log
from ambit.envoy.waypoint_services import REQUESTS
from ambit.envoy.words import pack, uint32


def listener(
    name: str,
    *,
    caller: Caller,
    service: str,
    port: int,
    default_host: str,
    told: Told = NOTHING,
) -> Any:
    """Reads one pod's requests to a port of this service by the table of the same name. What goes on goes as the pod:
    from its namespace, with its certificate, from its address, but for the port, so that requests of several
    connections share one."""
    manager = request_manager.of_caller(stat=REQUESTS, table=name, default_host=default_host, told=told)
    made = listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.original_dst", typed_config=pack(original_dst_pb2.OriginalDst())
            )
        ],
        filter_chains=[
            listener_components_pb2.FilterChain(name=name, filters=[calls.in_name_of(caller), manager])
        ],
    )
    made.metadata.filter_metadata[names.METADATA].update(
        {access_log.SERVICE: names.from_pod(caller.pod, service), request_log.PORT: str(port)}
    )
    return made
