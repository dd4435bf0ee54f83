"""Requests as they are kept until somebody asks for their records. Pure."""

from collections.abc import Iterator

import msgspec

from ambit.agent.record import Flow, RequestPart
from ambit.agent.request_entry import Entry, read_asked
from ambit.envoy.logs.request_log import LINE

_LONGEST, _LONGEST_OTHER = 2_048, 256
"""Characters that are kept of what a client asked, and of each of its headers: thousands of requests with headers of
60 KiB would take all memory that a proxy has."""


class KeptRequest(msgspec.Struct, frozen=True, gc=False):
    """An ended request: its own numbers, what was `asked`, and the `flow` that lacks them. Thousands are kept, so this
    is what they do not share."""

    flow: Flow
    started: int
    milliseconds: float
    client_port: str
    received: int
    sent: int
    attempts: int
    asked: str

    def records(self) -> Iterator[Flow]:
        """The complete record."""
        flow, asked = self.flow, read_asked(self.asked)
        part = flow.request or RequestPart()
        yield msgspec.structs.replace(
            flow,
            time=self.started / 1e9,
            source=msgspec.structs.replace(flow.source, address=f"{flow.source.address}:{self.client_port}"),
            received=self.received,
            sent=self.sent,
            milliseconds=self.milliseconds,
            trace=asked.tunnel,
            request=msgspec.structs.replace(
                part,
                method=asked.method,
                host=asked.host,
                path=asked.path,
                attempts=self.attempts,
                id=asked.id,
                trace=asked.trace,
            ),
        )


def kept(flow: Flow, entry: Entry) -> KeptRequest:
    """A request of which the flow says what others have in common with it."""
    milliseconds = round(max(0.0, entry.ended * 1000 - entry.started / 1_000_000), 3)
    return KeptRequest(
        flow,
        entry.started,
        milliseconds,
        entry.client_port,
        entry.received,
        entry.sent,
        entry.attempts,
        _bounded(entry.asked),
    )


def _bounded(asked: str) -> str:
    if len(asked) <= _LONGEST:
        return asked
    first, *others = asked.split(LINE)
    if len(first) > _LONGEST:
        first = f"{first[:_LONGEST]}…"
    return LINE.join((first, *(each[:_LONGEST_OTHER] for each in others)))
