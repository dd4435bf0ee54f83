"""Envoy's access-log entries as values. Pure; what `ambit.envoy.access_log` writes is read here.

"Received" is client to server and "sent" server to client, for both reporters, as Istio's metrics have it.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2

from ambit.envoy.access_log import CLOSED, RESET
from ambit.envoy.http_rbac import ENFORCED_RULE
from ambit.plan.destinations import DIRECT, REFUSED, SAME_NODE, TUNNEL

_RBAC = "envoy.filters.http.rbac"
_NO_POLICY = "default"
"""RBAC's rule name when no policy decided."""
_END = frozenset({accesslog_pb2.TcpConnectionEnd, accesslog_pb2.DownstreamEnd, accesslog_pb2.NotSet})
_UNAUTHORIZED, _OK = 401, 200
__all__ = ["DIRECT", "REFUSED", "SAME_NODE", "TUNNEL", "Entry", "decode", "log_name"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One report about one connection; `ended` false means it goes on and the counts are so far.

    `kind` is the listener's (`ambit.envoy.names.LOG_*`), `pod` the key of the pod whose listener it is (empty for
    `tunnel`), `client` and `destination` are `address:port`. `identity`: for inbound the peer's verified one,
    for outbound the destination's pinned one.
    """

    kind: str
    pod: str
    client: str
    destination: str
    started: float
    seconds: float
    ended: bool
    received: int
    sent: int
    route: str = ""
    target: str = ""
    workload: str = ""
    service: str = ""
    identity: str = ""
    denied: bool = False
    policy: str = ""
    failure: str = ""
    cut_short: bool = False
    """A tunnel whose other side reset it: the client must not take what it got for the whole."""

    @property
    def key(self) -> tuple[str, str, str, float]:
        """The same for every report about one connection."""
        return self.kind, self.pod, self.client, self.started


def log_name(message: bytes) -> str:
    """The stream's log name, which only its first message carries; empty for others."""
    name: str = als_pb2.StreamAccessLogsMessage.FromString(message).identifier.log_name
    return name


def decode(kind: str, message: bytes) -> Iterator[Entry]:
    """The entries of one message of the stream with this log name."""
    parsed = als_pb2.StreamAccessLogsMessage.FromString(message)
    for entry in parsed.tcp_logs.log_entry:
        yield _tcp(kind, entry)
    for entry in parsed.http_logs.log_entry:
        yield _http(kind, entry)


def _tcp(kind: str, entry: Any) -> Entry:
    common = entry.common_properties
    tags = common.custom_tags
    route = tags.get("host.route") or tags.get("route", "")
    reason = tags.get("host.reason") or tags.get("reason", "")
    policy = tags.get("host.policy") or tags.get("policy", "")
    refused = route == REFUSED
    return Entry(
        kind=kind,
        pod=tags.get("pod", ""),
        client=_address(common.downstream_remote_address),
        destination=_address(common.downstream_local_address),
        started=_time(common.start_time),
        seconds=_duration(common.duration),
        ended=common.access_log_type in _END,
        received=entry.connection_properties.received_bytes,
        sent=entry.connection_properties.sent_bytes,
        route=route,
        target=tags.get("host.target") or tags.get("target", ""),
        workload=tags.get("host.workload") or tags.get("workload", ""),
        service=tags.get("service", ""),
        identity=tags.get("host.identity") or tags.get("identity", ""),
        denied=(refused and bool(policy)) or common.upstream_transport_failure_reason.endswith(":401"),
        policy=policy,
        failure=reason if refused else _failure(common),
        cut_short=tags.get(CLOSED, "") == RESET,
    )


def _http(kind: str, entry: Any) -> Entry:
    common = entry.common_properties
    status = entry.response.response_code.value
    rbac = common.metadata.filter_metadata
    fields = rbac[_RBAC].fields if _RBAC in rbac else {}
    policy = fields[ENFORCED_RULE].string_value if ENFORCED_RULE in fields else ""
    peers = common.tls_properties.peer_certificate_properties.subject_alt_name
    accepted = status == _OK
    return Entry(
        kind=kind,
        pod=common.custom_tags.get("pod", ""),
        client=_address(common.downstream_direct_remote_address),
        destination=entry.request.authority,
        started=_time(common.start_time),
        seconds=_duration(common.duration),
        ended=common.access_log_type in _END,
        received=entry.request.request_body_bytes if accepted else 0,
        sent=entry.response.response_body_bytes if accepted else 0,
        route=TUNNEL,
        identity=next((each.uri for each in peers if each.uri), ""),
        denied=status == _UNAUTHORIZED,
        policy="" if policy == _NO_POLICY else policy,
        failure="" if accepted else _failure(common) or f"answered {status}",
    )


def _failure(common: Any) -> str:
    """Envoy's own words for what went wrong, empty when nothing did."""
    if common.upstream_transport_failure_reason:
        return str(common.upstream_transport_failure_reason)
    if common.downstream_transport_failure_reason:
        return str(common.downstream_transport_failure_reason)
    flags = [field.name for field, value in common.response_flags.ListFields() if value]
    return ", ".join(flag.replace("_", " ") for flag in flags)


def _address(address: Any) -> str:
    found = address.socket_address
    if not found.address:
        return ""
    return (
        f"[{found.address}]:{found.port_value}"
        if ":" in found.address
        else f"{found.address}:{found.port_value}"
    )


def _time(stamp: Any) -> float:
    return float(stamp.seconds + stamp.nanos / 1e9)


def _duration(span: Any) -> float:
    return float(span.seconds + span.nanos / 1e9)
