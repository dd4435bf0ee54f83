"""Bytes that nobody reads: filter chains by the name in a client's hello, and shares of backends.

What a chain does with a connection comes by ECDS, so that other weights or backends cut no connection; only a chain
whose host names are gone ends with its listener's drain.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from envoy.config.core.v3 import config_source_pb2, extension_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from ambit.envoy import names, network_rbac, tcp_proxy
from ambit.envoy.logs import stream_log
from ambit.envoy.words import from_ads, pack
from ambit.model.http import Backend
from ambit.model.streams import Stream

_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_Weighted = tcp_proxy_pb2.TcpProxy.WeightedCluster


def extensions(listener: str, streams: Iterable[Stream]) -> Iterator[Any]:
    """What the chains of `filter_chains` do, by ECDS (TypedExtensionConfig)."""
    for stream, _ in _counting(streams):
        name = names.stream(listener, stream.name)
        yield extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(_proxy(stream.backends)))


def filter_chains(listener: str, streams: Iterable[Stream], judged: Iterable[str] = ()) -> list[Any]:
    """The chains of `listener`. A connection that none of the streams takes is closed. `judged`: the extensions that
    tell what policies say of connections."""
    before = [network_rbac.filter_of(each) for each in judged]
    return [
        listener_components_pb2.FilterChain(
            name=names.stream(listener, stream.name),
            filter_chain_match=listener_components_pb2.FilterChainMatch(server_names=hostnames),
            filters=[*before, _from_ecds(names.stream(listener, stream.name))],
        )
        for stream, hostnames in _counting(streams)
    ]


def inspectors(streams: Iterable[Stream]) -> list[Any]:
    """The listener filters that they need."""
    if not any(each.hostnames for each in streams):
        return []
    return [
        listener_components_pb2.ListenerFilter(
            name="envoy.filters.listener.tls_inspector", typed_config=pack(tls_inspector_pb2.TlsInspector())
        )
    ]


def _counting(streams: Iterable[Stream]) -> Iterator[tuple[Stream, list[str]]]:
    """Each stream with the host names that no stream before it has; without those that are left with none."""
    taken: set[str] = set()
    for stream in streams:
        hostnames = [each for each in stream.hostnames or ("",) if each not in taken]
        taken.update(hostnames)
        if hostnames:
            yield stream, [each for each in hostnames if each]


def _proxy(backends: Iterable[Backend]) -> Any:
    weighted = [each for each in backends if each.weight]
    if not weighted:
        return tcp_proxy.proxy(names.REFUSED, stream_log.every())
    made = tcp_proxy.proxy("", stream_log.every())
    made.weighted_clusters.CopyFrom(
        _Weighted(
            clusters=[_Weighted.ClusterWeight(name=_cluster(each), weight=each.weight) for each in weighted]
        )
    )
    return made


def _cluster(backend: Backend) -> str:
    return names.service_cluster(backend.service, backend.port) if backend.service else names.REFUSED


def _from_ecds(name: str) -> Any:
    source = config_source_pb2.ExtensionConfigSource(config_source=from_ads(), type_urls=[_PROXY])
    return listener_components_pb2.Filter(name=name, config_discovery=source)
