"""Connections in which nobody reads requests: counted while they go on, and recorded when they have ended."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

import msgspec

from ambit.agent import connection_metrics as metrics
from ambit.agent.lanes import Lanes
from ambit.agent.record import End, Flow
from ambit.agent.stream_entry import About, Entry, connections, read

OPEN = 50_000
"""Ongoing connections that are counted; beyond that the oldest is counted when it ends."""


class KeptConnection(msgspec.Struct, frozen=True, gc=False):
    """An ended connection: its own numbers, and the `flow` that lacks them."""

    flow: Flow
    started: int
    milliseconds: float
    client_port: str
    received: int
    sent: int

    def records(self) -> Iterator[Flow]:
        """The complete record."""
        source = msgspec.structs.replace(
            self.flow.source, address=f"{self.flow.source.address}:{self.client_port}"
        )
        yield msgspec.structs.replace(
            self.flow,
            time=self.started / 1e9,
            source=source,
            received=self.received,
            sent=self.sent,
            milliseconds=self.milliseconds,
        )


class _Lane(msgspec.Struct, frozen=True):
    """What connections have in common that differ in numbers only."""

    about: About
    flow: Flow
    numbers: list[int]


class Connections:
    """Those of one proxy, whose own end is `own`; `flow_of` makes their records."""

    def __init__(self, own: End, flow_of: Callable[[About], Flow]) -> None:
        self._own = own
        self._flow_of = flow_of
        self.series = metrics.series()
        self._lanes = Lanes(self._lane)
        self._open: OrderedDict[tuple[str, str, int], tuple[int, int]] = OrderedDict()
        """Bytes that have been counted."""

    def ended(self, message: bytes) -> Iterator[KeptConnection]:
        """Takes one message of Envoy's: those that have ended."""
        for entry in connections(message):
            lane = self._lanes[entry.about]
            if lane is None:
                continue
            self._count(lane, entry)
            if lane.about.ended:
                milliseconds = round(max(0.0, entry.now * 1000 - entry.started / 1_000_000), 3)
                yield KeptConnection(
                    lane.flow, entry.started, milliseconds, entry.client_port, entry.received, entry.sent
                )

    def _lane(self, text: str) -> _Lane | None:
        about = read(text)
        if about is None:
            return None
        flow = self._flow_of(about)
        return _Lane(about, flow, self.series.of(metrics.labels(flow, self._own)))

    def _count(self, lane: _Lane, entry: Entry) -> None:
        key = lane.about.client, entry.client_port, entry.started
        known = self._open.pop(key, None)
        received, sent = known or (0, 0)
        numbers = lane.numbers
        numbers[metrics.RECEIVED] += max(0, entry.received - received)
        numbers[metrics.SENT] += max(0, entry.sent - sent)
        if lane.flow.failed and known is None:
            numbers[metrics.FAILED] += 1
            return
        numbers[metrics.OPENED] += known is None
        if lane.about.ended:
            numbers[metrics.CLOSED] += 1
            return
        self._open[key] = entry.received, entry.sent
        if len(self._open) > OPEN:
            self._open.popitem(last=False)
