"""Takes Envoy's access-log stream: counts, keeps the newest records, writes lines, tells followers.

A tunnel that fails is reported twice by Envoy: by the shared internal listener with the reason, and by the
pod's listener as a connection without an answer. They are joined by the client's address and port; the
second waits a moment for the first.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable

import msgspec

from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.node.flows import metrics
from ambit.node.flows.entry import TUNNEL, Entry, decode
from ambit.node.flows.record import Flow, flow
from ambit.plan.values import LocalPods, NodeSettings

KEPT = 5_000
"""Newest records in memory."""
OPEN = 50_000
"""Open connections that are counted; beyond that the oldest is counted when it ends."""
_JOIN = 1.0
"""Seconds a failed connection waits for the tunnel's reason: flush intervals of 0.25 s, and a busy machine."""
_FAILURES = 1_000
_FOLLOWER = 1_000
"""Records a slow follower may lag behind before it misses some."""


class Collector:
    """One node's connections. `line` gets each ended record, for the access log; `cut_short` each tunnel that
    the other side reset, at once."""

    def __init__(
        self,
        view: MeshView,
        pods: Callable[[], LocalPods],
        settings: NodeSettings,
        line: Callable[[Flow], None],
        cut_short: Callable[[Entry], object] = lambda _: None,
    ) -> None:
        self._view = view
        self._pods = pods
        self._settings = settings
        self._line = line
        self._cut_short = cut_short
        self.counters = metrics.TcpMetrics()
        self.recent: deque[Flow] = deque(maxlen=KEPT)
        self.open: OrderedDict[tuple[str, str, str, float], tuple[Entry, list[list[int]]]] = OrderedDict()
        self._failures: OrderedDict[str, Entry] = OrderedDict()
        self._followers: list[asyncio.Queue[Flow]] = []

    def take(self, kind: str, message: bytes) -> None:
        """One message of the stream with this log name."""
        for entry in decode(kind, message):
            if entry.kind == names.LOG_TUNNEL:
                self._tunnel(entry)
            elif not entry.ended:
                self._progress(entry)
            elif entry.kind == names.LOG_OUTBOUND and entry.route == TUNNEL and not entry.sent:
                asyncio.get_running_loop().call_later(_JOIN, self._ended_late, entry)
            else:
                self._ended(entry)

    def _tunnel(self, entry: Entry) -> None:
        if entry.cut_short and entry.ended:
            self._cut_short(entry)
        if entry.failure:
            self._failures[entry.client] = entry
            if len(self._failures) > _FAILURES:
                self._failures.popitem(last=False)

    async def follow(self) -> AsyncGenerator[Flow, None]:
        """Records from now on."""
        queue: asyncio.Queue[Flow] = asyncio.Queue(_FOLLOWER)
        self._followers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._followers.remove(queue)

    def _ended_late(self, entry: Entry) -> None:
        failure = self._failures.pop(entry.client, None)
        if failure is not None:
            entry = msgspec.structs.replace(entry, failure=failure.failure, denied=failure.denied)
        self._ended(entry)

    def _progress(self, entry: Entry) -> None:
        known = self.open.pop(entry.key, None)
        if known is None:
            series = [self.counters.series(metrics.labels(each)) for each in self._flows(entry)]
            for counts in series:
                counts[metrics.OPENED] += 1
            _add_bytes(series, entry, 0, 0)
        else:
            series = known[1]
            _add_bytes(series, entry, known[0].received, known[0].sent)
        self.open[entry.key] = entry, series
        if len(self.open) > OPEN:
            self.open.popitem(last=False)

    def _ended(self, entry: Entry) -> None:
        known = self.open.pop(entry.key, None) if self.open else None
        flows = self._flows(entry)
        failed = flows[0].failed
        if known is not None:
            series, failed = known[1], False
            _add_bytes(series, entry, known[0].received, known[0].sent)
        else:
            series = [self.counters.series(metrics.labels(each)) for each in flows]
            _add_bytes(series, entry, 0, 0)
        for counts in series:
            if known is None and not failed:
                counts[metrics.OPENED] += 1
            counts[metrics.FAILED if failed else metrics.CLOSED] += 1
        for record in flows:
            self.recent.append(record)
            self._line(record)
            for queue in self._followers:
                if not queue.full():
                    queue.put_nowait(record)

    def _flows(self, entry: Entry) -> tuple[Flow, ...]:
        return flow(entry, self._view, self._pods(), self._settings)


def _add_bytes(series: list[list[int]], entry: Entry, received: int, sent: int) -> None:
    """What came since the counts were `received` and `sent`."""
    for counts in series:
        counts[metrics.RECEIVED] += max(0, entry.received - received)
        counts[metrics.SENT] += max(0, entry.sent - sent)
