"""Objects on a connection that choose its namespace, certificate, cluster and original addresses.

Every object that must keep two pods' upstream connections apart is of the *hashable* string kind: with a
plain string Envoy would hand one pod's pooled mutual-TLS connection to another. TRANSITIVE objects also cross
an internal listener; ONCE objects reach only the next upstream connection.
"""

from typing import Any

from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2 as http_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2 as network_pb2

from ambit.envoy.words import pack

_SHARE = value_pb2.FilterStateValue.SharedWithUpstream
HASHABLE = "envoy.hashable_string"
REMOTE_ADDRESS = "envoy.filters.listener.original_dst.remote_ip"
LOCAL_ADDRESS = "envoy.filters.listener.original_dst.local_ip"
CLUSTER = "envoy.tcp_proxy.cluster"
_PLAIN = "envoy.string"
_TRACE = "ambit.trace"
TRACE = f"%FILTER_STATE({_TRACE}:PLAIN)%"
ORIGINAL_DESTINATION = "envoy.network.transport_socket.original_dst_address"
CALLER = "ambit.caller"
"""The identity that the client of a tunnel proved, for who reads requests inside of it."""
CLIENT, _PEER = "ambit.client", "ambit.peer"
CLIENT_FORMAT, PEER_FORMAT = (f"%FILTER_STATE({each}:PLAIN)%" for each in (CLIENT, _PEER))
_REMOTE = "%DOWNSTREAM_REMOTE_ADDRESS%"
CALLER_FORMAT = f"%FILTER_STATE({CALLER}:PLAIN)%"


def upstream_namespace(netns: str) -> Any:
    """Sockets to upstreams are opened in this network namespace."""
    return _value(
        "envoy.network.upstream_bind_override.network_namespace", HASHABLE, _literal(netns), _SHARE.TRANSITIVE
    )


def client_certificate(secret: str) -> Any:
    """Tunnels present this certificate, asked for on demand."""
    return _value(
        "envoy.tls.certificate_mappers.on_demand_secret", HASHABLE, _literal(secret), _SHARE.TRANSITIVE
    )


def cluster(template: str) -> Any:
    """The tcp_proxy of this chain uses the cluster that `template` (an access-log format) names."""
    return _value(CLUSTER, CLUSTER, template, _SHARE.NONE)


def client_address() -> Any:
    """An internal listener sees the client's address as the peer's."""
    return _value(REMOTE_ADDRESS, REMOTE_ADDRESS, _REMOTE, _SHARE.ONCE)


def own_address(place: str) -> Any:
    """As `client_address`: this `ip:port`."""
    return _value(REMOTE_ADDRESS, REMOTE_ADDRESS, _literal(place), _SHARE.ONCE)


def direct_client_address() -> Any:
    """As `client_address`, of who opened the connection, whatever a request's headers say."""
    return _value(REMOTE_ADDRESS, REMOTE_ADDRESS, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", _SHARE.ONCE)


def dialled_address(template: str) -> Any:
    """An internal listener sees this `ip:port` (an access-log format) as its own; nothing when it is none."""
    return _value(LOCAL_ADDRESS, LOCAL_ADDRESS, template, _SHARE.ONCE)


def trace(template: str) -> Any:
    """An internal listener's tunnel is of this trace (`TRACE`)."""
    return _value(_TRACE, _PLAIN, template, _SHARE.ONCE)


def original_destination(template: str) -> Any:
    """An original-destination cluster dials the `ip:port` that `template` gives."""
    return _value(ORIGINAL_DESTINATION, ORIGINAL_DESTINATION, template, _SHARE.ONCE)


def caller() -> Any:
    """Inside of this tunnel it is known who opened it."""
    return _value(CALLER, HASHABLE, "%DOWNSTREAM_PEER_URI_SAN%", _SHARE.ONCE)


def text(key: str, template: str, *, is_shared: bool = False) -> Any:
    """What `template` gives, under `key`; with `is_shared` also in the listener that this tunnel leads to."""
    return _value(key, _PLAIN, template, _SHARE.ONCE if is_shared else _SHARE.NONE)


def own_caller(identity: str) -> Any:
    """As `caller`, of a connection whose other end is known without proof."""
    return _value(CALLER, HASHABLE, _literal(identity), _SHARE.NONE)


def caller_at_the_edge() -> Any:
    """As `caller`, for the request itself: what is in the client's own certificate, several names joined by commas."""
    return _value(CALLER, HASHABLE, "%DOWNSTREAM_PEER_URI_SAN%", _SHARE.NONE)


def client_at_the_edge() -> Any:
    """As `client`, for the request itself: who opened the connection, whatever its headers say."""
    return _value(CLIENT, _PLAIN, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", _SHARE.NONE)


def told_caller(template: str) -> Any:
    """As `caller`, as `template` (an access-log format) says; if it says nothing, as is known already."""
    made = _value(CALLER, HASHABLE, template, _SHARE.NONE)
    made.skip_if_empty = True
    return made


def own_client() -> Any:
    """As `client`, of who opened this connection, before any request is read."""
    return _value(CLIENT, _PLAIN, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", _SHARE.NONE)


def client() -> Any:
    """Inside of this tunnel its client's address is known, whatever a request's headers say."""
    return _value(CLIENT, "envoy.string", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", _SHARE.ONCE)


def peer() -> Any:
    """As `client`, with the port, for logs."""
    return text(_PEER, _REMOTE, is_shared=True)


def own_peer() -> Any:
    """As `own_client`, with the port, for logs."""
    return text(_PEER, _REMOTE)


def network_filter(*values: Any) -> Any:
    """Sets `values` as soon as the connection is accepted."""
    return listener_components_pb2.Filter(
        name="envoy.filters.network.set_filter_state",
        typed_config=pack(network_pb2.Config(on_new_connection=values)),
    )


def http_filter(*values: Any) -> Any:
    """Sets `values` from request headers."""
    return http_connection_manager_pb2.HttpFilter(
        name="envoy.filters.http.set_filter_state",
        typed_config=pack(http_pb2.Config(on_request_headers=values)),
    )


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def _value(key: str, factory: str, template: str, share: int) -> Any:
    return value_pb2.FilterStateValue(
        object_key=key,
        factory_key=factory,
        shared_with_upstream=share,
        format_string=substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source=base_pb2.DataSource(inline_string=template), omit_empty_values=True
        ),
    )
