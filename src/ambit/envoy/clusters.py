"""Clusters of a node proxy: where a connection goes, one builder for each way to get there.

Pods share no upstream connection: the source pod's namespace and certificate come as hashable filter state.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2, resolver_pb2, socket_option_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.local_address_selectors.filter_state_override.v3 import config_pb2 as selector_pb2
from envoy.extensions.network.dns_resolver.cares.v3 import cares_dns_resolver_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.metadata.v3 import metadata_pb2

from ambit.core.address import Address, host_port
from ambit.core.names import PROXY_MARK
from ambit.envoy import defaults, names, tls
from ambit.envoy.words import (
    ANY_V4,
    ANY_V6,
    extension,
    internal_address,
    pack,
    seconds,
    socket,
    socket_address,
    uint32,
)

HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_ORIGINAL_DST = "envoy.filters.listener.original_dst"
TRANSPORT_SOCKET_MATCH = "envoy.transport_socket_match"
"""Metadata of endpoints that chooses one of their cluster's transport sockets."""
_PIN = "pin"
_NOBODY = "spiffe://nobody"
_SOL_SOCKET, _SO_MARK = 1, 36


_LOOKUPS = {
    (True, True): cluster_pb2.Cluster.V4_PREFERRED,
    (True, False): cluster_pb2.Cluster.V4_ONLY,
    (False, True): cluster_pb2.Cluster.V6_ONLY,
}


class Endpoint(msgspec.Struct, frozen=True):
    """One choice of a balanced cluster: an internal listener that goes on to `hop`, using cluster `cluster`;
    `authority` is the target inside a tunnel. `tags` are for access logs (`ambit.envoy.logs.access_log`)."""

    listener: str
    hop: tuple[Address, int]
    cluster: str
    authority: str = ""
    weight: int = 1
    tags: Mapping[str, str] = {}


def refused(name: str, tags: Mapping[str, str]) -> Any:
    """No endpoints: every connection is reset at once, and `tags` say why in the access log."""
    cluster = new_cluster(name, cluster_pb2.Cluster.STATIC, tags)
    cluster.connect_timeout.CopyFrom(seconds(defaults.LOCAL_CONNECT_TIMEOUT))
    return cluster


def is_refused(cluster: Any) -> bool:
    """Whether it is one that `refused` made."""
    is_static: bool = cluster.type == cluster_pb2.Cluster.STATIC
    return is_static and not cluster.load_assignment.endpoints


def passthrough(name: str, tags: Mapping[str, str]) -> Any:
    """The original destination, dialled from the source pod's namespace: what the pod would have done."""
    cluster = _original_destination(name, tags)
    cluster.upstream_bind_config.CopyFrom(_bind_in_source())
    return cluster


def inside(name: str, netns: str, tags: Mapping[str, str]) -> Any:
    """The original destination, dialled from inside the namespace at `netns`: the last step to a local
    pod."""
    cluster = _original_destination(name, tags)
    cluster.upstream_bind_config.CopyFrom(_bind(netns))
    return cluster


def dialled(name: str) -> Any:
    """The original destination, dialled as the proxy itself."""
    return _original_destination(name, {})


def resolved(name: str, hostname: str, port: int, families: Collection[int], tags: Mapping[str, str]) -> Any:
    """What `hostname` resolves to in these families (IPv4 if it has both), in turns, dialled from the source pod's
    namespace. The nameservers are those of Envoy's own place; the name is taken as it is, never with a search
    domain."""
    place = address_pb2.Address(socket_address=address_pb2.SocketAddress(address=hostname, port_value=port))
    endpoint = endpoint_components_pb2.LbEndpoint(endpoint=endpoint_components_pb2.Endpoint(address=place))
    cluster = _by_turns(name, [endpoint], tags, cluster_pb2.Cluster.STRICT_DNS)
    cluster.connect_timeout.CopyFrom(seconds(defaults.CONNECT_TIMEOUT))
    cluster.dns_lookup_family = _LOOKUPS[4 in families, 6 in families]
    cluster.respect_dns_ttl = True
    cluster.dns_refresh_rate.CopyFrom(seconds(defaults.RESOLVE_USUAL))
    cluster.dns_failure_refresh_rate.base_interval.CopyFrom(seconds(defaults.RESOLVE_FAILED_FIRST))
    cluster.dns_failure_refresh_rate.max_interval.CopyFrom(seconds(defaults.RESOLVE_FAILED_LAST))
    cluster.typed_dns_resolver_config.CopyFrom(
        extension(
            "envoy.network.dns_resolver.cares",
            cares_dns_resolver_pb2.CaresDnsResolverConfig(
                filter_unroutable_families=False,
                dns_resolver_options=resolver_pb2.DnsResolverOptions(no_default_search_domain=True),
            ),
        )
    )
    cluster.upstream_bind_config.CopyFrom(_bind_in_source())
    keep_alive(cluster)
    return cluster


def hbone(name: str, server_identities: Iterable[str]) -> Any:
    """Tunnels to the original destination, which must prove one of `server_identities`."""
    cluster = _original_destination(name, {})
    cluster.transport_socket.CopyFrom(tls.client_socket(server_identities))
    cluster.upstream_bind_config.CopyFrom(_bind_in_source())
    _tunnel(cluster)
    return cluster


def own_hbone(name: str, server_identities: Iterable[str], secret: str, *, to_port: int = 0) -> Any:
    """As `hbone`, of a proxy that has one place and one certificate: its own. With `to_port` tunnels go there, whatever
    the original destination's port."""
    cluster = _original_destination(name, {})
    if to_port:
        cluster.original_dst_lb_config.upstream_port_override.CopyFrom(uint32(to_port))
    cluster.transport_socket.CopyFrom(tls.own_client_socket(server_identities, secret))
    _tunnel(cluster)
    return cluster


def tunnelled(
    name: str, endpoints: Iterable[Endpoint], pins: Mapping[str, Iterable[str]], tags: Mapping[str, str]
) -> Any:
    """One of `endpoints` by turns and weight, each through a tunnel to its hop. `pins` has the identities that
    an endpoint's server may prove, by the endpoint's `cluster`. A tunnel's `:authority` is the host name of the
    endpoint that was chosen."""
    cluster = _by_turns(name, map(_tunnelled_endpoint, endpoints), tags)
    cluster.connect_timeout.CopyFrom(seconds(defaults.CONNECT_TIMEOUT))
    keep_alive(cluster)
    cluster.upstream_bind_config.CopyFrom(_bind_in_source())
    _tunnel(cluster)
    if len(pins) == 1:
        (only,) = pins.values()
        cluster.transport_socket.CopyFrom(tls.client_socket(only))
        return cluster
    for pin, identities in sorted(pins.items()):
        match = cluster.transport_socket_matches.add(name=pin, transport_socket=tls.client_socket(identities))
        match.match.update({_PIN: pin})
    # An endpoint without a pin of its own can prove nothing.
    cluster.transport_socket.CopyFrom(tls.client_socket([_NOBODY]))
    return cluster


def nested(
    name: str, endpoints: Iterable[Endpoint], server_identities: Iterable[str], tags: Mapping[str, str]
) -> Any:
    """Tunnels inside of those that `endpoints` lead into; whoever is at their end must prove one of
    `server_identities`. Each carries one stream: the gateway between chooses a server for every outer tunnel anew."""
    cluster = _by_turns(name, map(hop_endpoint, endpoints), tags)
    cluster.connect_timeout.CopyFrom(seconds(defaults.CONNECT_TIMEOUT))
    cluster.transport_socket.CopyFrom(hop_socket(tls.client_socket(server_identities)))
    _http2(cluster, requests=1)
    return cluster


def _tunnel(cluster: Any) -> None:
    """What every cluster of tunnels has."""
    _http2(cluster)


def _http2(cluster: Any, requests: int = 0) -> None:
    """HTTP/2 as tunnels use it; with `requests` each connection is given up after so many."""
    http2 = protocol_pb2.Http2ProtocolOptions(
        max_concurrent_streams=uint32(defaults.CONCURRENT_STREAMS_OUT),
        initial_stream_window_size=uint32(defaults.DOWNLOAD_STREAM_WINDOW),
        initial_connection_window_size=uint32(defaults.DOWNLOAD_CONNECTION_WINDOW),
        connection_keepalive=protocol_pb2.KeepaliveSettings(
            interval=seconds(defaults.PING_INTERVAL), timeout=seconds(defaults.PING_TIMEOUT)
        ),
    )
    common = protocol_pb2.HttpProtocolOptions(idle_timeout=seconds(defaults.TUNNEL_IDLE_TIMEOUT))
    if requests:
        common.max_requests_per_connection.CopyFrom(uint32(requests))
    options = http_protocol_options_pb2.HttpProtocolOptions(
        common_http_protocol_options=common,
        explicit_http_config=http_protocol_options_pb2.HttpProtocolOptions.ExplicitHttpConfig(
            http2_protocol_options=http2
        ),
    )
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(pack(options))


def balanced(name: str, endpoints: Iterable[Endpoint], tags: Mapping[str, str]) -> Any:
    """One of `endpoints` by turns and weight, each reached in its own way."""
    cluster = _by_turns(name, map(hop_endpoint, endpoints), tags)
    cluster.connect_timeout.CopyFrom(seconds(defaults.LOCAL_CONNECT_TIMEOUT))
    cluster.transport_socket.CopyFrom(hop_socket(plain_socket()))
    return cluster


def into(name: str, listener: str) -> Any:
    """The way into an internal listener, which sees the addresses that the connection has."""
    inside = endpoint_components_pb2.Endpoint(address=internal_address(listener, ""))
    cluster = _by_turns(name, [endpoint_components_pb2.LbEndpoint(endpoint=inside)], {})
    cluster.connect_timeout.CopyFrom(seconds(defaults.LOCAL_CONNECT_TIMEOUT))
    cluster.transport_socket.CopyFrom(hop_socket(plain_socket()))
    return cluster


def hop_socket(inner: Any) -> Any:
    """The transport socket that leads into an internal listener and tells it about the endpoint; `inner` is that of
    what is said there."""
    host = metadata_pb2.MetadataKind(host=metadata_pb2.MetadataKind.Host())
    source = internal_upstream_pb2.InternalUpstreamTransport.MetadataValueSource
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.internal_upstream",
        typed_config=pack(
            internal_upstream_pb2.InternalUpstreamTransport(
                passthrough_metadata=[
                    source(kind=host, name=_ORIGINAL_DST),
                    source(kind=host, name=names.METADATA),
                ],
                transport_socket=inner,
            )
        ),
    )


def plain_socket() -> Any:
    """The transport socket that changes nothing."""
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=pack(raw_buffer_pb2.RawBuffer())
    )


def hop_endpoint(endpoint: Endpoint) -> Any:
    """An endpoint of a cluster whose socket is `hop_socket`."""
    hop = host_port(*endpoint.hop)
    metadata = base_pb2.Metadata()
    metadata.filter_metadata[_ORIGINAL_DST].update({"local": hop})
    metadata.filter_metadata[names.METADATA].update(
        {**endpoint.tags, "cluster": endpoint.cluster, "authority": endpoint.authority or hop}
    )
    identity = f"{hop}|{endpoint.authority}" if endpoint.authority else hop
    if endpoint.listener == names.NETWORK_ORIGINATE:
        # Several networks can serve one name, and the hop is the same for all.
        identity = endpoint.cluster
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=internal_address(endpoint.listener, identity)),
        metadata=metadata,
        load_balancing_weight=uint32(endpoint.weight),
    )


def _by_turns(
    name: str, endpoints: Iterable[Any], tags: Mapping[str, str], kind: int = cluster_pb2.Cluster.STATIC
) -> Any:
    """A cluster of these, chosen by turns and weight."""
    cluster = new_cluster(name, kind, tags)
    cluster.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
    locality = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=endpoints)
    cluster.load_assignment.CopyFrom(
        endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=[locality])
    )
    return cluster


def _tunnelled_endpoint(endpoint: Endpoint) -> Any:
    metadata = base_pb2.Metadata()
    metadata.filter_metadata[names.METADATA].update(dict(endpoint.tags))
    metadata.filter_metadata[TRANSPORT_SOCKET_MATCH].update({_PIN: endpoint.cluster})
    return endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(
            address=socket_address(*endpoint.hop), hostname=endpoint.authority
        ),
        metadata=metadata,
        load_balancing_weight=uint32(endpoint.weight),
    )


def new_cluster(name: str, kind: int, tags: Mapping[str, str]) -> Any:
    """A cluster of this kind (`Cluster.DiscoveryType`) with what all have."""
    cluster = cluster_pb2.Cluster(
        name=name,
        type=kind,
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
    )
    if tags:
        cluster.metadata.filter_metadata[names.METADATA].update(dict(tags))
    return cluster


def _original_destination(name: str, tags: Mapping[str, str]) -> Any:
    cluster = new_cluster(name, cluster_pb2.Cluster.ORIGINAL_DST, tags)
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    cluster.connect_timeout.CopyFrom(seconds(defaults.CONNECT_TIMEOUT))
    cluster.cleanup_interval.CopyFrom(seconds(defaults.ORIGINAL_DESTINATION_CLEANUP))
    keep_alive(cluster)
    return cluster


def keep_alive(cluster: Any) -> None:
    """The kernel notices that a peer of an idle connection is gone."""
    cluster.upstream_connection_options.tcp_keepalive.CopyFrom(
        address_pb2.TcpKeepalive(
            keepalive_probes=uint32(defaults.KEEPALIVE_PROBES),
            keepalive_time=uint32(defaults.KEEPALIVE_IDLE),
            keepalive_interval=uint32(defaults.KEEPALIVE_INTERVAL),
        )
    )


def _bind(netns: str) -> Any:
    """Marked sockets of both families; without the second address IPv6 upstreams are reset."""
    return address_pb2.BindConfig(
        source_address=socket(ANY_V4, 0, netns),
        extra_source_addresses=[address_pb2.ExtraSourceAddress(address=socket(ANY_V6, 0, netns))],
        socket_options=[
            socket_option_pb2.SocketOption(
                description="mark",
                level=_SOL_SOCKET,
                name=_SO_MARK,
                int_value=PROXY_MARK,
                state=socket_option_pb2.SocketOption.STATE_PREBIND,
            )
        ],
    )


def _bind_in_source() -> Any:
    bind = _bind("")
    bind.local_address_selector.CopyFrom(
        extension("envoy.upstream.local_address_selector.filter_state_override", selector_pb2.Config())
    )
    return bind
