"""What a connection manager tells of requests, and whom."""

import msgspec

from ambit.envoy.http.tracing import Spans
from ambit.envoy.logs.log_services import SentLog
from ambit.model.telemetry import RequestLog


class Told(msgspec.Struct, frozen=True):
    """Besides what is in all records that the agent gets."""

    logs: tuple[RequestLog, ...] = ()
    sent: tuple[SentLog, ...] = ()
    spans: Spans | None = None
    values: tuple[str, ...] = ()
    """Of these expressions, in the records that the agent gets."""


NOTHING = Told()
