"""Takes Envoy's access log: counts, keeps the newest records, writes lines, tells followers.

At thousands of connections a second each microsecond counts. A line of Envoy's is five numbers and a text that
most lines share (`ambit.node.flows.entry`). All that follows from the text (who the ends are, which counters, what
the access log says) is worked out once and kept as a *lane*, until something that it depends on changes.

A tunnel that fails is reported twice by Envoy: by the shared internal listener with the reason, and by the
pod's listener as a connection without an answer. They are joined by the client's address and port; the
second waits a moment for the first.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ambit.agent import connection_metrics as metrics
from ambit.agent.lanes import Lanes
from ambit.agent.recent import Recent
from ambit.agent.record import Flow
from ambit.agent.request_record import KeptRequest
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.node.flows.access_line import Parts, access_line, line_parts
from ambit.node.flows.cuts import Cuts, as_cut
from ambit.node.flows.entry import TUNNEL, About, Line, lines, read
from ambit.node.flows.record import Connection, denied_now, flows
from ambit.plan.values import LocalPods, NodeSettings

if TYPE_CHECKING:
    from ambit.node.flows.seen_requests import SeenRequests

KEPT = 20_000
"""Newest connections in memory, 250 bytes each."""
OPEN = 50_000
"""Ongoing connections that are counted; beyond that the oldest is counted when it ends."""
_JOIN = 1.0
"""Seconds a failed connection waits for the tunnel's reason: flush intervals of 0.5 s, and a busy machine."""
_FAILURES = 1_000
_Key = tuple[str, str, str, str, int]


class _Lane(msgspec.Struct, kw_only=True):
    """What connections have in common that differ in numbers only."""

    about: About
    flows: tuple[Flow, ...]
    series: tuple[list[int], ...] = ()
    """Counters of each flow, once something is counted."""
    parts: tuple[Parts, ...]
    """Of each flow's access-log line; empty when nobody wants lines."""
    is_failed: bool
    waits: bool
    """Whether the tunnel's reason may still come."""


class Ongoing(msgspec.Struct):
    """A connection that was reported and goes on."""

    about: About
    port: str
    received: int
    sent: int
    series: tuple[list[int], ...]


class Collector(Recent[Connection | KeptRequest]):
    """One node's connections, and the requests that are read where their pods are. `write` gets access-log lines (JSON
    if `as_json`), those of one message together; `cut_short` each tunnel that the other side reset, at once: the
    client's address and port, and the server's."""

    def __init__(
        self,
        view: MeshView,
        pods: Callable[[], LocalPods],
        settings: NodeSettings,
        write: Callable[[list[str]], None] | None = None,
        cut_short: Callable[[str, str], object] = lambda *_: None,
        *,
        as_json: bool = False,
    ) -> None:
        super().__init__(KEPT)
        self._view = view
        self._pods = pods
        self._settings = settings
        self._write = write
        self._lines: list[str] = []
        self._as_json = as_json
        self._cut_short = cut_short
        self.cuts = Cuts()
        self.counters = metrics.series()
        self.open: OrderedDict[_Key, Ongoing] = OrderedDict()
        self._lanes = Lanes(partial(self._lane, is_silent=False))
        self._silent = Lanes(partial(self._lane, is_silent=True))
        """Of connections that got no answer."""
        self.requests: SeenRequests | None = None
        """Once there was one."""
        self._known_pods: LocalPods | None = None
        self._failures: OrderedDict[str, About] = OrderedDict()

    def forget(self) -> None:
        """What is known about the mesh has changed: lanes are worked out again."""
        self._lanes.clear()
        self._silent.clear()
        if self.requests is not None:
            self.requests.forget()

    def take(self, message: bytes) -> None:
        """One message of Envoy's."""
        pods = self._pods()
        if pods is not self._known_pods:
            self._known_pods = pods
            self.forget()
        lanes, silent, is_of_requests = self._lanes, self._silent, True
        for line in lines(message):
            is_of_requests = False
            lane = (lanes if line[4] else silent)[line[-1]]
            if lane is None:
                continue
            if lane.about.kind == names.LOG_TUNNEL:
                self._tunnel(lane.about, line)
            elif not lane.about.ended:
                self._progress(lane, line)
            elif lane.waits:
                asyncio.get_running_loop().call_later(_JOIN, self._ended_late, lane, line)
            else:
                self._ended(lane, line)
        if is_of_requests:
            self._take_requests(message)
        self._flush()

    def _take_requests(self, message: bytes) -> None:
        """Envoy gathers each sort of log by itself. They have no line in the access log."""
        if self.requests is None:
            # What they are understood with is for nodes with such pods only.
            from ambit.node.flows.seen_requests import SeenRequests

            self.requests = SeenRequests(self._view, self._pods, self._settings)
        for each in self.requests.take(message):
            self.keep(each)

    def _lane(self, text: str, *, is_silent: bool) -> _Lane | None:
        about = read(text)
        return self._lane_of(about, is_silent=is_silent) if about is not None else None

    def _lane_of(self, about: About, *, is_silent: bool) -> _Lane:
        found: tuple[Flow, ...] = ()
        if about.kind != names.LOG_TUNNEL:
            found = flows(about, self._view, self._pods(), self._settings, is_silent=is_silent)
        return _Lane(
            about=about,
            flows=found,
            parts=tuple(line_parts(each, as_json=self._as_json) for each in found) if self._write else (),
            is_failed=any(each.failed for each in found),
            waits=is_silent
            and about.kind == names.LOG_OUTBOUND
            and about.route == TUNNEL
            and not about.failure,
        )

    def _series(self, lane: _Lane) -> tuple[list[int], ...]:
        lane.series = tuple(self.counters.of(metrics.labels(each)) for each in lane.flows)
        return lane.series

    def _tunnel(self, about: About, line: Line) -> None:
        client = f"{about.client}:{line[2]}"
        if about.cut_short and about.ended:
            self._cut_short(client, about.destination)
        if about.failure:
            self._failures[client] = about
            if len(self._failures) > _FAILURES:
                self._failures.popitem(last=False)

    def _ended_late(self, lane: _Lane, line: Line) -> None:
        failure = self._failures.pop(f"{lane.about.client}:{line[2]}", None)
        if failure is not None:
            key = f"{line[-1]}\t{failure.denied}\t{failure.failure}"
            about = msgspec.structs.replace(lane.about, failure=failure.failure, denied=failure.denied)
            lane = self._silent.get(key) or self._lane_of(about, is_silent=True)
            self._silent.remember(key, lane)
        self._ended(lane, line)
        self._flush()

    def _progress(self, lane: _Lane, line: Line) -> None:
        started, _, port, received, sent, _, _ = line
        key = _key(lane.about, port, started)
        known = self.open.pop(key, None)
        if known is None:
            known = Ongoing(lane.about, port, 0, 0, lane.series or self._series(lane))
            for counts in known.series:
                counts[metrics.OPENED] += 1
        _add_bytes(known.series, received - known.received, sent - known.sent)
        known.received, known.sent = received, sent
        self.open[key] = known
        if len(self.open) > OPEN:
            self.open.popitem(last=False)

    def _ended(self, lane: _Lane, line: Line) -> None:
        started, now, port, received, sent, trace, _ = line
        about = lane.about
        if not about.carried:
            received = sent = 0
        known = self.open.pop(_key(about, port, started), None) if self.open else None
        if known is not None:
            for counts in known.series:
                counts[metrics.CLOSED] += 1
            _add_bytes(known.series, received - known.received, sent - known.sent)
        else:
            for counts in lane.series or self._series(lane):
                if lane.is_failed:
                    counts[metrics.FAILED] += 1
                else:
                    counts[metrics.OPENED] += 1
                    counts[metrics.CLOSED] += 1
                counts[metrics.RECEIVED] += received
                counts[metrics.SENT] += sent
        milliseconds = round(max(0.0, now * 1000 - started / 1_000_000), 3)
        told, parts_told = lane.flows, lane.parts
        if (policy := self._cut_by(about, started / 1e9, now)) is not None:
            told = as_cut(told, policy)
            parts_told = (
                tuple(line_parts(each, as_json=self._as_json) for each in told) if self._write else ()
            )
        ended = Connection(told, port, started, milliseconds, received, sent, trace)
        self.keep(ended)
        for flow, parts in zip(told, parts_told, strict=False):
            self._lines.append(access_line(parts, flow, ended))

    def _cut_by(self, about: About, began: float, ended: float) -> str | None:
        """The policy that ended it; None when none did."""
        if self.cuts.may_be_elsewhere(about, began, ended):
            return denied_now(about, self._view, self._pods())
        return self.cuts.policy(about, began, ended) if self.cuts else None

    def _flush(self) -> None:
        if self._write is not None and self._lines:
            lines, self._lines = self._lines, []
            self._write(lines)


def _key(about: About, port: str, started: int) -> _Key:
    """The same for every report about one connection."""
    return about.kind, about.pod, about.client, port, started


def _add_bytes(series: tuple[list[int], ...], received: int, sent: int) -> None:
    for counts in series:
        counts[metrics.RECEIVED] += max(0, received)
        counts[metrics.SENT] += max(0, sent)
