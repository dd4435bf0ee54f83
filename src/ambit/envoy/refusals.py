"""Why a proxy of the mesh answered in place of a server: the header `x-ambit-reason` of its answer.

Fixed words and the names of Envoy's response flags, which tell callers neither the names of policies nor addresses;
those are in the proxy's record of the request. A server's own answers have no such header, whatever their status.
Gateways at the edge add none and take that of waypoints away: whoever asks from outside is told nothing of the mesh.
"""

from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

HEADER = "x-ambit-reason"
DENIED, UNAUTHENTICATED, RULE = "denied", "unauthenticated", "rule"
_BY_WHO_WAS_ASKED = "UAEX"
_EQUAL, _AT_LEAST = accesslog_pb2.ComparisonFilter.EQ, accesslog_pb2.ComparisonFilter.GE


def reasons() -> Any:
    """The LocalReplyConfig that adds the header. The first filter that fits counts: of who was asked for a policy,
    whatever his status, of policies and tokens, of what Envoy has a flag for (no flag is named: any), and of what a
    rule answers by itself."""
    return http_connection_manager_pb2.LocalReplyConfig(
        mappers=[
            _mapper(DENIED, response_flag_filter=accesslog_pb2.ResponseFlagFilter(flags=[_BY_WHO_WAS_ASKED])),
            _mapper(UNAUTHENTICATED, status_code_filter=_status(_EQUAL, 401)),
            _mapper(DENIED, status_code_filter=_status(_EQUAL, 403)),
            _mapper("%RESPONSE_FLAGS_LONG%", response_flag_filter=accesslog_pb2.ResponseFlagFilter()),
            _mapper(RULE, status_code_filter=_status(_AT_LEAST, 400)),
        ]
    )


def _mapper(word: str, **condition: Any) -> Any:
    told = base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=HEADER, value=word),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return http_connection_manager_pb2.ResponseMapper(
        filter=accesslog_pb2.AccessLogFilter(**condition), headers_to_add=[told]
    )


def _status(operation: Any, status: int) -> Any:
    value = base_pb2.RuntimeUInt32(default_value=status, runtime_key=f"ambit.answered.{status}")
    comparison = accesslog_pb2.ComparisonFilter(op=operation, value=value)
    return accesslog_pb2.StatusCodeFilter(comparison=comparison)
