"""One client of the control plane: its session, what waits to be written to it, and how both are counted."""

import asyncio
from collections import deque
from collections.abc import Iterable

import grpc

from ambit.ca.issuance import Caller
from ambit.control.metrics import Counters
from ambit.xds.frames import Response
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ambit.xds.session import ServerSession

PUSHED = "ambit_xds_responses_total"
PUSHED_AS_ISTIOD = "pilot_xds_pushes"
"""The same under the name, and with the types, that dashboards of Istio ask for."""
SHORT_TYPES = {ADDRESS_TYPE: "wds", AUTHORIZATION_TYPE: "wads"}
ANSWERED = "ambit_xds_answers_total"
"""By type and `answer`, `ack` or `nack`."""
STOPPING = (grpc.StatusCode.UNAVAILABLE, "the control plane stops: transport is closing")
"""ztunnel comes back at once when it reads "transport is closing"; other texts make it wait longer."""


def count_push(counters: Counters, type_url: str) -> None:
    """A response is sent. That none of its type was rejected can be read from here on, because `increase` of
    Prometheus does not see a count that a series begins with: else the first rejection would go unnoticed."""
    counters.count(PUSHED, type=type_url)
    counters.count(ANSWERED, 0, type=type_url, answer="nack")


class Stream:
    """One client: its session, and responses that wait to be written."""

    def __init__(self, caller: Caller, session: ServerSession) -> None:
        self.caller = caller
        self.session = session
        self.outbox: deque[Response] = deque()
        self.awake = asyncio.Event()
        self.ended = False
        self.failure: tuple[grpc.StatusCode, str] | None = None

    def send(self, responses: Iterable[Response]) -> None:
        before = len(self.outbox)
        self.outbox.extend(responses)
        if len(self.outbox) > before:
            self.awake.set()

    def end(self) -> None:
        self.ended = True
        self.awake.set()
