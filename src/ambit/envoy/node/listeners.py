"""Listeners of a node proxy: three in each pod's namespace, and four internal ones that all pods share.

None of them depends on policies, services or other workloads (those come as clusters, as an extension and as
the plaintext listener's matcher), so ordinary changes never drain a connection.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.original_src.v3 import original_src_pb2
from google.protobuf.wrappers_pb2 import BoolValue

from ambit.core.address import INNER_NETWORKS, Address, Network
from ambit.core.names import (
    HBONE_PORT,
    INBOUND_PLAINTEXT_PORT,
    OUTBOUND_MARK,
    OUTBOUND_PORT,
    PLAINTEXT_MARK,
    PROXY_MARK,
    RESERVED_PORTS,
)
from ambit.envoy import defaults, filter_state, matchers, names, sockets, tcp_proxy, tls
from ambit.envoy.logs import access_log
from ambit.envoy.node import connection_manager
from ambit.envoy.words import ANY_V4, ANY_V6, pack, socket_address, uint32

ACCEPTED = "accepted"
DENIED = "denied"
"""Filter chains of the plaintext listener; its matcher names one of them."""

ASKED = "asked"
TUNNELLED = "tunnelled"
PASSED = "passed"
LIMITED = "limited"
"""Filter chains of the outbound listener."""

_ORIGINAL_DST = "envoy.filters.listener.original_dst"


def outbound(
    *,
    pod: str,
    netns: str,
    addresses: Collection[Address],
    client_secret: str,
    outer: Iterable[Network],
    only: Iterable[tuple[Address, int]] | None = None,
    generations: Sequence[int] = (0,),
    tunnelled: Mapping[tuple[Address, int], tuple[int, int]] | None = None,
    transparent: bool = False,
    within: bool = False,
) -> Any:
    """15001: every TCP connection that the pod opens. The cluster `dst|POD|ADDRESS:PORT`, asked for on demand,
    decides how it goes on; the client's address is kept. Destinations outside of the usual networks and of
    `outer` pass through without a question: they would cost a cluster each and can be any number. With `only`
    nothing but these addresses and ports is asked for, and other destinations inside are refused. New connections ask
    for names of the last of `generations`; the others' chains are there for connections that are open.

    Of connections to an address and port in `tunnelled` this share (parts, whole) goes straight into a tunnel of
    the cluster `tun|POD|ADDRESS:PORT`. Which these are changes no connection that is open. `transparent`: the pod is
    captured without NAT, here and in the other listeners. `within`: also what enters over the pod's virtual
    interfaces, which the kernel redirects to the interface's address."""
    log = access_log.every(names.LOG_OUTBOUND)
    listener = _pod_listener(
        names.outbound_listener(pod),
        pod=pod,
        addresses=_per_family(addresses, *((ANY_V4, ANY_V6) if within else ("127.0.0.1", "::1"))),
        port=OUTBOUND_PORT,
        netns=netns,
        direction="OUTBOUND",
        mark=OUTBOUND_MARK if transparent else 0,
        listener_filters=[_original_destination(), _original_source()],
        filter_chains=[
            *(
                _chain(
                    _numbered(ASKED, generation),
                    filter_state.network_filter(
                        filter_state.upstream_namespace(netns),
                        filter_state.client_certificate(client_secret),
                        filter_state.client_address(),
                        filter_state.trace(tcp_proxy.trace(pod)),
                        filter_state.cluster(
                            names.destination_prefix(pod, generation).replace("%", "%%")
                            + "%DOWNSTREAM_LOCAL_ADDRESS%"
                        ),
                    ),
                    tcp_proxy.on_demand(log),
                )
                for generation in generations
            ),
            _chain(
                PASSED,
                filter_state.network_filter(filter_state.upstream_namespace(netns)),
                tcp_proxy.fixed(names.PASSTHROUGH, log),
            ),
            _chain(LIMITED, tcp_proxy.fixed(names.LIMITED, log)),
            *(
                _chain(
                    _numbered(TUNNELLED, generation),
                    filter_state.network_filter(
                        filter_state.upstream_namespace(netns),
                        filter_state.client_certificate(client_secret),
                        filter_state.cluster(
                            names.tunnelled_prefix(pod, generation).replace("%", "%%")
                            + "%DOWNSTREAM_LOCAL_ADDRESS%"
                        ),
                    ),
                    tcp_proxy.on_demand_tunnel(
                        [log, access_log.large(names.LOG_TUNNEL)],
                        authority=tcp_proxy.CHOSEN_ENDPOINT,
                        metadata="CLUSTER_METADATA",
                        trace=tcp_proxy.trace(pod),
                    ),
                )
                for generation in generations
            ),
        ],
    )
    asked = matchers.filter_chain(_numbered(ASKED, generations[-1]))
    if only is not None:
        asked = matchers.destination_among(only, asked, matchers.filter_chain(LIMITED))
    tunnel = matchers.filter_chain(_numbered(TUNNELLED, generations[-1]))
    shares = {
        destination: matchers.share(parts, whole, tunnel, asked)
        for destination, (parts, whole) in (tunnelled or {}).items()
    }
    asked = matchers.by_destination(shares, asked)
    reserved = matchers.any_of(matchers.destination_port(port) for port in sorted(RESERVED_PORTS))
    inside = matchers.any_of([reserved, matchers.destination_in([*INNER_NETWORKS, *outer])])
    listener.filter_chain_matcher.CopyFrom(
        matchers.first_match([(inside, asked)], matchers.filter_chain(PASSED))
    )
    return listener


def hbone(
    *,
    pod: str,
    netns: str,
    addresses: Collection[Address],
    server_secret: str,
    transparent: bool = False,
    is_handed_on: bool = False,
    is_named: bool = False,
    is_read: bool = False,
) -> Any:
    """15008: mutual TLS, then one CONNECT stream per connection, authorised one by one, delivered from the
    client's address to an address of the pod; or whatever it is for handed on to the application
    (`ambit.envoy.node.application_tunnel`). `is_named`: also by names (`ambit.envoy.node.host_names`). `is_read`:
    where it goes says a table of the listener's name, because there are ports whose requests may come to be read."""
    if is_handed_on:
        manager = connection_manager.handed_on(pod=pod, is_named=is_named)
    else:
        manager = connection_manager.hbone(pod=pod, addresses=addresses, is_named=is_named, is_read=is_read)
    chain = _chain("hbone", manager)
    chain.transport_socket.CopyFrom(tls.server_socket(server_secret))
    return _pod_listener(
        names.hbone_listener(pod),
        pod=pod,
        addresses=_per_family(addresses, ANY_V4, ANY_V6),
        port=HBONE_PORT,
        netns=netns,
        direction="INBOUND",
        mark=PROXY_MARK if transparent else 0,
        listener_filters=[_original_source()],
        filter_chains=[chain],
    )


def plaintext(
    *,
    pod: str,
    netns: str,
    addresses: Collection[Address],
    matcher: Any,
    transparent: bool = False,
    read: Iterable[int] = (),
) -> Any:
    """15006: what arrives without HBONE. `matcher` picks ACCEPTED or DENIED before any byte flows, so a
    denied client never sees what a server says first; or `read_chain` of a port in `read`, whose requests are read."""
    log = access_log.every(names.LOG_PLAINTEXT)
    listener = _pod_listener(
        names.plaintext_listener(pod),
        pod=pod,
        addresses=_per_family(addresses, ANY_V4, ANY_V6),
        port=INBOUND_PLAINTEXT_PORT,
        netns=netns,
        direction="INBOUND",
        mark=PLAINTEXT_MARK if transparent else 0,
        listener_filters=[_original_destination(), _original_source()],
        filter_chains=[
            _chain(ACCEPTED, tcp_proxy.fixed(names.local_cluster(pod), log)),
            _chain(DENIED, tcp_proxy.fixed(names.REFUSED, log)),
            *(
                _chain(
                    read_chain(port),
                    filter_state.network_filter(
                        filter_state.client_address(),
                        filter_state.dialled_address("%DOWNSTREAM_LOCAL_ADDRESS%"),
                    ),
                    tcp_proxy.fixed(names.into_service(names.pod_requests(pod), port), log),
                )
                for port in read
            ),
        ],
    )
    listener.filter_chain_matcher.CopyFrom(matcher)
    return listener


def read_chain(port: int) -> str:
    """The plaintext listener's filter chain for requests to this port."""
    return f"read.{port}"


def connect_originate() -> Any:
    """Internal: puts each connection into a tunnel. Hop, target and pinned cluster come with the endpoint."""
    return _internal_listener(
        names.CONNECT_ORIGINATE,
        [_original_destination()],
        tcp_proxy.on_demand_tunnel(
            access_log.tunnels(names.LOG_TUNNEL),
            authority=f"%DYNAMIC_METADATA({names.METADATA}:authority)%",
            metadata="DYNAMIC_METADATA",
            trace=filter_state.TRACE,
        ),
    )


def own_originate() -> Any:
    """As `connect_originate`, of a proxy that says nothing about its clients."""
    return _internal_listener(
        names.CONNECT_ORIGINATE,
        [_original_destination()],
        tcp_proxy.tunnel(authority=f"%DYNAMIC_METADATA({names.METADATA}:authority)%"),
    )


def network_originate() -> Any:
    """Internal: puts each connection into a tunnel that goes through another to a gateway, by way of
    `connect_originate`."""
    return _internal_listener(
        names.NETWORK_ORIGINATE,
        [_original_destination()],
        tcp_proxy.on_demand_tunnel(
            access_log.tunnels(names.LOG_TUNNEL),
            authority=f"%DYNAMIC_METADATA({names.METADATA}:authority)%",
            metadata="DYNAMIC_METADATA",
            trace=filter_state.TRACE,
            network=f"%DYNAMIC_METADATA({names.METADATA}:{tcp_proxy.NETWORK})%",
        ),
        # Meant for the next hop only, which is one further here.
        filter_state.client_address(),
        filter_state.trace(filter_state.TRACE),
    )


def direct_originate() -> Any:
    """Internal: goes on without a tunnel, for endpoints on this node and endpoints outside the mesh."""
    return _internal_listener(
        names.DIRECT_ORIGINATE,
        original_addresses(),
        tcp_proxy.on_demand(access_log.failures(names.LOG_TUNNEL)),
        # For who reads requests to a pod of this node.
        filter_state.client_address(),
    )


def outside_originate() -> Any:
    """Internal: goes on without a tunnel from the source pod's namespace, from an address of the destination's
    family, which may be another than the client's."""
    return _internal_listener(
        names.OUTSIDE_ORIGINATE,
        [_original_destination()],
        tcp_proxy.on_demand(access_log.failures(names.LOG_TUNNEL), attempts=defaults.RESOLVED_ATTEMPTS),
    )


def original_addresses() -> list[Any]:
    """Of an internal listener whose connections go on to the address that was dialled, from the client's."""
    return [_original_destination(), _original_source()]


def _internal_listener(name: str, listener_filters: Iterable[Any], proxy: Any, *passed_on: Any) -> Any:
    choose = filter_state.network_filter(
        filter_state.cluster(f"%DYNAMIC_METADATA({names.METADATA}:cluster)%"), *passed_on
    )
    return listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=listener_filters,
        filter_chains=[_chain(name, choose, proxy)],
    )


def _pod_listener(
    name: str,
    *,
    pod: str,
    addresses: list[str],
    port: int,
    netns: str,
    direction: str,
    listener_filters: Iterable[Any],
    filter_chains: Iterable[Any],
    mark: int,
) -> Any:
    """With a `mark` its sockets take packets to any address, and what they send carries it: else it would be routed
    as the pod's own."""
    first, *more = addresses
    listener = listener_pb2.Listener(
        name=name,
        address=socket_address(first, port, netns),
        additional_addresses=[
            listener_pb2.AdditionalAddress(address=socket_address(each, port, netns)) for each in more
        ],
        traffic_direction=direction,
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=listener_filters,
        filter_chains=filter_chains,
        socket_options=sockets.keepalive(),
    )
    if mark:
        listener.transparent.CopyFrom(BoolValue(value=True))
        listener.socket_options.append(sockets.marked(mark))
    listener.metadata.filter_metadata[names.METADATA].update({access_log.POD: pod})
    return listener


def _numbered(chain: str, generation: int) -> str:
    return f"{chain}.{generation}" if generation else chain


def _per_family(addresses: Iterable[Address], four: str, six: str) -> list[str]:
    """Where to listen: only in the pod's families, since a namespace without IPv6 refuses the other one."""
    versions = {each.version for each in addresses}
    return [listen for version, listen in ((4, four), (6, six)) if version in versions]


def _chain(name: str, *filters: Any) -> Any:
    return listener_components_pb2.FilterChain(name=name, filters=filters)


def _original_destination() -> Any:
    """The address that the client dialled becomes the connection's local address."""
    return listener_components_pb2.ListenerFilter(
        name=_ORIGINAL_DST, typed_config=pack(original_dst_pb2.OriginalDst())
    )


def _original_source() -> Any:
    """Upstream connections are made from the client's address."""
    return listener_components_pb2.ListenerFilter(
        name="envoy.filters.listener.original_src",
        typed_config=pack(original_src_pb2.OriginalSrc(mark=PROXY_MARK)),
    )
