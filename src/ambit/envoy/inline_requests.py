"""Requests that are routed in their caller's own node proxy: the listener that reads them.

pod ─> outbound listener ─> cluster `dst|…` ─> internal listener `req|…` ─> table `req|…` ─> cluster `svc|req|…` of a
backend ─> the same internal listeners by which bytes go on, as the same pod

Envoy sends copies of requests without what it knows of the connection that they came by. So they take a way round:
cluster `svc|req|…|copies|…` ─> internal listener of that name, which knows the pod ─> the backend's cluster
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2

from ambit.core.address import Address, host_port
from ambit.core.identity import Identity
from ambit.envoy import (
    access_log,
    backend_tls,
    clusters,
    defaults,
    filter_state,
    names,
    request_log,
    request_manager,
    tcp_proxy,
    waypoint_services,
)
from ambit.envoy.waypoint_services import REQUESTS, Speaks
from ambit.envoy.words import pack, uint32
from ambit.model.telemetry import RequestLog

_ANY_PORT = 0


class Caller(msgspec.Struct, frozen=True):
    """Whose requests they are: a pod by its key, in the namespace at `netns`, at this address of its."""

    pod: str
    netns: str
    address: Address
    identity: Identity


def listener(
    name: str,
    *,
    caller: Caller,
    service: str,
    port: int,
    default_host: str,
    logs: Iterable[RequestLog] = (),
) -> Any:
    """Reads one pod's requests to a port of this service by the table of the same name. What goes on goes as the pod:
    from its namespace, with its certificate, from its address, but for the port, so that requests of several
    connections share one."""
    manager = request_manager.of_caller(stat=REQUESTS, table=name, default_host=default_host, logs=logs)
    made = listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.original_dst", typed_config=pack(original_dst_pb2.OriginalDst())
            )
        ],
        filter_chains=[listener_components_pb2.FilterChain(name=name, filters=[_as_pod(caller), manager])],
    )
    made.metadata.filter_metadata[names.METADATA].update(
        {access_log.SERVICE: names.from_pod(caller.pod, service), request_log.PORT: str(port)}
    )
    return made


def copies(name: str, speaks: Speaks, tls: backend_tls.Spoken | None) -> Any:
    """The cluster by which a backend gets copies; `tls` is spoken to it."""
    made = clusters.into(name, name)
    if tls is not None:
        made.transport_socket.CopyFrom(clusters.hop_socket(waypoint_services.tls_socket(tls, speaks)))
    waypoint_services.without_limits(made)
    waypoint_services.speak(made, speaks, tls)
    return made


def copier(name: str, *, caller: Caller, backend: str) -> Any:
    """The listener behind `copies`, which leads bytes to the backend's cluster."""
    chain = listener_components_pb2.FilterChain(
        name=name, filters=[_as_pod(caller), tcp_proxy.fixed(backend)]
    )
    return listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        filter_chains=[chain],
    )


def _as_pod(caller: Caller) -> Any:
    return filter_state.network_filter(
        filter_state.upstream_namespace(caller.netns),
        filter_state.client_certificate(names.client_secret(caller.identity)),
        filter_state.own_address(host_port(caller.address, _ANY_PORT)),
        filter_state.own_caller(caller.identity.uri),
        filter_state.own_client(),
        filter_state.own_peer(),
        filter_state.trace(tcp_proxy.trace(caller.pod)),
    )
