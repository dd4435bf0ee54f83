"""Takes Envoy's access log of requests, of connections in which none are read, and of clients of UDP: counts, keeps the
newest records, tells followers. Anybody can make up clients of UDP, so they have bounds of their own.

At thousands of requests a second each microsecond counts. All that follows from the line that requests share (who the
ends are, which numbers) is worked out once and kept as a *lane*.
"""

from collections import deque
from collections.abc import Iterator
from heapq import merge

import msgspec

from ambit.agent import request_metrics as metrics
from ambit.agent.lanes import Lanes
from ambit.agent.recent import Recent
from ambit.agent.record import End, Flow
from ambit.agent.request_entry import read, requests
from ambit.agent.request_record import KeptRequest, kept
from ambit.agent.series import Labels
from ambit.proxy.flows.connections import Connections, KeptConnection
from ambit.proxy.flows.record import flow_of, stream_flow
from ambit.proxy.flows.sessions import KeptSession, Sessions

KEPT = 20_000
"""Newest requests in memory, about 600 bytes each."""
KEPT_SESSIONS = 2_000
"""As KEPT, of clients of UDP."""
_SESSIONS_TOLD = 200
"""Records that a follower may lag behind before it misses those of UDP; the others have more room."""
_NOBODY = End("")


class _Lane(msgspec.Struct, frozen=True):
    flow: Flow
    labels: Labels
    numbers: list[int]


class RequestCollector(Recent[KeptRequest | KeptConnection]):
    """The requests and connections of one proxy: `proxy` is the key of its Gateway, `node` where it runs, `own` its own
    end."""

    def __init__(self, *, proxy: str, node: str, own: End = _NOBODY) -> None:
        super().__init__(KEPT)
        self._proxy = proxy
        self._node = node
        self._own = own
        self.series = metrics.series()
        self._lanes = Lanes(self._lane)
        self.connections = Connections(own, lambda about: stream_flow(about, proxy=proxy, node=node))
        self.sessions = Sessions(own, proxy=proxy, node=node)
        self._ended: deque[KeptSession] = deque(maxlen=KEPT_SESSIONS)

    def take(self, message: bytes) -> None:
        """One message of Envoy's."""
        for connection in self.connections.ended(message):
            self.keep(connection)
        for session in self.sessions.ended(message):
            self._ended.append(session)
            self.tell(session, most=_SESSIONS_TOLD)
        for entry in requests(message):
            lane = self._lanes[entry.about]
            if lane is None:
                continue
            request = kept(lane.flow, entry)
            numbers = self.series.of(lane.labels, entry.values) if entry.values else lane.numbers
            metrics.count(numbers, entry, request.milliseconds)
            self.keep(request)

    def newest(self) -> Iterator[Flow]:
        """Records that are kept, newest first; those of UDP in their places between the others."""
        for each in merge(reversed(self._kept), reversed(self._ended), key=_age):
            yield from each.records()

    def _lane(self, text: str) -> _Lane | None:
        about = read(text)
        if about is None:
            return None
        flow = flow_of(about, proxy=self._proxy, node=self._node)
        labels = metrics.labels(flow, self._own)
        return _Lane(flow, labels, self.series.of(labels))


def _age(kept: KeptRequest | KeptConnection | KeptSession) -> float:
    """Less for what has ended later."""
    return -(kept.started / 1e9 + kept.milliseconds / 1e3)
