"""The access log of requests: one text about each, many in one message to the agent (`ambit.agent.request_entry`).

A text has lines. The first are numbers that differ between any two requests (`NUMBERS`). The second is what requests of
the same kind have in common (`ABOUT`), so that the agent understands it once for thousands of them; what a peer can
choose comes last in it, so a tab there can pretend nothing about the fields before. The others are what the client
asked (`REQUEST`), each after a line feed, which no header can have. Where a Telemetry wants values of expressions as
labels, the first line ends with their names, and the values stand before what was asked.

What was asked is kept before any filter or route can change it (`asked_filter`).

Who asks is who opened the connection, not who `x-forwarded-for` says, which anybody writes; only where the header is
believed, as far as trusted proxies before a gateway have written it, that one is told instead (`_ALLEGED`).
"""

from collections.abc import Iterable, Sequence
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2, substitution_format_string_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2

from ambit.envoy import filter_state, http_rbac, names
from ambit.envoy.logs import access_log
from ambit.envoy.logs.access_log import HOST, POD, SEPARATOR, SERVICE
from ambit.envoy.words import pack
from ambit.model.metrics import mark
from ambit.model.telemetry import LogFormat, RequestLog

ASKED = "ambit.asked"
BAGGAGE_OF_CLIENT = "ambit.baggage"
"""Filter state: method, host and path of the request (without query) as the client wrote them; what a tunnel's client
says of itself."""
CLIENT_BAGGAGE = f"%FILTER_STATE({BAGGAGE_OF_CLIENT}:PLAIN)%"
AUTHORITY = "authority"
"""Metadata of an endpoint: its address and port, however it is reached."""
PORT = "port"
SHOWN = "shown"
"""By which rules a request was shown to somebody else (`ambit.envoy.http.authorizers`): JSON with the
rule that it matches, by place; also of places that it did not get to."""
GRPC = "envoy.filters.http.grpc_stats"

Layout = access_log.Layout
NUMBERS: Layout = {
    "now": "%EMIT_TIME(%s.%6f)%",
    "peer": filter_state.PEER_FORMAT,
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "messages": f"%FILTER_STATE({GRPC}:PLAIN)%",
}
_BY_NODE = (access_log.IDENTITY, access_log.ROUTE, access_log.WORKLOAD, access_log.POLICY)
"""What is known of an endpoint that the caller's node chose."""
_HOST: Layout = {
    POD: access_log.KNOWN_FORMAT,
    access_log.IDENTITY: "",
    AUTHORITY: "",
    access_log.BAGGAGE: access_log.UNKNOWN,
    access_log.ROUTE: "",
    access_log.WORKLOAD: "",
    access_log.POLICY: "",
}
"""Of the endpoint; without a format of its own the entry of that name."""
_RULE = f"%DYNAMIC_METADATA({http_rbac.METADATA}:{{}})%"
ABOUT: Layout = {
    SERVICE: f"%METADATA(LISTENER:{names.METADATA}:{SERVICE})%",
    PORT: f"%METADATA(LISTENER:{names.METADATA}:{PORT})%",
    "client": filter_state.CLIENT_FORMAT,
    access_log.IDENTITY: filter_state.CALLER_FORMAT,
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "reason": "%RESPONSE_FLAGS_LONG%",
    "grpc": "%GRPC_STATUS_NUMBER%",
    "route": "%ROUTE_NAME%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    **{HOST + key: given or f"%UPSTREAM_METADATA({names.METADATA}:{key})%" for key, given in _HOST.items()},
    "upstream": "%UPSTREAM_REMOTE_ADDRESS%",
    access_log.POLICY: _RULE.format(http_rbac.ENFORCED_RULE),
    access_log.DRY_RUN: _RULE.format(http_rbac.SHADOW_RULE),
    access_log.DRY_RUN_RESULT: _RULE.format(http_rbac.SHADOW_RESULT),
    SHOWN: "%FILTER_STATE(envoy.extensions.filters.http.composite.matched_actions:PLAIN)%",
    "details": "%RESPONSE_CODE_DETAILS%",
    access_log.BAGGAGE: CLIENT_BAGGAGE,
}
REQUEST: Layout = {
    "asked": f"%FILTER_STATE({ASKED}:PLAIN)%",
    "trace": "%REQ(TRACEPARENT)%",
    "b3": "%REQ(X-B3-TRACEID)%",
    "id": "%REQ(X-REQUEST-ID)%",
    "tunnel": filter_state.TRACE,
}
LINE = "\n"
_ALLEGED = {
    filter_state.PEER_FORMAT: "%DOWNSTREAM_REMOTE_ADDRESS%",
    filter_state.CLIENT_FORMAT: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
}
"""What is told of who opened the connection, and of whom its requests' headers name."""
MARKS = ","
"""Between the names of expressions (`ambit.model.metrics.mark`)."""
LONGEST_VALUE = 128
"""Characters of the value of an expression: it is a label, and can be what a client says."""
USUAL_MEMBERS = {
    "start_time": "%START_TIME%",
    "route_name": "%ROUTE_NAME%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "response_flags": "%RESPONSE_FLAGS%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": filter_state.PEER_FORMAT,
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
"""Of a line as Istio's proxies print it (istiod: `telemetry_logging.go`), so that its readers understand ours."""
USUAL_TEXT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "
    '"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% '
    '%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" '
    '"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% '
    f"%DOWNSTREAM_LOCAL_ADDRESS% {filter_state.PEER_FORMAT} %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
)


def every(values: Sequence[str] = (), *, is_believed: bool = False) -> Any:
    """Every request of an L7 proxy, when it has ended, with the values of these expressions; `is_believed` what its
    headers say of who asks. The same for all listeners that want the same: Envoy keeps a buffer for each distinct
    log."""
    return _log(_BY_NODE, values, is_believed=is_believed)


def of_node(values: Sequence[str] = ()) -> Any:
    """As `every`, where a node reads requests."""
    return _log([POD], values, is_believed=False)


def _log(without: Iterable[str], values: Sequence[str], *, is_believed: bool) -> Any:
    """What an endpoint never has is not looked for."""
    numbers = [*NUMBERS.values()]
    if values:
        numbers.append(MARKS.join(map(mark, values)))
    about = {**ABOUT, **{HOST + key: access_log.UNKNOWN for key in without}}
    lines = (
        SEPARATOR.join(numbers),
        SEPARATOR.join(about.values()),
        *(f"%CEL({each}):{LONGEST_VALUE}%" for each in values),
        *REQUEST.values(),
    )
    return access_log.to_agent(names.LOG_REQUESTS, _seen(LINE.join(lines), is_believed=is_believed))


def _seen(text: str, *, is_believed: bool) -> str:
    for seen, alleged in _ALLEGED.items() if is_believed else ():
        text = text.replace(seen, alleged)
    return text


def usual_text(*, is_believed: bool) -> str:
    """A line as Istio's proxies print it."""
    return _seen(USUAL_TEXT, is_believed=is_believed)


def printed(log: RequestLog, *, is_believed: bool = False) -> Any:
    """Lines on the proxy's standard output. `is_believed`: as in `every`; a format of one's own is as it is."""
    made = accesslog_pb2.AccessLog(
        name="envoy.access_loggers.stdout",
        typed_config=pack(
            stream_pb2.StdoutAccessLog(log_format=_format(log.printer.format, is_believed=is_believed))
        ),
    )
    if log.filter:
        made.filter.extension_filter.CopyFrom(access_log.cel(log.filter))
    return made


def _format(wanted: LogFormat, *, is_believed: bool) -> Any:
    if wanted.is_json:
        made = substitution_format_string_pb2.SubstitutionFormatString()
        usual = {key: _seen(each, is_believed=is_believed) for key, each in USUAL_MEMBERS.items()}
        made.json_format.update(dict(wanted.members) or usual)
        return made
    line = wanted.text if wanted.text.endswith("\n") else f"{wanted.text}\n"
    return substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=base_pb2.DataSource(
            inline_string=line if wanted.text else usual_text(is_believed=is_believed)
        )
    )


def asked_filter(*more: Any) -> Any:
    """Keeps what the client asked, and `more`; before all filters of requests."""
    asked = filter_state.text(ASKED, "%REQ(:METHOD)% %REQ(:AUTHORITY)% %PATH(NQ)%")
    return filter_state.http_filter(asked, *more)


def client_baggage() -> Any:
    """Inside of this tunnel it is known what its client says of itself."""
    return filter_state.text(BAGGAGE_OF_CLIENT, "%REQ(BAGGAGE)%", is_shared=True)
