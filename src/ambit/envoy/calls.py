"""Calls that Envoy makes by itself, in the name of one pod: copies of requests, questions, spans.

They come without anything that is known of a connection, so none of what chooses a namespace and a certificate. So they
take a way round: a cluster that leads into an internal listener of the same name, which knows the pod ─> the cluster
of the ways that the pod has ─> the same internal listeners by which its own connections go on
"""

from typing import Any

import msgspec
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2

from ambit.core.address import Address, host_port
from ambit.core.identity import Identity
from ambit.envoy import backend_tls, clusters, defaults, filter_state, names, tcp_proxy, waypoint_services
from ambit.envoy.waypoint_services import Speaks
from ambit.envoy.words import uint32

_ANY_PORT = 0


class Caller(msgspec.Struct, frozen=True):
    """In whose name: a pod by its key, in the namespace at `netns`, at this address of its."""

    pod: str
    netns: str
    address: Address
    identity: Identity


def cluster(name: str, speaks: Speaks, tls: backend_tls.Spoken | None = None) -> Any:
    """The cluster that is called, which speaks so to whoever is called; `tls` is spoken to him."""
    made = clusters.into(name, name)
    if tls is not None:
        made.transport_socket.CopyFrom(clusters.hop_socket(waypoint_services.tls_socket(tls, speaks)))
    waypoint_services.without_limits(made)
    waypoint_services.speak(made, speaks, tls)
    return made


def listener(name: str, *, caller: Caller, way: str) -> Any:
    """The listener behind it, which leads bytes to the cluster `way` as the caller."""
    chain = listener_components_pb2.FilterChain(name=name, filters=[in_name_of(caller), tcp_proxy.fixed(way)])
    return listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        filter_chains=[chain],
    )


def in_name_of(caller: Caller) -> Any:
    """What goes on from here goes from the caller's namespace, with its certificate, from its address but for the port,
    so several share a connection."""
    return filter_state.network_filter(
        filter_state.upstream_namespace(caller.netns),
        filter_state.client_certificate(names.client_secret(caller.identity)),
        filter_state.own_address(host_port(caller.address, _ANY_PORT)),
        filter_state.own_caller(caller.identity.uri),
        filter_state.own_client(),
        filter_state.own_peer(),
        filter_state.trace(tcp_proxy.trace(caller.pod)),
    )
