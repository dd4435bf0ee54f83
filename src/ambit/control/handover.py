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
   (`Service.rules`), unless its waypoint enforces them before or after (`enforcement_change`).
7. Nor does what is new: callers that know nothing of a service would go past its waypoint.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from ambit.control import enforcement_change
from ambit.control.enforcement_change import Change
from ambit.control.view import LiveView
from ambit.core.names import ONLY_BY_WAYPOINT
from ambit.graph.collection import Delta
from ambit.ingest.mesh import MeshDelta
from ambit.model.inline_rules import READ_AT_POD
from ambit.model.policy import Authorization
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import Service, WeightedWaypoint
from ambit.model.workload import GatewayAddress, Workload

HOLD = 5.0
MARGIN = 0.5
LINGER = 5.0
DRAIN = 3600.0
ENDED = 6.0
"""Seconds. DRAIN is as long as connections of a node's older Envoy have (`ambit node run --max-drain`), LINGER is for
those of a waypoint whose pods go, or which enforces the rules no longer. ENDED is a second more than a waypoint's Envoy
lets connections of a listener go on that is gone."""

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
        self._changes: dict[str, Change] = {}
        """By key of the service."""
        self._unneeded: set[str] = set()
        """Names of policies that go with the last step of a change."""

    @property
    def is_waiting(self) -> bool:
        """Whether `proceed` may have something to give before `lingers_until`."""
        return bool(self._turns or self._open or self._dropped or self._changes)

    @property
    def lingers_until(self) -> float | None:
        """When a waypoint may next forget something."""
        return min((end for keys in self._kept.values() for end in keys.values()), default=None)

    def kept(self, place: Place) -> frozenset[str]:
        """Keys of what a waypoint still serves although it is not bound to it any more."""
        held = [key for key, turn in self._turns.items() if place in turn.former.places]
        held += [
            key
            for key, each in self._changes.items()
            if each.waypoint == place and not each.callers_have_gone
        ]
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
        ended = self._end_changes(delta, services, workloads, concerned)
        fresh = {key: value for key, value in services.items() if key not in ended}
        self._begin_changes(fresh, workloads, concerned, now)
        services = {
            key: self._changes[key].service(value)
            if key in self._changes
            else value
            if key in ended
            else self._turn(key, value, self._view.service(key), concerned, opening, now)
            for key, value in services.items()
        }
        workloads = {
            uid: self._changing(value)
            if self._is_changing(uid)
            else value
            if uid in ended
            else self._guarded(
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
            authorizations=self._needed(delta.authorizations),
        )

    def _begin_changes(
        self,
        services: Mapping[str, Service],
        workloads: Mapping[str, Workload],
        concerned: "_Concerned",
        now: float,
    ) -> None:
        for key, value in services.items():
            before = self._view.service(key)
            is_new = before is not None and key not in self._changes and key not in self._turns
            if before is None or not is_new or concerned.by(value) or concerned.by(before):
                continue
            pods = {each.uid: each for each in self._view.endpoints(before)}
            pods = {uid: workloads.get(uid, each) for uid, each in pods.items()}
            pods |= {uid: each for uid, each in workloads.items() if key in each.services}
            made = enforcement_change.begin(value, pods.values(), self._view, now + HOLD)
            if made is not None and not self._open.keys() & pods.keys() and self._is_served(made.waypoint):
                self._changes[key] = made

    def _end_changes(
        self,
        delta: MeshDelta,
        services: dict[str, Service],
        workloads: dict[str, Workload],
        concerned: "_Concerned",
    ) -> set[str]:
        """Ends changes at once where something else is wanted meanwhile; keys of all objects that are concerned. What
        else is new about objects that change is noted."""
        ended: set[str] = set()
        for key, change in list(self._changes.items()):
            wanted = services.get(key, change.wanted)
            is_same = way(wanted) == way(change.wanted) and wanted.enforced == change.wanted.enforced
            if (
                not is_same
                or key in delta.services.removals
                or concerned.by(wanted)
                or concerned.by(change.former)
            ):
                del self._changes[key]
                self._drop(key)
                ended |= {key, *change.pods}
                if key not in delta.services.removals:
                    services.setdefault(key, wanted)
                for uid, pod in change.pods.items():
                    if uid not in delta.workloads.removals:
                        workloads.setdefault(uid, pod.wanted)
                continue
            change.wanted = wanted
            for uid in change.pods.keys() & delta.workloads.removals:
                del change.pods[uid]
            for uid in change.pods.keys() & workloads.keys():
                change.pods[uid].wanted = workloads[uid]
        return ended

    def _is_changing(self, uid: str) -> bool:
        return any(uid in each.pods for each in self._changes.values())

    def _changing(self, pod: Workload) -> Workload:
        for each in self._changes.values():
            pod = each.pod(pod)
        return pod

    def _needed(self, authorizations: Delta[Authorization]) -> Delta[Authorization]:
        """What becomes of policies, those that pods still name being kept."""
        named = {name for change in self._changes.values() for name in change.former_policies}
        self._unneeded.update(authorizations.removals)
        self._unneeded.difference_update(authorizations.upserts)
        gone = self._unneeded - named
        self._unneeded &= named
        return Delta(authorizations.upserts, tuple(sorted(gone)))

    def told(self, mark: Callable[[Place], Mark], revision: int, now: float) -> None:
        """All of the last step is on its way: to waypoints up to `mark`, to nodes up to `revision` of addresses."""
        for turn in self._turns.values():
            if turn.marks is None:
                turn.marks, turn.revision = {each: mark(each) for each in turn.awaited}, revision
        for pod in self._open.values():
            if pod.revision is None and not self._is_turning(pod.wanted):
                pod.revision, pod.until = revision, now + HOLD
        for change in self._changes.values():
            if change.revision is None:
                change.revision = revision
                change.marks = mark(change.waypoint) if change.is_to_waypoint else {}

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
        changed = self._proceed_changes(now, prepared, acknowledged)
        for change in changed:
            services[change.wanted.key] = change.service(change.wanted)
            workloads |= {uid: self._changing(pod.wanted) for uid, pod in change.pods.items()}
        authorizations = self._needed(Delta()) if changed else Delta[Authorization]()
        delta = MeshDelta(services=Delta(services), workloads=Delta(workloads), authorizations=authorizations)
        return Step(delta, frozenset(self._release(now)))

    def _proceed_changes(
        self, now: float, prepared: Callable[[Place, Mark], bool], acknowledged: Callable[[int], bool]
    ) -> list[Change]:
        """Those that are a step further. What shares a pod goes step by step together."""
        ready = []
        for change in self._changes.values():
            if change.revision is None:
                continue
            waits = change.is_to_waypoint and change.step == 1 and not prepared(change.waypoint, change.marks)
            lasts = not change.is_to_waypoint and change.callers_have_gone
            if not change.ready and not lasts and not waits and acknowledged(change.revision):
                change.ready, change.until = True, min(change.until, now + MARGIN)
            if now >= change.until:
                ready.append(change)
        moved = [each for each in ready if not self._is_ahead(each, ready)]
        for change in moved:
            change.step, change.revision, change.ready, change.until = (
                change.step + 1,
                None,
                False,
                now + HOLD,
            )
            if change.step == enforcement_change.STEPS:
                del self._changes[change.wanted.key]
            elif not change.is_to_waypoint and change.callers_have_gone:
                self._kept.setdefault(change.waypoint, {})[change.wanted.key] = now + LINGER
                change.until = now + LINGER + ENDED
        return moved

    def _is_ahead(self, change: Change, ready: list[Change]) -> bool:
        """Whether another change that a pod of it waits for too is not as far."""
        return any(
            each.pods.keys() & change.pods.keys()
            and (each.step < change.step or (each.step == change.step and each not in ready))
            for each in self._changes.values()
            if each is not change
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
        self._drop(key)

    def _drop(self, key: str) -> None:
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
