"""The filter that moves bytes: to a fixed cluster, to one asked for on demand, or into a tunnel."""

from collections.abc import Iterable
from typing import Any

from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from ambit.envoy import defaults, names
from ambit.envoy.words import from_ads, pack, seconds, uint32

CHOSEN_ENDPOINT = "%UPSTREAM_HOST_NAMES_ATTEMPTED%"
"""Host name of the endpoint that was chosen: when the tunnel's request is made, only the list of attempts has it
(there is one), other formats about the endpoint are still empty."""


def fixed(cluster: str, log: Any) -> Any:
    """To `cluster`."""
    return _filter(_proxy(cluster, log))


def on_demand(log: Any) -> Any:
    """To the cluster that the connection's filter state names; refused if it names none."""
    proxy = _proxy(names.REFUSED, log)
    proxy.on_demand.CopyFrom(_on_demand())
    return _filter(proxy)


def on_demand_tunnel(logs: Iterable[Any], *, authority: str) -> Any:
    """As `on_demand`, in an HTTP/2 CONNECT stream for `authority` (an access-log format)."""
    proxy = _proxy(names.REFUSED, *logs)
    proxy.on_demand.CopyFrom(_on_demand())
    proxy.tunneling_config.hostname = authority
    return _filter(proxy)


def _on_demand() -> Any:
    return tcp_proxy_pb2.TcpProxy.OnDemand(
        odcds_config=from_ads(), timeout=seconds(defaults.ON_DEMAND_TIMEOUT)
    )


def _proxy(cluster: str, *logs: Any) -> Any:
    return tcp_proxy_pb2.TcpProxy(
        stat_prefix="tcp",
        cluster=cluster,
        idle_timeout=seconds(0),
        max_early_data_bytes=uint32(defaults.EARLY_DATA),
        access_log=logs,
        access_log_options=tcp_proxy_pb2.TcpProxy.TcpAccessLogOptions(
            access_log_flush_interval=seconds(defaults.LOG_PERIOD)
        ),
    )


def _filter(proxy: Any) -> Any:
    return listener_components_pb2.Filter(name="envoy.filters.network.tcp_proxy", typed_config=pack(proxy))
