"""Datagrams (UDP) at a gateway: a listener for each port, and one cluster of everything that it sends to.

Shares of services are weights of localities of that cluster, which come by EDS: other weights, services or endpoints
change no listener, so that the clients that are there keep their endpoints. A share that nobody may have goes to a port
of the proxy's own pod on which nobody listens.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address
from typing import Any

import msgspec
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, udp_socket_config_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2, udp_listener_config_pb2
from envoy.extensions.filters.udp.udp_proxy.v3 import route_pb2, udp_proxy_pb2
from envoy.type.v3 import percent_pb2

from ambit.core.address import Address
from ambit.core.names import READINESS_PORT
from ambit.envoy import clusters, defaults, matchers, names
from ambit.envoy.l7.admission import ANYBODY, Admission
from ambit.envoy.logs import access_log, datagram_log
from ambit.envoy.words import ANY_V4, ANY_V6, from_ads, pack, seconds, udp_address, uint32

Place = tuple[Address, int]
NOWHERE: Place = (IPv4Address("127.0.0.1"), READINESS_PORT)
"""No listener can have this port, of whatever protocol."""
STATISTICS = "datagrams"
"""Begins the names of what Envoy counts, after `udp.`."""


class Share(msgspec.Struct, frozen=True):
    """What a part of the clients is led to, each to one of these places; to none when there is none."""

    weight: int
    places: tuple[Place, ...] = ()
    known: str = ""
    """What records say of it (`ambit.envoy.logs.datagram_log.known`)."""


def listener(port: int, *, families: Iterable[int], admission: Admission = ANYBODY) -> Any:
    """Datagrams of whoever sends them and may, to the cluster of the same name."""
    name = names.gateway_udp_port(port)
    hosts = [host for version, host in ((4, ANY_V4), (6, ANY_V6)) if version in set(families)]
    proxy = listener_components_pb2.ListenerFilter(
        name="envoy.filters.udp_listener.udp_proxy", typed_config=pack(_proxy(name, admission))
    )
    return listener_pb2.Listener(
        name=name,
        address=udp_address(hosts[0], port),
        additional_addresses=[
            listener_pb2.AdditionalAddress(address=udp_address(host, port)) for host in hosts[1:]
        ],
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(downstream_socket_config=_whole()),
        listener_filters=[proxy],
        traffic_direction="OUTBOUND",
    )


def cluster(port: int) -> Any:
    """What a port's datagrams go to, which comes separately."""
    made = clusters.new_cluster(names.gateway_udp_port(port), cluster_pb2.Cluster.EDS, {})
    made.eds_cluster_config.eds_config.CopyFrom(from_ads())
    made.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
    made.common_lb_config.locality_weighted_lb_config.SetInParent()
    made.common_lb_config.healthy_panic_threshold.CopyFrom(percent_pb2.Percent(value=0))
    made.circuit_breakers.thresholds.add(max_connections=uint32(defaults.DATAGRAM_CLIENTS))
    return made


def endpoints(port: int, shares: Iterable[Share]) -> Any:
    """The EDS resource of a port's cluster. Without any share nobody is led anywhere."""
    return endpoint_pb2.ClusterLoadAssignment(
        cluster_name=names.gateway_udp_port(port),
        endpoints=[_locality(index, each) for index, each in enumerate(shares)],
    )


def _locality(index: int, share: Share) -> Any:
    metadata = base_pb2.Metadata()
    if share.known:
        metadata.filter_metadata[names.METADATA].update({access_log.KNOWN: share.known})
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(sub_zone=str(index)),
        load_balancing_weight=uint32(share.weight),
        lb_endpoints=[
            endpoint_components_pb2.LbEndpoint(
                endpoint=endpoint_components_pb2.Endpoint(address=udp_address(address, port)),
                metadata=metadata,
            )
            for address, port in share.places or (NOWHERE,)
        ],
    )


def _proxy(cluster: str, admission: Admission) -> Any:
    taken, denied = (
        matchers.action("route", route_pb2.Route(cluster=each)) for each in (cluster, names.DENIED_DATAGRAMS)
    )
    return udp_proxy_pb2.UdpProxyConfig(
        stat_prefix=STATISTICS,
        matcher=admission.matcher(taken, lambda _: denied),
        idle_timeout=seconds(defaults.DATAGRAM_IDLE),
        upstream_socket_config=_whole(),
        access_log=[datagram_log.every()],
    )


def _whole() -> Any:
    return udp_socket_config_pb2.UdpSocketConfig(max_rx_datagram_size={"value": defaults.DATAGRAM_SIZE})
