"""Bytes to hosts outside by the name in a client's hello: TLS is not ended, the name is resolved, and the connection
goes to what it resolves to.

Names are those of a pattern, others and clients without any end. Who answers for them is the proxy's own agent
(`ambit.proxy.resolver`), so that no answer leads to where nobody may be led: Envoy dials any address of an answer, one
after the other. Whoever may connect says the name himself, so it proves nothing about where bytes end up.
"""

from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.clusters.dynamic_forward_proxy.v3 import cluster_pb2 as forward_cluster_pb2
from envoy.extensions.common.dynamic_forward_proxy.v3 import dns_cache_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3 import sni_dynamic_forward_proxy_pb2
from envoy.extensions.network.dns_resolver.cares.v3 import cares_dns_resolver_pb2

from ambit.core.names import DNS_PORT
from ambit.envoy import clusters, defaults, names, tcp_proxy, waypoint_services
from ambit.envoy.words import pack, seconds, udp_address, uint32

RESOLVER = "127.0.0.1"
_HOSTS = 1024
"""Names that one proxy has in mind at once. More are refused until others have not been asked for a while."""


def listener(service: str, port: int, *, pattern: str, target: int) -> Any:
    """Connections to a service's port whose clients ask for a host of `pattern`, on to its port `target`."""
    name = names.service_cluster(service, port)
    resolved = sni_dynamic_forward_proxy_pb2.FilterConfig(dns_cache_config=_cache(), port_value=target)
    chain = listener_components_pb2.FilterChain(
        name=name,
        filter_chain_match=listener_components_pb2.FilterChainMatch(server_names=[pattern]),
        filters=[
            listener_components_pb2.Filter(
                name="envoy.filters.network.sni_dynamic_forward_proxy", typed_config=pack(resolved)
            ),
            tcp_proxy.fixed(names.server_names(service, port)),
        ],
    )
    return listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.original_dst", typed_config=pack(original_dst_pb2.OriginalDst())
            ),
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.tls_inspector",
                typed_config=pack(tls_inspector_pb2.TlsInspector()),
            ),
        ],
        filter_chains=[chain],
    )


def cluster(service: str, port: int) -> Any:
    """What such names have resolved to."""
    made = cluster_pb2.Cluster(
        name=names.server_names(service, port),
        connect_timeout=seconds(defaults.CONNECT_TIMEOUT),
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        cluster_type=cluster_pb2.Cluster.CustomClusterType(
            name="envoy.clusters.dynamic_forward_proxy",
            typed_config=pack(forward_cluster_pb2.ClusterConfig(dns_cache_config=_cache())),
        ),
    )
    clusters.keep_alive(made)
    waypoint_services.without_limits(made)
    return made


def _cache() -> Any:
    """One for all: what is said of it must be the same everywhere."""
    resolver = cares_dns_resolver_pb2.CaresDnsResolverConfig()
    place = resolver.resolvers.add()
    place.CopyFrom(udp_address(RESOLVER, DNS_PORT))
    return dns_cache_pb2.DnsCacheConfig(
        name="server names",
        dns_lookup_family=cluster_pb2.Cluster.V4_ONLY,
        max_hosts=uint32(_HOSTS),
        typed_dns_resolver_config=extension_pb2.TypedExtensionConfig(
            name="envoy.network.dns_resolver.cares", typed_config=pack(resolver)
        ),
    )
