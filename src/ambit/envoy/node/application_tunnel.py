"""How a waypoint behind a node proxy gets what arrives in tunnels: on a port of its own choice, with the PROXY protocol
in front of the bytes if it asks for that.

A CONNECT stream goes into an internal listener, where the connection's own address is the one that the client asked
for, which need not be the pod's; from there to the application. With PROXY that is dialled on loopback and told, in
version 2 of the protocol, the client's address, the address that was asked for, and the client's identity in the TLV
0xD0 (ztunnel `proxy.rs`). Without, it is dialled at the pod's address, by the pod's address.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, proxy_protocol_pb2, substitution_format_string_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2

from ambit.core.address import Address
from ambit.envoy import clusters, defaults, filter_state, matchers, names, tcp_proxy
from ambit.envoy.words import internal_address, pack, seconds, uint32

_IDENTITY = 0xD0
"""TLV of the client's SPIFFE identity."""
_TAKEN, _REFUSED = "taken", "refused"
_FAMILIES = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
_LOOPBACK = {4: "127.0.0.1", 6: "[::1]"}


def into(pod: str) -> Any:
    """The cluster that leads from a CONNECT stream into `listener`."""
    name = names.handed(pod)
    cluster = clusters.new_cluster(name, cluster_pb2.Cluster.STATIC, {})
    cluster.connect_timeout.CopyFrom(seconds(defaults.LOCAL_CONNECT_TIMEOUT))
    inside = endpoint_components_pb2.Endpoint(address=internal_address(name, ""))
    cluster.load_assignment.CopyFrom(
        endpoint_pb2.ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                endpoint_components_pb2.LocalityLbEndpoints(
                    lb_endpoints=[endpoint_components_pb2.LbEndpoint(endpoint=inside)]
                )
            ],
        )
    )
    cluster.transport_socket.CopyFrom(clusters.hop_socket(clusters.plain_socket()))
    return cluster


def listener(pod: str, addresses: Sequence[Address], port: int, *, is_told: bool) -> Any:
    """The internal listener that goes on to `port` of the application; 0 to the port that was asked for."""
    family = min(each.version for each in addresses)
    place = _LOOPBACK[family]
    if not is_told:
        own = next(each for each in addresses if each.version == family)
        place = str(own) if family == 4 else f"[{own}]"
    target = filter_state.original_destination(f"{place}:{port or '%DOWNSTREAM_LOCAL_PORT%'}")
    told = [_identity()] if is_told else []
    taken = listener_components_pb2.FilterChain(
        name=_TAKEN,
        filters=[
            filter_state.network_filter(target),
            tcp_proxy.told(names.application(pod), told),
        ],
    )
    refused = listener_components_pb2.FilterChain(name=_REFUSED, filters=[tcp_proxy.told(names.REFUSED, [])])
    made = listener_pb2.Listener(
        name=names.handed(pod),
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.original_dst", typed_config=pack(original_dst_pb2.OriginalDst())
            )
        ],
        filter_chains=[taken, refused],
    )
    made.filter_chain_matcher.CopyFrom(
        matchers.first_match(
            [(_is_sayable() if is_told else True, matchers.filter_chain(_TAKEN))],
            matchers.filter_chain(_REFUSED),
        )
    )
    return made


def _is_sayable() -> matchers.Predicate:
    """Whether both addresses are of one family: Envoy 1.40 ends itself when it should say two (`uncaught exception:
    invalid ipv4 address`), and whoever has an identity can ask for any address."""
    return matchers.any_of(
        matchers.all_of([matchers.source_in([family]), matchers.destination_in([family])])
        for family in _FAMILIES
    )


def application(pod: str, netns: str, *, is_told: bool) -> Any:
    """The cluster that dials the application, in the pod's namespace."""
    cluster = clusters.inside(names.application(pod), netns, {})
    if is_told:
        protocol = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport(
            config=proxy_protocol_pb2.ProxyProtocolConfig(
                version=proxy_protocol_pb2.ProxyProtocolConfig.V2,
                pass_through_tlvs=proxy_protocol_pb2.ProxyProtocolPassThroughTLVs(
                    match_type=proxy_protocol_pb2.ProxyProtocolPassThroughTLVs.INCLUDE, tlv_type=[_IDENTITY]
                ),
            ),
            transport_socket=clusters.plain_socket(),
        )
        cluster.transport_socket.CopyFrom(
            base_pb2.TransportSocket(
                name="envoy.transport_sockets.upstream_proxy_protocol", typed_config=pack(protocol)
            )
        )
    return cluster


def _identity() -> Any:
    return proxy_protocol_pb2.TlvEntry(
        type=_IDENTITY,
        format_string=substitution_format_string_pb2.SubstitutionFormatString(
            text_format_source=base_pb2.DataSource(inline_string=filter_state.CALLER_FORMAT)
        ),
    )
