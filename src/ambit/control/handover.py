"""Who is told first when a service or workload gets another waypoint, or none. No I/O; the time is given.

Callers' nodes, waypoints and servers' nodes hear of a change some milliseconds apart. So that nobody is refused:

1. A waypoint learns first. Callers keep the former way until its pods have taken all that they need.
2. A waypoint that is left keeps what has left it until DRAIN after the callers were told: connections that are open
   stay where they are.
3. A pod that takes connections from its waypoint only (`ambit.ingest.waypoints.only_by_waypoint`) takes them from
   everybody before callers are told to come directly, and from its waypoint only after they were told to go there:
   each step when all nodes have acknowledged the one before.
4. Who has answered has MARGIN more: workers of Envoy learn after the thread that answers.
5. Nothing waits longer than HOLD, whoever does not answer, or answers another replica.
6. What closes waits for nothing: a waypoint that nobody has or that has no pods, and every change of policies and rules
   about tokens, with all that it may concern. Nor does what pods' own nodes enforce rules for, or did
   (`Service.rules`): in between nobody would.
7. Nor does what is new: callers that know nothing of a service would go past its waypoint.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from ambit.control.view import LiveView
from ambit.core.names import ONLY_BY_WAYPOINT
from ambit.graph.collection import Delta
from ambit.ingest.mesh import MeshDelta
from ambit.model.inline_rules import READ_AT_POD
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import Service, WeightedWaypoint
from ambit.model.workload import GatewayAddress, Workload

HOLD = 5.0
MARGIN = 0.5
LINGER = 5.0
DRAIN = 3600.0
"""Seconds. DRAIN is as long as connections of a node's older Envoy have (`ambit node run --max-drain`); LINGER is for
those of a waypoint whose pods go."""

Place = tuple[str, str]
"""Namespace and host name of a waypoint's Service."""
Mark = Mapping[str, int]
"""Revisions by type that a waypoint's pods must have acknowledged."""
Subject = TypeVar("Subject", Service, Workload)


class Way(msgspec.Struct, frozen=True):
    """How callers go to an object."""

    waypoint: GatewayAddress | None = None
    weighted_waypoints: tuple[WeightedWaypoint, ...] = ()
    inline: tuple[ServiceRoutes, ...] | None = None

    @property
    def places(self) -> frozenset[Place]:
        named = [each.gateway for each in self.weighted_waypoints]
        named += [self.waypoint] if self.waypoint is not None else []
        return frozenset((each.namespace, each.hostname) for each in named)

    def given(self, value: Subject) -> Subject:
        """The object with this way to it."""
        if isinstance(value, Workload):
            return msgspec.structs.replace(value, waypoint=self.waypoint)
        return msgspec.structs.replace(
            value, waypoint=self.waypoint, weighted_waypoints=self.weighted_waypoints, inline=self.inline
        )


def way(value: Service | Workload) -> Way:
    """The way to an object that it asks for."""
    if isinstance(value, Workload):
        return Way(value.waypoint)
    return Way(value.waypoint, value.weighted_waypoints, value.inline)


class Step(msgspec.Struct, frozen=True):
    """What nodes are to be told now, and the waypoints that keep less than before."""

    delta: MeshDelta = MeshDelta()
    released: frozenset[Place] = frozenset()


class _Turn(msgspec.Struct):
    """An object to which callers still go the former way. It waits for waypoints (`awaited`) and, when `opens`, for
    nodes; `marks` and `revision` are known when those have been told."""

    wanted: Service | Workload
    former: Way
    awaited: frozenset[Place]
    opens: bool
    until: float
    marks: Mapping[Place, Mark] | None = None
    revision: int = 0
    ready: bool = False


class _Open(msgspec.Struct):
    """A pod that still takes connections from everybody, `guards` being all that it is told of its waypoints."""

    wanted: Workload
    guards: frozenset[str]
    revision: int | None = None
    until: float = 0.0
    ready: bool = False


class Handovers:
    """`view` is the mesh as of before the batch that `take` is told. After `take` and `proceed` comes `told`, when what
    they gave is published."""

    def __init__(self, view: LiveView) -> None:
        self._view = view
        self._turns: dict[str, _Turn] = {}
        self._open: dict[str, _Open] = {}
        self._kept: dict[Place, dict[str, float]] = {}
        """When a waypoint may forget what has left it, by key of that."""
        self._dropped: set[Place] = set()
        """Waypoints that were made to forget something at once."""

    @property
    def is_waiting(self) -> bool:
        """Whether `proceed` may have something to give before `lingers_until`."""
        return bool(self._turns or self._open or self._dropped)

    @property
    def lingers_until(self) -> float | None:
        """When a waypoint may next forget something."""
        return min((end for keys in self._kept.values() for end in keys.values()), default=None)

    def kept(self, place: Place) -> frozenset[str]:
        """Keys of what a waypoint still serves although it is not bound to it any more."""
        held = (key for key, turn in self._turns.items() if place in turn.former.places)
        return frozenset((*self._kept.get(place, ()), *held))

    def take(self, delta: MeshDelta, now: float) -> MeshDelta:
        """The part of a batch that nodes are told at once."""
        concerned = _Concerned(delta)
        opening = frozenset(self._losing(delta.workloads.upserts))
        services, workloads = dict(delta.services.upserts), dict(delta.workloads.upserts)
        for key, turn in self._turns.items():
            if concerned.by(turn.wanted):
                same = workloads if isinstance(turn.wanted, Workload) else services
                same.setdefault(key, turn.wanted)  # type: ignore[arg-type]
        for uid, pod in self._open.items():
            if concerned.by(pod.wanted):
                workloads.setdefault(uid, pod.wanted)
        for key in (*delta.services.removals, *delta.workloads.removals):
            self._forget(key)
        services = {
            key: self._turn(key, value, self._view.service(key), concerned, opening, now)
            for key, value in services.items()
        }
        workloads = {
            uid: self._guarded(
                uid,
                self._turn(uid, value, self._view.workload(uid), concerned, opening, now),
                value,
                concerned,
            )
            for uid, value in workloads.items()
        }
        return msgspec.structs.replace(
            delta,
            services=Delta(services, delta.services.removals),
            workloads=Delta(workloads, delta.workloads.removals),
        )

    def told(self, mark: Callable[[Place], Mark], revision: int, now: float) -> None:
        """All of the last step is on its way: to waypoints up to `mark`, to nodes up to `revision` of addresses."""
        for turn in self._turns.values():
            if turn.marks is None:
                turn.marks, turn.revision = {each: mark(each) for each in turn.awaited}, revision
        for pod in self._open.values():
            if pod.revision is None and not self._is_turning(pod.wanted):
                pod.revision, pod.until = revision, now + HOLD

    def proceed(
        self, now: float, prepared: Callable[[Place, Mark], bool], acknowledged: Callable[[int], bool]
    ) -> Step:
        """What is next: `prepared` tells whether a waypoint's pods, `acknowledged` whether all nodes have taken it."""
        services: dict[str, Service] = {}
        workloads: dict[str, Workload] = {}
        for key, turn in list(self._turns.items()):
            if not turn.ready and _is_ready(turn, prepared, acknowledged):
                turn.ready, turn.until = True, min(turn.until, now + MARGIN)
            if now < turn.until:
                continue
            del self._turns[key]
            self._keep(key, turn.former.places - way(turn.wanted).places, now)
            if isinstance(turn.wanted, Service):
                services[key] = turn.wanted
            else:
                workloads[key] = turn.wanted
        for uid, pod in list(self._open.items()):
            if uid in workloads:
                workloads[uid] = _with_guards(pod.wanted, pod.guards)
            elif pod.revision is not None:
                if not pod.ready and acknowledged(pod.revision):
                    pod.ready, pod.until = True, min(pod.until, now + MARGIN)
                if now < pod.until:
                    continue
                del self._open[uid]
                turn_of_it = self._turns.get(uid)
                workloads[uid] = turn_of_it.former.given(pod.wanted) if turn_of_it is not None else pod.wanted
        return Step(
            MeshDelta(services=Delta(services), workloads=Delta(workloads)), frozenset(self._release(now))
        )

    def _turn(
        self,
        key: str,
        value: Subject,
        before: Service | Workload | None,
        concerned: "_Concerned",
        opening: frozenset[str],
        now: float,
    ) -> Subject:
        """The object as callers are told of it now."""
        turn = self._turns.pop(key, None)
        if before is None:
            return value
        former, wanted = turn.former if turn is not None else way(before), way(value)
        awaited, left = wanted.places - former.places, former.places - wanted.places
        if not all(map(self._is_served, wanted.places)) or _is_read(before) or _is_read(value):
            self._forget(key)
            return value
        opens = key in opening and bool(left)
        if (awaited or opens) and not concerned.by(value):
            if turn is None or way(turn.wanted) != wanted:
                turn = _Turn(value, former, awaited, opens, now + HOLD)
            turn.wanted = value
            self._turns[key] = turn
            return former.given(value)
        self._keep(key, left, now)
        return value

    def _guarded(self, uid: str, given: Workload, wanted: Workload, concerned: "_Concerned") -> Workload:
        """A pod as its node is told of it now."""
        pod = self._open.pop(uid, None)
        before = self._view.workload(uid)
        if before is None or concerned.by(wanted) or _is_read(before) or _is_read(wanted):
            return given
        had = pod.guards if pod is not None else _guards(before)
        if not had < _guards(wanted) or (pod is None and not self._is_turning(wanted)):
            return given
        self._open[uid] = pod or _Open(wanted, had)
        self._open[uid].wanted = wanted
        return _with_guards(given, had)

    def _losing(self, workloads: Mapping[str, Workload]) -> Iterator[str]:
        """Keys of all that pods serve, and are, that take connections from more callers than before."""
        for uid, value in workloads.items():
            before = self._view.workload(uid)
            if before is not None and _guards(before) > _guards(value):
                yield from (uid, *before.services)

    def _is_turning(self, pod: Workload) -> bool:
        return pod.uid in self._turns or any(key in self._turns for key in pod.services)

    def _is_served(self, place: Place) -> bool:
        service = self._view.service("/".join(place))
        return service is not None and bool(self._view.endpoints(service))

    def _keep(self, key: str, places: Iterable[Place], now: float) -> None:
        for place in places:
            self._kept.setdefault(place, {})[key] = now + DRAIN

    def _forget(self, key: str) -> None:
        """Nobody is to reach it by a former waypoint."""
        self._turns.pop(key, None)
        self._open.pop(key, None)
        for place, keys in self._kept.items():
            if keys.pop(key, None) is not None:
                self._dropped.add(place)

    def _release(self, now: float) -> Iterator[Place]:
        """Waypoints that have something to forget."""
        yield from self._dropped
        self._dropped.clear()
        for place, keys in list(self._kept.items()):
            over = [key for key, end in keys.items() if end <= now]
            for key in over:
                del keys[key]
            if not keys:
                del self._kept[place]
            if over:
                yield place


class _Concerned:
    """What a batch of policies may be for: by namespaces, more rather than fewer."""

    def __init__(self, delta: MeshDelta) -> None:
        targets = [each for policy in delta.request_policies.upserts.values() for each in policy.targets]
        targets += [each for rules in delta.tokens.upserts.values() for each in rules.targets]
        self._namespaces = {each.namespace for each in targets}
        self._all = any(each.kind == "GatewayClass" for each in targets)

    def by(self, value: Service | Workload) -> bool:
        around = {value.namespace, *(namespace for namespace, _ in way(value).places)}
        return self._all or not self._namespaces.isdisjoint(around)


def _is_ready(
    turn: _Turn, prepared: Callable[[Place, Mark], bool], acknowledged: Callable[[int], bool]
) -> bool:
    if turn.marks is None or (turn.opens and not acknowledged(turn.revision)):
        return False
    return all(prepared(place, mark) for place, mark in turn.marks.items())


def _is_read(value: Service | Workload) -> bool:
    """Whether pods' own nodes enforce rules for it."""
    if isinstance(value, Service):
        return value.enforced is not None
    return any(each.startswith(f"{value.namespace}/{READ_AT_POD}") for each in value.policies)


def _guards(value: Workload) -> frozenset[str]:
    start = f"{value.namespace}/{ONLY_BY_WAYPOINT}"
    return frozenset(each for each in value.policies if each.startswith(start))


def _with_guards(value: Workload, guards: frozenset[str]) -> Workload:
    others = frozenset(value.policies) - _guards(value)
    return msgspec.structs.replace(value, policies=tuple(sorted(others | guards)))
