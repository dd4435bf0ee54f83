"""The filter that moves bytes: to a fixed cluster, to one asked for on demand, or into a tunnel."""

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from ambit.envoy import defaults, names
from ambit.envoy.words import from_ads, pack, seconds, uint32

CHOSEN_ENDPOINT = "%UPSTREAM_HOST_NAMES_ATTEMPTED%"
"""Host name of the endpoint that was chosen: when the tunnel's request is made, only the list of attempts has it
(there is one), other formats about the endpoint are still empty."""

BAGGAGE, HOST, NETWORK = "baggage", "forwarded_host", "network"
"""Keys of METADATA: the value of `baggage`, the end of `forwarded` (`;host=NAME` or nothing), the client's network."""

_SPAN = "0000001"
"""The rest of a span's id, which must not be zero."""


def fixed(cluster: str, *logs: Any) -> Any:
    """To `cluster`."""
    return _filter(proxy(cluster, *logs))


def told(cluster: str, tlvs: Iterable[Any]) -> Any:
    """To `cluster`, which says these (`TlvEntry`) if it speaks the PROXY protocol. No log: the tunnel has one."""
    made = proxy(cluster)
    made.proxy_protocol_tlvs.extend(tlvs)
    return _filter(made)


def on_demand(log: Any, attempts: int = 1) -> Any:
    """To the cluster that the connection's filter state names; refused if it names none. So many of its endpoints
    are tried."""
    made = proxy(names.REFUSED, log)
    if attempts > 1:
        made.max_connect_attempts.CopyFrom(uint32(attempts))
    made.on_demand.CopyFrom(_on_demand())
    return _filter(made)


def on_demand_tunnel(
    logs: Iterable[Any], *, authority: str, metadata: str, trace: str, network: str = ""
) -> Any:
    """As `on_demand`, in an HTTP/2 CONNECT stream for `authority`, with 32 digits of `trace` (access-log formats).
    `metadata` is the format's word for where BAGGAGE and HOST are. `network` (a format) is told as the client's."""
    made = proxy(names.REFUSED, *logs)
    made.on_demand.CopyFrom(_on_demand())
    made.tunneling_config.hostname = authority
    made.tunneling_config.headers_to_add.extend(_request_headers(metadata, trace, network))
    return _filter(made)


def tunnel(*, authority: str) -> Any:
    """To the cluster that the connection's filter state names, in an HTTP/2 CONNECT stream for `authority` (an
    access-log format); refused if it names none."""
    made = proxy(names.REFUSED)
    made.tunneling_config.hostname = authority
    return _filter(made)


def tunnel_to(cluster: str, *logs: Any, authority: str) -> Any:
    """To `cluster`, in an HTTP/2 CONNECT stream for `authority` (an access-log format)."""
    made = proxy(cluster, *logs)
    made.tunneling_config.hostname = authority
    return _filter(made)


def trace(pod: str) -> str:
    """A connection's trace: Envoy has no format for random digits, and they only have to differ."""
    return f"{names.trace_prefix(pod)}%START_TIME(%s%9f)%"


def _request_headers(metadata: str, trace: str, network: str) -> Iterable[Any]:
    """Those of ztunnel (`outbound.rs`)."""
    baggage, host = (f"%{metadata}({names.METADATA}:{key})%" for key in (BAGGAGE, HOST))
    headers = {
        "forwarded": f'for="%DOWNSTREAM_REMOTE_ADDRESS%"{host}',
        "baggage": baggage,
        "traceparent": f"00-{trace}-%START_TIME(%9f)%{_SPAN}-00",
    }
    if network:
        headers["x-forwarded-network"] = network
    for key, value in headers.items():
        yield base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=key, value=value))


def _on_demand() -> Any:
    return tcp_proxy_pb2.TcpProxy.OnDemand(
        odcds_config=from_ads(), timeout=seconds(defaults.ON_DEMAND_TIMEOUT)
    )


def proxy(cluster: str, *logs: Any) -> Any:
    """The filter's configuration alone."""
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
