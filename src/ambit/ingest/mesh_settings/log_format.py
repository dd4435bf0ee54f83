"""What MeshConfig says of access logs: whether proxies print, and how their lines look.

Envoy refuses a whole listener for a format that it cannot read, so none gets there with an operator that is not known
here (Envoy, "Access logging: command operators").
"""

import re

import msgspec

from ambit.core.errors import BadInput
from ambit.model.telemetry import LogFormat, MeshLogs, Printer

STDOUT = "/dev/stdout"
_OPERATOR = re.compile(r"%([A-Z0-9_]+)(\([^()]*\))?(:[0-9]{1,9})?%|%%|%")
"""An operator, two signs that stand for one, or one that is neither."""
_PLAIN = frozenset(
    {
        *(
            "START_TIME",
            "PROTOCOL",
            "UPSTREAM_PROTOCOL",
            "HOSTNAME",
            "ROUTE_NAME",
            "CONNECTION_ID",
            "STREAM_ID",
        ),
        *("RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG", "GRPC_STATUS"),
        *("GRPC_STATUS_NUMBER", "CONNECTION_TERMINATION_DETAILS", "REQUESTED_SERVER_NAME", "ACCESS_LOG_TYPE"),
        *("DURATION", "REQUEST_DURATION", "RESPONSE_DURATION", "RESPONSE_TX_DURATION", "TRACE_ID"),
        *("BYTES_RECEIVED", "BYTES_SENT", "REQUEST_HEADERS_BYTES", "RESPONSE_HEADERS_BYTES"),
        *("UPSTREAM_HOST", "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW", "UPSTREAM_REQUEST_ATTEMPT_COUNT"),
        *("UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_TRANSPORT_FAILURE_REASON"),
        *("DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT"),
        *("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_PORT"),
        *("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_TRANSPORT_FAILURE_REASON"),
        *(
            "DOWNSTREAM_PEER_URI_SAN",
            "DOWNSTREAM_LOCAL_URI_SAN",
            "UPSTREAM_PEER_URI_SAN",
            "UPSTREAM_LOCAL_URI_SAN",
        ),
    }
)
_HEADER = r"\(:?[A-Za-z0-9_-]+(\?:?[A-Za-z0-9_-]+)?\)"
_WITH_VALUES = {
    "REQ": _HEADER,
    "RESP": _HEADER,
    "TRAILER": _HEADER,
    "DYNAMIC_METADATA": r"\([A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)*\)",
    "FILTER_STATE": r"\([A-Za-z0-9_.-]+(:PLAIN|:TYPED)?\)",
}
_SHORTENED = frozenset(_WITH_VALUES)
"""Those that take a length."""


def mesh_logs(file: str, form: str, *, is_json: bool, name: str) -> MeshLogs:
    """What L7 proxies print when no Telemetry object says anything (`accessLogFile` is set), and how, by `form` and
    encoding. Raises BadInput, which names the field of the file `name`."""
    if file not in ("", STDOUT):
        raise BadInput(
            f"{name}: accessLogFile: {file!r} is no place that proxies can write to",
            f"write {STDOUT}; proxies have no files of their own",
        )
    members = _members(form, name) if is_json and form else ()
    for text in (text for _, text in members) if is_json else (form,):
        _check(text, name)
    line = "" if is_json else form
    printer = Printer(format=LogFormat(line, members, is_json))
    return MeshLogs((printer,), (printer.name,) if file else ())


def _members(text: str, name: str) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(msgspec.json.decode(text, type=dict[str, str]).items())
    except msgspec.MsgspecError as problem:
        raise BadInput(
            f"{name}: accessLogFormat is no JSON object of texts: {problem}",
            "accessLogEncoding is JSON; a format of one line of text belongs to TEXT.",
        ) from problem


def unknown_operator(text: str) -> str:
    """The first operator of a format that Envoy may not know; empty when there is none."""
    for found in _OPERATOR.finditer(text):
        if found[0] != "%%" and not (found[1] and _is_known(*found.groups(default=""))):
            return found[0]
    return ""


def _check(text: str, name: str) -> None:
    """Raises BadInput."""
    if operator := unknown_operator(text):
        raise BadInput(
            f"{name}: accessLogFormat: {operator!r} is no operator of Envoy's that is known",
            "write %% for the sign itself",
        )


def _is_known(operator: str, values: str, length: str) -> bool:
    if length and operator not in _SHORTENED:
        return False
    if operator == "START_TIME" and values:
        return True
    pattern = _WITH_VALUES.get(operator)
    return operator in _PLAIN and not values if pattern is None else bool(re.fullmatch(pattern, values))
