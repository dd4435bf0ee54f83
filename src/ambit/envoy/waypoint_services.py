"""What a waypoint has for each port of a service, or of a workload that is called by its own address: the listener
inside of a tunnel, and where it goes on. A workload's resources are named by its uid.

tunnel ─> cluster `into` ─> listener `svc|…` ─> requests or bytes ─> cluster `svc|…` ─> a tunnel of its own, or plainly
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from envoy.type.v3 import percent_pb2

from ambit.core.address import Address
from ambit.envoy import backend_tls, clusters, defaults, names, streams, tcp_proxy
from ambit.envoy.http import manager as request_manager
from ambit.envoy.http.telling import NOTHING, Told
from ambit.envoy.logs import access_log, request_log, stream_log
from ambit.envoy.words import boolean, from_ads, internal_address, pack, seconds, socket_address, uint32
from ambit.model.service import RetryBudget
from ambit.model.streams import Stream

_Options = http_protocol_options_pb2.HttpProtocolOptions
REQUESTS = "requests"
"""Prefix of statistics about requests."""
_INSIDE = "inside"
"""Prefix of those of requests inside of tunnels. Envoy keeps its statistics for each listener, under whatever name, so
nobody counts these: a tunnel with a request in it is counted."""
ANY_PORT = 0
"""Stands in names for all ports of a workload that are not said to speak HTTP."""
_TUNNELLED = "tunnelled"
_SUBSETS = "envoy.lb"
"""Metadata by which a route chooses among the endpoints of a cluster."""
_H1, _H2 = "http/1.1", "h2"
_UNLIMITED = 0xFFFFFFFF


class Speaks(Enum):
    """What a cluster's endpoints are spoken to in; `AS_CLIENT`: the version of HTTP that the client speaks."""

    BYTES = "bytes"
    AS_CLIENT = "as client"
    HTTP1 = "http/1.1"
    HTTP2 = "h2"


_ALPN = {Speaks.BYTES: (), Speaks.HTTP1: (_H1,), Speaks.HTTP2: (_H2,), Speaks.AS_CLIENT: (_H2, _H1)}
"""What is offered to servers that are spoken to with TLS."""


class PlainEndpoint(msgspec.Struct, frozen=True):
    """One choice without a tunnel: an address, or with `hostname` what that resolves to. `tags` are for access logs."""

    port: int
    address: Address | None = None
    hostname: str = ""
    weight: int = 1
    tags: Mapping[str, str] = {}


Endpoint = clusters.Endpoint | PlainEndpoint


def into() -> Any:
    """The cluster that leads from tunnels into the listeners of ports, whichever a route names (`leads_to`): one for
    all, because a cluster costs Envoy twenty times what an endpoint does. Its endpoints come separately (`ways`)."""
    cluster = clusters.new_cluster(names.INTO, cluster_pb2.Cluster.EDS, {})
    cluster.connect_timeout.CopyFrom(seconds(defaults.LOCAL_CONNECT_TIMEOUT))
    cluster.eds_cluster_config.eds_config.CopyFrom(from_ads())
    subsets = cluster.lb_subset_config
    subsets.fallback_policy = cluster_pb2.Cluster.LbSubsetConfig.NO_FALLBACK
    subsets.subset_selectors.add(keys=[names.INTO], single_host_per_subset=True)
    cluster.transport_socket.CopyFrom(clusters.hop_socket(clusters.plain_socket()))
    without_limits(cluster)
    return cluster


def ways(listeners: Iterable[str]) -> Any:
    """What the EDS resource of `into` says: these internal listeners."""
    return _assignment(names.INTO, map(_way, listeners))


def leads_to(listener: str) -> Any:
    """Of a route to `into`: which listener; nobody else's while that is not there."""
    chosen = base_pb2.Metadata()
    chosen.filter_metadata[_SUBSETS].update({names.INTO: listener})
    return chosen


def http_listener(
    service: str, port: int, *, default_host: str, by: str, told: Told = NOTHING, places: int = 1
) -> Any:
    """Requests to a service's port, by the table of its name, at the proxy with the identity `by`."""
    name = names.service_cluster(service, port)
    manager = request_manager.requests(
        stat=_INSIDE,
        table=name,
        subject=service,
        port=port,
        default_host=default_host,
        by=by,
        told=told,
        places=places,
    )
    return _told(_listener(name, manager), service, port)


def tcp_listener(service: str, port: int) -> Any:
    """Bytes to a service's port, to its endpoints."""
    name = names.service_cluster(service, port)
    return _told(_listener(name, tcp_proxy.fixed(name, stream_log.every())), service, port)


def streams_listener(service: str, port: int, given: Sequence[Stream]) -> Any:
    """Bytes to a service's port, by these rules."""
    name = names.service_cluster(service, port)
    made = _told(_listener(name, None), service, port)
    made.listener_filters.extend(streams.inspectors(given))
    made.filter_chains.extend(streams.filter_chains(name, given))
    return made


def workload_listener(workload: str, *, tunnelled: bool) -> Any:
    """Bytes to any port of a workload that was dialled by its own address, to the cluster of the same name."""
    name = names.service_cluster(workload, ANY_PORT)
    log = stream_log.every()
    proxy = tcp_proxy.fixed(name, log)
    if tunnelled:
        proxy = tcp_proxy.tunnel_to(name, log, authority="%DOWNSTREAM_LOCAL_ADDRESS%")
    return _told(_listener(name, proxy), workload)


def to_one(cluster: Any, *, pod: str, identity: str) -> Any:
    """The cluster of a workload, whose records say its name and what it proves: endpoints are not known."""
    server = {access_log.POD: pod, access_log.IDENTITY: identity}
    known = {f"{stream_log.OWN}{key}": value for key, value in server.items() if value}
    cluster.metadata.filter_metadata[names.METADATA].update(known)
    return cluster


def cluster(name: str, speaks: Speaks, tls: backend_tls.Spoken | None = None) -> Any:
    """The endpoints of a service's port, which come separately. With `tls` it is spoken to them."""
    made = _cluster(name, cluster_pb2.Cluster.EDS, tls, speaks)
    made.eds_cluster_config.eds_config.CopyFrom(from_ads())
    speak(made, speaks, tls)
    return made


def cluster_with(
    name: str,
    endpoints: Iterable[Endpoint],
    speaks: Speaks,
    tags: Mapping[str, str],
    tls: backend_tls.Spoken | None = None,
) -> Any:
    """As `cluster`, with endpoints that come with it."""
    made = _cluster(name, cluster_pb2.Cluster.STATIC, tls, speaks)
    made.load_assignment.CopyFrom(endpoints_of(name, endpoints))
    made.metadata.filter_metadata[names.METADATA].update(dict(tags))
    speak(made, speaks, tls)
    return made


def cluster_by_names(
    name: str, endpoints: Iterable[Endpoint], speaks: Speaks, tls: backend_tls.Spoken | None = None
) -> Any:
    """As `cluster`, with endpoints that have to be resolved among them: they come with the cluster."""
    made = _cluster(name, cluster_pb2.Cluster.STRICT_DNS, tls, speaks)
    # A name that nobody answers for would hold up the acknowledgement of all clusters.
    made.wait_for_warm_on_init.CopyFrom(boolean(False))
    made.respect_dns_ttl = True
    made.dns_refresh_rate.CopyFrom(seconds(defaults.RESOLVE_USUAL))
    made.load_assignment.CopyFrom(endpoints_of(name, endpoints))
    speak(made, speaks, tls)
    return made


def budgeted(cluster: Any, budget: RetryBudget | None) -> Any:
    """The cluster, with no more retries than that."""
    if budget is not None:
        (limits,) = cluster.circuit_breakers.thresholds
        limits.retry_budget.budget_percent.value = budget.percent
        limits.retry_budget.min_retry_concurrency.CopyFrom(uint32(budget.at_least))
    return cluster


def endpoints_of(cluster: str, endpoints: Iterable[Endpoint]) -> Any:
    """What an EDS resource of a cluster says."""
    return _assignment(cluster, map(_endpoint, endpoints))


def _endpoint(endpoint: Endpoint) -> Any:
    if isinstance(endpoint, clusters.Endpoint):
        made = clusters.hop_endpoint(endpoint)
        made.metadata.filter_metadata[clusters.TRANSPORT_SOCKET_MATCH].update({_TUNNELLED: True})
        return made
    if endpoint.address is not None:
        place = socket_address(endpoint.address, endpoint.port)
    else:
        place = address_pb2.Address(
            socket_address=address_pb2.SocketAddress(address=endpoint.hostname, port_value=endpoint.port)
        )
    made = endpoint_components_pb2.LbEndpoint(
        endpoint=endpoint_components_pb2.Endpoint(address=place),
        load_balancing_weight=uint32(endpoint.weight),
    )
    if endpoint.tags:
        made.metadata.filter_metadata[names.METADATA].update(endpoint.tags)
    return made


def _way(listener: str) -> Any:
    inside = endpoint_components_pb2.Endpoint(address=internal_address(listener, ""))
    return endpoint_components_pb2.LbEndpoint(endpoint=inside, metadata=leads_to(listener))


def _cluster(name: str, kind: int, tls: backend_tls.Spoken | None, speaks: Speaks) -> Any:
    inner = clusters.plain_socket() if tls is None else tls_socket(tls, speaks)
    made = clusters.new_cluster(name, kind, {})
    made.connect_timeout.CopyFrom(seconds(defaults.CONNECT_TIMEOUT))
    made.lb_policy = cluster_pb2.Cluster.LEAST_REQUEST
    made.common_lb_config.healthy_panic_threshold.CopyFrom(percent_pb2.Percent(value=0))
    made.transport_socket_matches.add(
        name=_TUNNELLED, transport_socket=clusters.hop_socket(inner)
    ).match.update({_TUNNELLED: True})
    made.transport_socket_matches.add(name="plain", transport_socket=inner).match.update({})
    if tls is not None:
        # Envoy asks for ALPN only where every socket of the cluster can.
        made.transport_socket.CopyFrom(inner)
    clusters.keep_alive(made)
    without_limits(made)
    return made


def tls_socket(tls: backend_tls.Spoken, speaks: Speaks) -> Any:
    """Of a cluster by which servers are spoken to so."""
    return backend_tls.socket(tls, _ALPN[speaks])


def speak(made: Any, speaks: Speaks, tls: backend_tls.Spoken | None = None) -> None:
    """Says to a cluster in which protocol it speaks."""
    if speaks is Speaks.BYTES:
        return
    http1 = protocol_pb2.Http1ProtocolOptions()
    http2 = protocol_pb2.Http2ProtocolOptions(
        initial_stream_window_size=uint32(defaults.STREAM_WINDOW),
        initial_connection_window_size=uint32(defaults.CONNECTION_WINDOW),
    )
    options = _Options(
        common_http_protocol_options=protocol_pb2.HttpProtocolOptions(
            max_headers_count=uint32(defaults.HEADERS_COUNT)
        )
    )
    if speaks is Speaks.HTTP2:
        options.explicit_http_config.http2_protocol_options.CopyFrom(http2)
    elif speaks is Speaks.HTTP1:
        options.explicit_http_config.http_protocol_options.CopyFrom(http1)
    elif tls is not None:
        # The server says in its hello which version it speaks.
        options.auto_config.CopyFrom(
            _Options.AutoHttpConfig(http_protocol_options=http1, http2_protocol_options=http2)
        )
    else:
        options.use_downstream_protocol_config.CopyFrom(
            _Options.UseDownstreamHttpConfig(http_protocol_options=http1, http2_protocol_options=http2)
        )
    made.typed_extension_protocol_options[clusters.HTTP_OPTIONS].CopyFrom(pack(options))


def without_limits(made: Any) -> None:
    """Envoy's own limit of 1024 at once is for another place than between two workloads."""
    made.circuit_breakers.thresholds.add(
        max_connections=uint32(_UNLIMITED),
        max_pending_requests=uint32(_UNLIMITED),
        max_requests=uint32(_UNLIMITED),
        max_retries=uint32(_UNLIMITED),
    )


def _assignment(name: str, endpoints: Iterable[Any]) -> Any:
    locality = endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=endpoints)
    return endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=[locality])


def _told(listener: Any, subject: str, port: int = ANY_PORT) -> Any:
    """The listener, whose records say what was called; of ANY_PORT they know by themselves."""
    ported = {request_log.PORT: str(port)} if port != ANY_PORT else {}
    listener.metadata.filter_metadata[names.METADATA].update({access_log.SERVICE: subject, **ported})
    return listener


def _listener(name: str, proxy: Any) -> Any:
    """Who opened the tunnel is the client, and what was dialled the local address."""
    return listener_pb2.Listener(
        name=name,
        internal_listener=listener_pb2.Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        listener_filters=[
            listener_components_pb2.ListenerFilter(
                name="envoy.filters.listener.original_dst", typed_config=pack(original_dst_pb2.OriginalDst())
            )
        ],
        filter_chains=[listener_components_pb2.FilterChain(name=name, filters=[proxy])] if proxy else (),
    )
