"""The access log of connections in which an L7 proxy reads no requests: one text about each, many in one message to the
agent (`ambit.agent.stream_entry`). The first line are numbers that differ between any two (`NUMBERS`), the second what
connections of the same kind have in common (`ABOUT`); what a peer can choose comes last in it.

Texts come at the end of a connection and every `LOG_PERIOD` seconds with running totals.
"""

from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2

from ambit.envoy import filter_state, http_rbac, names, network_rbac
from ambit.envoy.logs import access_log, request_log
from ambit.envoy.logs.access_log import (
    BAGGAGE,
    DRY_RUN,
    DRY_RUN_RESULT,
    HOST,
    IDENTITY,
    POD,
    POLICY,
    SEPARATOR,
    SERVICE,
)
from ambit.envoy.logs.request_log import AUTHORITY, LINE, PORT

_RULED = "ambit.ruled"
DENIED = "denied"
"""Filter chain of connections that a policy denies; behind `|` follows the rule."""
KIND = "stream"
"""Begins these texts."""
OWN = "server_"
"""Before keys of what a cluster itself knows of its only server."""
Layout = access_log.Layout

NUMBERS: Layout = {
    "now": "%EMIT_TIME(%s.%6f)%",
    "client_port": "%DOWNSTREAM_REMOTE_PORT%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}
_HOST: Layout = {
    POD: access_log.KNOWN_FORMAT,
    IDENTITY: access_log.UNKNOWN,
    AUTHORITY: f"%UPSTREAM_METADATA({names.METADATA}:{AUTHORITY})%",
    BAGGAGE: access_log.UNKNOWN,
}
_RULES = (http_rbac.ENFORCED_RULE, http_rbac.SHADOW_RULE, http_rbac.SHADOW_RESULT)
_TRIED = {
    POLICY: f"{network_rbac.DECIDED}{http_rbac.SHADOW_RULE}",
    DRY_RUN: f"{network_rbac.TRIED}{http_rbac.SHADOW_RULE}",
    DRY_RUN_RESULT: f"{network_rbac.TRIED}{http_rbac.SHADOW_RESULT}",
}
ABOUT: Layout = {
    "type": "%ACCESS_LOG_TYPE%",
    SERVICE: f"%METADATA(LISTENER:{names.METADATA}:{SERVICE})%",
    PORT: f"%METADATA(LISTENER:{names.METADATA}:{PORT})%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    IDENTITY: filter_state.CALLER_FORMAT,
    "chain": "%FILTER_CHAIN_NAME%",
    "flags": "%RESPONSE_FLAGS_LONG%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    **{HOST + key: given for key, given in _HOST.items()},
    "upstream": "%UPSTREAM_REMOTE_ADDRESS%",
    **{OWN + key: f"%CLUSTER_METADATA({names.METADATA}:{OWN}{key})%" for key in (POD, IDENTITY)},
    **{key: f"%DYNAMIC_METADATA({network_rbac.METADATA}:{name})%" for key, name in _TRIED.items()},
    "ruled": f"%FILTER_STATE({_RULED}:PLAIN)%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "dialled": "%DOWNSTREAM_LOCAL_ADDRESS%",
    BAGGAGE: request_log.CLIENT_BAGGAGE,
}
_DENIED: Layout = {
    "type": ABOUT["type"],
    "client": ABOUT["client"],
    IDENTITY: "%DOWNSTREAM_PEER_URI_SAN%",
    "chain": DENIED,
    "cluster": "%ROUTE_NAME%",
    POLICY: f"%DYNAMIC_METADATA({http_rbac.METADATA}:{http_rbac.ENFORCED_RULE})%",
    "dialled": "%REQ(:AUTHORITY)%",
    BAGGAGE: "%REQ(BAGGAGE)%",
}
"""Of a tunnel that was denied, before any listener got it."""
_FORBIDDEN = 403


def every() -> Any:
    """Every connection. The same for all listeners: Envoy keeps a buffer for each distinct log."""
    return _log(NUMBERS, ABOUT)


def denied() -> Any:
    """Every tunnel that a waypoint's policies deny."""
    log = _log(NUMBERS, {key: _DENIED.get(key, access_log.UNKNOWN) for key in ABOUT})
    value = base_pb2.RuntimeUInt32(default_value=_FORBIDDEN, runtime_key="ambit.denied")
    comparison = accesslog_pb2.ComparisonFilter(op=accesslog_pb2.ComparisonFilter.EQ, value=value)
    log.filter.status_code_filter.comparison.CopyFrom(comparison)
    return log


def ruled() -> Any:
    """Inside of this tunnel it is known which rule let it in, and what the dry run said."""
    said = " ".join(f"%DYNAMIC_METADATA({http_rbac.METADATA}:{name})%" for name in _RULES)
    return filter_state.text(_RULED, said, is_shared=True)


def _log(numbers: Layout, about: Layout) -> Any:
    body = LINE.join((SEPARATOR.join((KIND, *numbers.values())), SEPARATOR.join(about.values())))
    return access_log.to_agent(names.LOG_STREAMS, body)
