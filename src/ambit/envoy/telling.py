"""What a connection manager tells of requests, and whom."""

import msgspec

from ambit.envoy.log_services import SentLog
from ambit.envoy.request_tracing import Spans
from ambit.model.telemetry import RequestLog


class Told(msgspec.Struct, frozen=True):
    """Besides what is in all records that the agent gets."""

    logs: tuple[RequestLog, ...] = ()
    sent: tuple[SentLog, ...] = ()
    spans: Spans | None = None
    values: tuple[str, ...] = ()
    """Of these expressions, in the records that the agent gets."""


NOTHING = Told()
