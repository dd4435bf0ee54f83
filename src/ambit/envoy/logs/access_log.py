"""Access logs: one line of text about each connection, many in one message to the agent.

A line is its fields, joined by tabs, `-` for what is not known. First those that differ between any two
connections (`NUMBERS`), then those that connections of the same kind have in common (`TCP`, `TUNNEL`, `HBONE`), so
that the agent reads the second part once for thousands of lines (`ambit.node.flows.entry`). What a peer can choose
comes last: a tab in it can pretend nothing about the fields before. Of tunnels two headers of the request follow
(`REQUEST`), each after a line feed, which no header can have. The time in Envoy's record is the beginning.

Fields from metadata (`ambit.envoy.names.METADATA`): `pod` is the key of the pod whose listener this is; the others
come from the chosen cluster, and with `host_` before their name from the endpoint: `reason`, `policy` (why it was
refused), `service`, `workload`, `identity` of the destination, `route` (how it goes there), `target` (address and
port of the endpoint). Lines come at the end of a connection and every `LOG_PERIOD` seconds with running totals.

All listeners share one log per layout, whose configuration names no pod: Envoy keeps a buffer and sends messages of
its own for each distinct one.
"""

from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.data.accesslog.v3 import accesslog_pb2 as data_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2

from ambit.envoy import defaults, http_rbac, names
from ambit.envoy.words import pack, pack_untyped

POD = "pod"
REASON = "reason"
POLICY = "policy"
SERVICE = "service"
WORKLOAD = "workload"
IDENTITY = "identity"
ROUTE = "route"
TARGET = "target"
"""Keys of METADATA."""

KNOWN = "known"
"""Key of METADATA: what an L7 proxy knows of an endpoint (`known`)."""
KNOWN_FORMAT = f"%UPSTREAM_METADATA({names.METADATA}:{KNOWN})%"
DRY_RUN, DRY_RUN_RESULT = "dry_run", "dry_run_result"
BAGGAGE = "baggage"
CLOSED = "closed"
RESET = "RemoteReset"
"""How the destination's side ended a tunnel, and the value that means: before all bytes were through."""
HOST = "host_"
UNKNOWN = "-"
SEPARATOR = "\t"
KNOWN_SEPARATOR = "|"
Layout = dict[str, str]

NUMBERS: Layout = {
    "now": "%EMIT_TIME(%s.%6f)%",
    "port": "%DOWNSTREAM_REMOTE_PORT%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}
_POD = f"%METADATA(LISTENER:{names.METADATA}:{POD})%"
_FAILURES = {
    "downstream_failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
_ABOUT = {
    "pod": _POD,
    "type": "%ACCESS_LOG_TYPE%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "flags": "%RESPONSE_FLAGS_LONG%",
}
_DESTINATION = {"destination": "%DOWNSTREAM_LOCAL_ADDRESS%"}
_HOST_KEYS = (WORKLOAD, IDENTITY, ROUTE, TARGET, REASON, POLICY)

TCP: Layout = {
    **_ABOUT,
    **_DESTINATION,
    # Formats, not tags of kind metadata: those are empty when the cluster had no endpoint to choose.
    **{
        key: f"%CLUSTER_METADATA({names.METADATA}:{key})%"
        for key in (REASON, POLICY, SERVICE, WORKLOAD, IDENTITY, ROUTE)
    },
    **{HOST + key: f"%UPSTREAM_METADATA({names.METADATA}:{key})%" for key in _HOST_KEYS},
    **_FAILURES,
}
"""Of a pod's tcp_proxy, both ways."""
TUNNEL: Layout = {
    **_ABOUT,
    **_DESTINATION,
    **{HOST + key: f"%DYNAMIC_METADATA({names.METADATA}:{key})%" for key in _HOST_KEYS},
    CLOSED: "%UPSTREAM_DETECTED_CLOSE_TYPE%",
    **_FAILURES,
}
"""Of the listeners that all pods share; joined with a pod's line by the client's address and port."""
HBONE: Layout = {
    **_ABOUT,
    "port": "%DOWNSTREAM_DIRECT_REMOTE_PORT%",
    "client": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "status": "%RESPONSE_CODE%",
    POLICY: f"%DYNAMIC_METADATA({http_rbac.METADATA}:{http_rbac.ENFORCED_RULE})%",
    DRY_RUN: f"%DYNAMIC_METADATA({http_rbac.METADATA}:{http_rbac.SHADOW_RULE})%",
    DRY_RUN_RESULT: f"%DYNAMIC_METADATA({http_rbac.METADATA}:{http_rbac.SHADOW_RESULT})%",
    IDENTITY: "%DOWNSTREAM_PEER_URI_SAN%",
    **_FAILURES,
    "authority": "%REQ(:AUTHORITY)%",
    BAGGAGE: "%REQ(BAGGAGE)%",
}
"""Of a tunnel's server: `authority` is the destination, `policy` what RBAC decided by. The client is who opened the
TCP connection, whatever headers say."""
REQUEST = ("%REQ(TRACEPARENT)%", "%REQ(FORWARDED)%")
"""What differs between any two tunnels."""
REQUEST_SEPARATOR = "\n"
LAYOUTS = {
    names.LOG_OUTBOUND: TCP,
    names.LOG_PLAINTEXT: TCP,
    names.LOG_TUNNEL: TUNNEL,
    names.LOG_INBOUND: HBONE,
}


def known(pod: str, identity: str, baggage: str) -> str:
    """One text for all of it: each entry of metadata costs Envoy memory for every endpoint, each field of a format for
    every listener. Names and identities have no such separator, and in baggage it is quoted."""
    return KNOWN_SEPARATOR.join((pod, identity, baggage))


def every(kind: str) -> Any:
    """Every connection of a pod's listener of this kind (`ambit.envoy.names.LOG_*`)."""
    return _log(kind)


def failures(kind: str) -> Any:
    """Only connections that failed, of a listener that all pods share."""
    log = _log(kind)
    log.filter.response_flag_filter.SetInParent()
    return log


def large(kind: str) -> Any:
    """At once, every connection that carried enough to be cut short (`CLOSED`): the agent has to reset the client
    before it has read what is left (docs/limits.md). No filter knows how a tunnel ended, and one message for each costs
    the agent ten times as much as a line among others."""
    log = _log(kind, buffer_size=0)
    both = log.filter.and_filter.filters
    both.add().log_type_filter.types.append(data_pb2.TcpConnectionEnd)
    both.add().extension_filter.CopyFrom(_sent(">="))
    return log


def tunnels(kind: str) -> tuple[Any, Any]:
    """As `failures`; and as `large`."""
    failed = _log(kind)
    small = failed.filter.and_filter.filters
    small.add().response_flag_filter.SetInParent()
    small.add().extension_filter.CopyFrom(_sent("<"))
    return failed, large(kind)


def _sent(comparison: str) -> Any:
    """Bytes to the client, compared with those from which on a tunnel can be cut short."""
    return cel(f"response.size {comparison} {defaults.TUNNEL_LOG_FROM}")


def cel(expression: str) -> Any:
    """Only what this is true of."""
    return accesslog_pb2.ExtensionFilter(
        name="envoy.access_loggers.extension_filters.cel",
        typed_config=pack(cel_pb2.ExpressionFilter(expression=expression)),
    )


def _log(kind: str, buffer_size: int = defaults.LOG_BUFFER) -> Any:
    layout = LAYOUTS[kind]
    numbers = {key: layout.get(key, template) for key, template in NUMBERS.items()}
    about = (template for key, template in layout.items() if key not in NUMBERS)
    body = SEPARATOR.join((*numbers.values(), kind, *about))
    if kind == names.LOG_INBOUND:
        body = REQUEST_SEPARATOR.join((body, *REQUEST))
    return to_agent(kind, body, buffer_size)


def to_agent(
    kind: str, body: str, buffer_size: int = defaults.LOG_BUFFER, *, path: str = names.LOGS_PATH
) -> Any:
    """A log whose texts, in this format, are posted to the agent."""
    # xds-protos 1.85 has only the deprecated `common_config`, which Envoy 1.40 warns about.
    config = pack_untyped(
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
        {
            "log_name": kind,
            "http_service": {
                "http_uri": {
                    "uri": f"http://agent{path}",
                    "cluster": names.LOGS_CLUSTER,
                    "timeout": f"{defaults.LOG_TIMEOUT}s",
                }
            },
            "buffer_flush_interval": f"{defaults.LOG_FLUSH_INTERVAL}s",
            "buffer_size_bytes": buffer_size,
            "disable_builtin_labels": True,
            "body": {"string_value": body},
        },
    )
    return accesslog_pb2.AccessLog(name="envoy.access_loggers.open_telemetry", typed_config=config)
