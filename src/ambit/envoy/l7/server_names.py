"""Bytes to hosts outside by the name in a client's hello: TLS is not ended, the name is resolved, and the connection
goes to what it resolves to.

Names are those of a pattern, others and clients without any end. Envoy has so many names in mind and refuses further
ones until others were not asked for in a while; so callers are divided by a hash of their identity, and who asks for
many names refuses others to those only who share with him.

Who answers for them is the proxy's own agent (`ambit.proxy.resolver`), so that no answer leads to where nobody may be
led: Envoy dials any address of an answer, one after the other. Whoever may connect says the name himself, so it proves
nothing about where bytes end up.
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
from ambit.envoy import clusters, defaults, filter_state, matchers, names, tcp_proxy, waypoint_services
from ambit.envoy.words import pack, seconds, udp_address, uint32

RESOLVER = "127.0.0.1"
SHARES = 8
HOSTS = 256
"""Names that one proxy has in mind at once for the callers of a share."""
_UNUSED, _LOOKED_AT = 60, 30
"""Seconds after which a name that nobody asks for may be forgotten, and after which Envoy looks whether it may, where
nameservers do not know it."""


def listener(service: str, port: int, *, pattern: str, target: int) -> Any:
    """Connections to a service's port whose clients ask for a host of `pattern`, on to its port `target`."""
    name = names.service_cluster(service, port)
    chains = [_chain(service, port, target, share) for share in range(SHARES)]
    shared = matchers.by_share(filter_state.CALLER, [matchers.filter_chain(each.name) for each in chains])
    named = matchers.server_name_below(pattern.removeprefix("*"))
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
        filter_chain_matcher=matchers.first_match([(named, shared)], None),
        filter_chains=chains,
    )


def _chain(service: str, port: int, target: int, share: int) -> Any:
    name = names.server_names(service, port, share)
    resolved = sni_dynamic_forward_proxy_pb2.FilterConfig(dns_cache_config=_cache(share), port_value=target)
    return listener_components_pb2.FilterChain(
        name=name,
        filters=[
            listener_components_pb2.Filter(
                name="envoy.filters.network.sni_dynamic_forward_proxy", typed_config=pack(resolved)
            ),
            tcp_proxy.fixed(name),
        ],
    )


def cluster(service: str, port: int, share: int) -> Any:
    """What such names have resolved to for the callers of a share."""
    made = cluster_pb2.Cluster(
        name=names.server_names(service, port, share),
        connect_timeout=seconds(defaults.CONNECT_TIMEOUT),
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        cluster_type=cluster_pb2.Cluster.CustomClusterType(
            name="envoy.clusters.dynamic_forward_proxy",
            typed_config=pack(forward_cluster_pb2.ClusterConfig(dns_cache_config=_cache(share))),
        ),
    )
    clusters.keep_alive(made)
    waypoint_services.without_limits(made)
    return made


def _cache(share: int) -> Any:
    """One for all services: what is said of it must be the same everywhere."""
    resolver = cares_dns_resolver_pb2.CaresDnsResolverConfig()
    place = resolver.resolvers.add()
    place.CopyFrom(udp_address(RESOLVER, DNS_PORT))
    return dns_cache_pb2.DnsCacheConfig(
        name=f"server names {share}",
        dns_lookup_family=cluster_pb2.Cluster.V4_ONLY,
        max_hosts=uint32(HOSTS),
        host_ttl=seconds(_UNUSED),
        dns_refresh_rate=seconds(_LOOKED_AT),
        typed_dns_resolver_config=extension_pb2.TypedExtensionConfig(
            name="envoy.network.dns_resolver.cares", typed_config=pack(resolver)
        ),
    )
