"""Clients of UDP at a gateway: counted and recorded when their sessions have ended."""

from collections.abc import Iterator

import msgspec

from ambit.agent import datagram_metrics as metrics
from ambit.agent.datagram_entry import About, Entry, read, sessions
from ambit.agent.lanes import Lanes
from ambit.agent.record import End, Flow, Reporter, SessionPart
from ambit.core.address import host_port
from ambit.envoy.l7.datagrams import NOWHERE
from ambit.plan.node.ways import DIRECT, REFUSED

_LANES = 1_000
_NOWHERE = host_port(*NOWHERE)


class KeptSession(msgspec.Struct, frozen=True, gc=False):
    """An ended session: its own numbers, and the `flow` that lacks them."""

    flow: Flow
    entry: Entry

    @property
    def started(self) -> int:
        return self.entry.started

    @property
    def milliseconds(self) -> float:
        return round(max(0.0, self.entry.now * 1000 - self.entry.started / 1_000_000), 3)

    def records(self) -> Iterator[Flow]:
        """The complete record."""
        flow, entry = self.flow, self.entry
        part = flow.datagrams or SessionPart()
        yield msgspec.structs.replace(
            flow,
            time=entry.started / 1e9,
            source=End(entry.client),
            received=entry.received,
            sent=entry.sent,
            milliseconds=self.milliseconds,
            datagrams=msgspec.structs.replace(
                part, received=entry.datagrams_received, sent=entry.datagrams_sent
            ),
        )


class _Lane(msgspec.Struct, frozen=True):
    """What sessions have in common that differ in numbers, and in who sent, only."""

    flow: Flow
    numbers: list[int]


class Sessions:
    """Those of one proxy (`proxy`, the key of its Gateway), whose own end is `own`, on `node`."""

    def __init__(self, own: End, *, proxy: str, node: str) -> None:
        self._own = own
        self._proxy = proxy
        self._node = node
        self.series = metrics.series()
        self._lanes = Lanes(self._lane, _LANES)

    def ended(self, message: bytes) -> Iterator[KeptSession]:
        """Takes one message of Envoy's: those that have ended."""
        for entry in sessions(message):
            lane = self._lanes[entry.about]
            if lane is None:
                continue
            numbers = lane.numbers
            numbers[metrics.SESSIONS] += 1
            numbers[metrics.DATAGRAMS_RECEIVED] += entry.datagrams_received
            numbers[metrics.DATAGRAMS_SENT] += entry.datagrams_sent
            numbers[metrics.RECEIVED] += entry.received
            numbers[metrics.SENT] += entry.sent
            yield KeptSession(lane.flow, msgspec.structs.replace(entry, about=""))

    def _lane(self, text: str) -> _Lane | None:
        about = read(text)
        if about is None:
            return None
        flow = session_flow(about, proxy=self._proxy, node=self._node)
        return _Lane(flow, self.series.of(metrics.labels(flow, self._own)))


def session_flow(about: About, *, proxy: str, node: str) -> Flow:
    """What records of such sessions have in common, all but the client."""
    is_led = about.target not in ("", _NOWHERE)
    port = about.dialled.rpartition(":")[2]
    nowhere = f"{about.service.partition('/')[2] or 'listener'}:{port}"
    return Flow(
        time=0.0,
        node=node,
        reporter=Reporter.GATEWAY,
        source=End(""),
        destination=End(about.target if is_led else nowhere, service=about.service),
        hop=DIRECT if is_led else REFUSED,
        error="" if is_led else "no endpoint",
        proxy=proxy,
        datagrams=SessionPart(about.listener, about.route),
    )
