"""Keeps Envoy's configuration equal to what the node knows: pods and mesh state. Certificates: `secrets`.

Rules:
1. A pod's inbound listeners exist only when both workload-API types were answered completely (design 6);
   until then questions for destinations wait too, because an unknown destination would pass in plain text.
2. Every question for a cluster gets an answer; an answer changes when what it read changes, and goes only
   with its pod.
3. Changes that arrive together are computed and sent together.
4. An address that can only be the cluster's and that is not known yet is not passed through: its answer waits for the
   workload API (`HeldAnswers`), and is a refusal after that.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from ambit.agent.envoy_server import EnvoyServer, framed
from ambit.agent.publication import Publication
from ambit.core.address import Address
from ambit.core.errors import AmbitError
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.node.configuration.destinations import Destinations, HeldAnswers
from ambit.node.configuration.moves import Moves
from ambit.node.configuration.read_ports import READ, TOLD, Newly, ReadPorts
from ambit.node.configuration.requests import Requests
from ambit.node.configuration.tracking import (
    Answer,
    Dependencies,
    TrackedPods,
    TrackedView,
    pod_keys,
)
from ambit.node.configuration.turnover import Turnover
from ambit.plan.node import node_proxy
from ambit.plan.values import (
    CLUSTER,
    EXTENSION,
    ROUTES,
    LocalPod,
    LocalPods,
    NodeSettings,
    PlannedResource,
)

_log = logging.getLogger("ambit.configuration")
LISTENER_DELAY = 0.02
"""Seconds in which new destinations of a pod are gathered before its outbound listener sends them straight into
their tunnels; until then they take the hop."""
FORMER = 256
"""Pods that are gone and still known by key: Envoy reports their last connections up to a second later."""


class Configuration:
    """What one node's Envoy is told. `complete` says whether the node knows enough to open inbound listeners; `noted`
    writes down a pod's generations of names, `keep` a value for `kept` to read; both may raise AmbitError."""

    def __init__(
        self,
        view: MeshView,
        settings: NodeSettings,
        server: EnvoyServer,
        complete: Callable[[], bool],
        noted: Callable[[LocalPod], None] = lambda _: None,
        keep: Callable[[str, bytes], None] = lambda *_: None,
        kept: Callable[[str], bytes | None] = lambda _: None,
    ) -> None:
        self._view = view
        self._settings = settings
        self._server = server
        self._complete = complete
        self._noted = noted
        self._requests = Requests(partial(server.is_asked_for, ROUTES), keep, kept)
        self.read_ports = ReadPorts(keep, kept, READ)
        self.told_ports = ReadPorts(keep, kept, TOLD)
        self.turnover = Turnover(self._pods_by_key, self._change_generations, self._forget, self._renew)
        self._last_generation: dict[str, int] = {}
        """Of pods that left the mesh and may come back: Envoy does not ask again for their earlier names."""
        self._pods: dict[str, LocalPod] = {}
        self._former: deque[LocalPod] = deque(maxlen=FORMER)
        self._known = LocalPods()
        self._table = TrackedPods((), self.read_ports.all_unread, self.told_ports.all_unread)
        self._sent: dict[str, frozenset[tuple[str, str]]] = {}
        self.destinations = Destinations()
        self._dependencies = Dependencies()
        self.moves = Moves(view, settings, self._dependencies, self._answer_again)
        self._held = HeldAnswers(self._is_unknown, self._give_up)
        self._outdated: set[str] = set()
        self._touched: set[str] = set()
        self._batch: asyncio.Future[Publication] | None = None
        self._waiting: set[str] = set()

    @property
    def pods(self) -> Iterable[LocalPod]:
        return self._pods.values()

    @property
    def settings(self) -> NodeSettings:
        return self._settings

    @property
    def table(self) -> LocalPods:
        """The node's pods, immutable; the newest of those that are gone are found by key."""
        return self._known

    def reads(self, ports: Newly, publication: Publication) -> list[str]:
        """Envoy has answered a publication since which it is to read requests to these ports, and no longer to others
        of these pods: to pods of which it took all, clients are let in. The keys of the others: what else it refuses
        is not their business."""
        refused = self._refused(ports, publication)
        self._read(self.read_ports.settled(ports, publication, refused))
        return refused

    def tells(self, ports: Newly, publication: Publication) -> None:
        """As `reads`, of ports whose requests are read only to be told of."""
        self._read(self.told_ports.settled(ports, publication, self._refused(ports, publication)))

    def _refused(self, pods: Iterable[str], publication: Publication) -> list[str]:
        """Those of these pods of which Envoy did not take everything."""
        return sorted(key for key in pods if publication.refused & self._sent.get(key, frozenset()))

    def _read(self, changed: Iterable[str]) -> None:
        pods = [self._pods[key] for key in changed if key in self._pods]
        resources = [each for pod in pods for each in self._pod_resources(pod)]
        looked_for = frozenset[str]().union(*map(pod_keys, pods))
        self._publish([*resources, *self._answers(self._dependencies.on(looked_for))])

    def pods_reading(self, touched: Iterable[str]) -> list[LocalPod]:
        """Pods whose policies or records a change touched."""
        answers = self._dependencies.on(touched)
        return [self._pods[answer.name] for answer in sorted(answers) if answer.kind == "pod"]

    def begin(self) -> None:
        """Sends what every node has; call once, before Envoy starts."""
        self._publish(node_proxy.shared_resources())

    def add(self, pod: LocalPod) -> Publication:
        """A pod came, or a fact about it changed."""
        last = self._last_generation.pop(pod.key, 0)
        if last > pod.generations[-1]:
            pod = msgspec.structs.replace(pod, generations=(last,))
            with contextlib.suppress(AmbitError):
                self._noted(pod)
        self.destinations.resume(pod.key, pod.generations[:-1])
        self.turnover.resume(pod)
        self._pods[pod.key] = pod
        self._note_pods()
        for name in self.destinations.of(pod.key):
            self._look(name)
        resources = [*self._pod_resources(pod), *self._as_before(pod)]
        return self._publish([*resources, *self._answers(self._dependencies.on(pod_keys(pod)))])

    def _as_before(self, pod: LocalPod) -> list[PlannedResource]:
        """Answers that had listeners of their own in a former life of the agent; Envoy has these still."""
        found = []
        for name in self._requests.former(pod.key) if self._complete() else ():
            if self.destinations.note(pod.key, name):
                found.append(self._answer(name))
                self._requests.resume(name)
        return found

    def remove(self, key: str) -> Publication:
        """A pod's sandbox ends: its listeners, clusters and answers go; await the publication before the
        namespace goes."""
        touched, removed = self._without(key)
        gone, refused = self.destinations.drop(key)
        self._forget_answers(gone)
        removed |= {(CLUSTER, name) for name in gone | refused}
        self._last_generation.pop(key, None)
        self.turnover.left(key)
        return self._publish(self._answers(self._dependencies.on(touched)), removed)

    def release(self, key: str) -> Publication:
        """A pod leaves the mesh and goes on running: like `remove`, but its answers stay, as refusals,
        because Envoy does not ask again when the pod comes back."""
        pod = self._pods.get(key)
        if pod is not None:
            self._last_generation[key] = pod.generations[-1]
        touched, removed = self._without(key)
        return self._publish(self._answers(self._dependencies.on(touched)), removed)

    def _note_pods(self) -> None:
        self._known = LocalPods(self._pods.values(), self._former)
        self._table = TrackedPods(self._pods.values(), self.read_ports.all_unread, self.told_ports.all_unread)

    def _without(self, key: str) -> tuple[frozenset[str], set[tuple[str, str]]]:
        """What looked for this pod, and what is to be removed from Envoy."""
        pod = self._pods.pop(key, None)
        self.moves.drop(key)
        self.read_ports.forget(key)
        self.told_ports.forget(key)
        if pod is not None:
            workload = node_proxy.workload_of(pod, self._view, self._settings)
            self._former.append(msgspec.structs.replace(pod, workload=workload))
        self._note_pods()
        self._dependencies.forget(Answer("pod", key))
        touched = pod_keys(pod) if pod is not None else frozenset()
        return touched, set(self._sent.pop(key, frozenset()))

    def open(self) -> Publication:
        """The mesh became known completely: inbound listeners open, everything is computed from what is
        known now, and waiting questions are answered."""
        self._touched.clear()
        waiting, self._waiting = self._waiting, set()
        for answer in self._dependencies:
            if answer.kind == "share":
                self._look(answer.name)
        resources = [each for pod in self._pods.values() for each in self._pod_resources(pod)]
        resources += [self._answer(answer.name) for answer in self._dependencies if answer.kind == "cluster"]
        resources += self._answers_new(sorted(waiting))
        return self._publish(resources)

    async def changed(self, touched: Iterable[str]) -> Publication:
        """The mesh changed; the publication of what follows from it and from what came with it."""
        self._touched |= set(touched)
        if self._batch is None:
            loop = asyncio.get_running_loop()
            self._batch = loop.create_future()
            loop.call_soon(self._flush)
        return await asyncio.shield(self._batch)

    def _flush(self) -> None:
        batch, self._batch = self._batch, None
        touched, self._touched = self._touched, set()
        assert batch is not None
        try:
            affected = self._dependencies.on(touched) if self._complete() else ()
            batch.set_result(self._publish(self._answers(affected)))
        except (AmbitError, ValueError) as problem:
            batch.set_exception(problem)

    # Questions

    def asked(self, wanted: Iterable[str]) -> None:
        """Envoy asked for clusters that were not there."""
        if not self._complete():
            self._waiting.update(wanted)
            return
        found = self._answers_new(wanted)
        changed, removed = self._requests.take()
        if removed:
            self._publish((), removed)
        open_now = (each for each in found if not self._requests.waits(each.name))
        self._server.answer(map(framed, [*changed, *open_now]))

    def asked_for_tables(self, wanted: Iterable[str]) -> None:
        """Envoy asked for tables of requests: it has the listeners that need them."""
        found = self._requests.asked(wanted)
        tables, _ = self._requests.take()
        self._server.answer(map(framed, [*tables, *map(self._answer, found)]))

    def prepare(self, key: str, destinations: Iterable[tuple[Address, int]]) -> Publication | None:
        """The pod is about to connect to one of these, and should find its way into a tunnel prepared; None when
        there is nothing to do."""
        pod = self._pods.get(key)
        if pod is None or key in self.destinations.capped or not self._complete():
            return None
        generation = pod.generations[-1]
        found = [names.tunnelled(key, address, port, generation) for address, port in destinations]
        if not [name for name in found if not self.moves.has(name, key) and self._look(name)]:
            return None
        self._outdated.discard(key)
        return self._publish(self._outbound([key]))

    def _update_listeners(self) -> None:
        outdated, self._outdated = self._outdated, set()
        self._publish(self._outbound(outdated))

    # Answers

    def _answers_new(self, asked: Iterable[str]) -> list[PlannedResource]:
        """But for those that wait."""
        return [each for each in self._found(asked) if not self._held.hold(each.name)]

    def _is_unknown(self, name: str) -> bool:
        try:
            asked = names.parse_cluster(name)
        except ValueError:
            return False
        return isinstance(asked, names.Destination) and node_proxy.is_unknown(
            asked, self._view, self._settings
        )

    def _give_up(self, name: str) -> None:
        self._publish([self._answer(name)])

    def _found(self, asked: Iterable[str]) -> list[PlannedResource]:
        found: list[PlannedResource] = []
        for name in asked:
            pod = self._pods.get(names.pod_of(name) or "")
            generation = names.generation_of(name)
            if pod is None:
                found.append(self._answer(name))
            elif generation == pod.generations[-1]:
                found.append(self._answer_new(pod, name))
            elif self.destinations.note_former(pod.key, generation, name):
                found.append(self._answer(name))
        return found

    def _answer_new(self, pod: LocalPod, name: str) -> PlannedResource:
        if not self.destinations.has_room(pod.key, name, len(self._pods)):
            if self._begin_anew(pod):
                self.destinations.note_former(pod.key, pod.generations[-1], name)
                return self._answer(name)
            if self.destinations.refuse(pod.key, name):
                # From now on Envoy refuses new ones without a question, which would cost memory too.
                self._publish(self._pod_resources(self._pods[pod.key]))
            return node_proxy.destination(name, self._view, TrackedPods(()), self._settings)
        self.destinations.note(pod.key, name)
        if self._look(name):
            if not self._outdated:
                asyncio.get_running_loop().call_later(LISTENER_DELAY, self._update_listeners)
            self._outdated.add(pod.key)
        return self._answer(name)

    def _look(self, name: str) -> bool:
        """Looks at the destination's way again; whether its pod's listener changes."""
        return self.moves.look(name, self._table)

    # Generations of names

    def _begin_anew(self, pod: LocalPod) -> bool:
        """Gives the pod another generation of names. False when it may not have one now."""
        if not self.turnover.may_begin(pod):
            return False
        last = pod.generations[-1]
        pod = msgspec.structs.replace(pod, generations=(*pod.generations, last + 1))
        try:
            self._noted(pod)
        except AmbitError as problem:
            _log.error("pod %s cannot begin anew: %s", pod.key, problem.message)
            return False
        self.moves.begin_anew(pod.key)
        self.destinations.begin_anew(pod.key, last)
        self.turnover.begun(pod, self._change_generations(pod))
        return True

    def _renew(self, key: str) -> None:
        pod = self._pods.get(key)
        if pod is not None and key in self.destinations.capped:
            self._begin_anew(pod)

    def _change_generations(self, pod: LocalPod) -> Publication:
        self._pods[pod.key] = pod
        self._note_pods()
        with contextlib.suppress(AmbitError):
            self._noted(pod)
        return self._publish(self._pod_resources(pod))

    def _forget(self, key: str, generation: int) -> int:
        """Removes the clusters of a generation, for which nothing waits; how many there were."""
        former = self.destinations.forget(key, generation)
        if not former:
            return 0
        self._forget_answers(former)
        present = self._server.store.resources(CLUSTER).keys() & former
        self._publish((), [(CLUSTER, name) for name in present])
        self._server.refuse(CLUSTER, former - present)
        return len(former)

    def _forget_answers(self, gone: Iterable[str]) -> None:
        for name in gone:
            self._held.forget(name)
            self._dependencies.forget(Answer("cluster", name))
            self._requests.look(name, ())

    def _pods_by_key(self, key: str) -> LocalPod | None:
        return self._pods.get(key)

    def _answer(self, name: str) -> PlannedResource:
        view = TrackedView(self._view)
        self._table.read = set()
        resource = node_proxy.destination(
            name, view, self._table, self._settings, is_divided=self.moves.is_divided(name)
        )
        needed = (
            node_proxy.inline_resources(name, view, self._table, self._settings) if view.has_inline else ()
        )
        self._requests.look(name, needed)
        self._dependencies.record(Answer("cluster", name), view.read | self._table.read)
        return resource

    def _answers(self, answers: Iterable[Answer]) -> list[PlannedResource]:
        found: list[PlannedResource] = []
        by_kind: dict[str, list[str]] = {"share": [], "pod": [], "cluster": []}
        for answer in sorted(answers):
            by_kind[answer.kind].append(answer.name)
        moved = {names.pod_of(name) or "" for name in by_kind["share"] if self._look(name)}
        for key in by_kind["pod"]:
            found += self._pod_resources(self._pods[key])
        found += self._outbound(moved.difference(by_kind["pod"]))
        return [*found, *self._current(by_kind["cluster"])]

    def _current(self, answered: Iterable[str]) -> list[PlannedResource]:
        """Answers to what was answered before, but for those that wait until connections go elsewhere."""
        return [
            self._answer(name)
            for name in answered
            if not self.moves.is_overtaken(name, self._table) and not self._held.waits(name)
        ]

    def _answer_again(self, waited: frozenset[str]) -> None:
        present = sorted(self._server.store.resources(CLUSTER).keys() & waited)
        # The mesh may have changed again, and what follows from that not have been computed yet.
        pods = {name: names.pod_of(name) or "" for name in present}
        moved = {key for name, key in pods.items() if self.moves.has(name, key) and self._look(name)}
        self._publish([*self._outbound(moved), *self._current(present)])

    def _outbound(self, keys: Iterable[str]) -> list[PlannedResource]:
        """The outbound listeners of these pods, as far as they are here."""
        return [
            resource
            for key in sorted(keys)
            if key in self._pods
            for resource in node_proxy.outbound_resources(
                self._pods[key],
                self._view,
                self._settings,
                self.destinations.only(key),
                self.moves.shares(key),
            )
        ]

    def _pod_resources(self, pod: LocalPod) -> list[PlannedResource]:
        view = TrackedView(self._view)
        only, shares = self.destinations.only(pod.key), self.moves.shares(pod.key)
        self._table.read = set()
        if self._complete():
            self.read_ports.look(pod.key, node_proxy.read_ports(pod, view, self._settings))
            self.told_ports.look(pod.key, node_proxy.told_ports(pod, view, self._settings))
            unread = self.read_ports.unread(pod.key)
            sent = self._sent.get(pod.key, frozenset())
            resources = node_proxy.pod_resources(
                pod,
                view,
                self._settings,
                only,
                shares,
                unread,
                self.read_ports.left(pod.key),
                had_readers=(EXTENSION, names.policy_of_readers(pod.key)) in sent,
                readers=_readers(pod.key, sent),
                untold=self.told_ports.unread(pod.key),
                pods=self._table,
            )
        else:
            resources = node_proxy.outbound_resources(pod, view, self._settings, only, shares)
        self._dependencies.record(Answer("pod", pod.key), view.read | self._table.read)
        sent = frozenset((resource.type_url, resource.name) for resource in resources)
        self._sent[pod.key] = self._sent.get(pod.key, frozenset()) | sent
        return list(resources)

    def _publish(
        self, resources: Iterable[PlannedResource], removed: Iterable[tuple[str, str]] = ()
    ) -> Publication:
        resources = list(resources)
        sent = {(resource.type_url, resource.name) for resource in resources}
        moved = self.moves.carried(sent)
        # A share may be known before the batch that brings what else follows from the same change.
        forms = {form for name in moved for form in names.forms(name) if (CLUSTER, form) not in sent}
        resources += self._current(sorted(forms & self._server.store.resources(CLUSTER).keys()))
        overtaken = frozenset(name for name in moved if self.moves.is_overtaken(name, self._table))
        self.moves.over(moved)
        changed, gone = self._requests.take()
        resources = [*changed, *(each for each in resources if not self._requests.waits(each.name))]
        publication = self._server.publish(map(framed, _ordered(resources)), {*removed, *gone})
        self.read_ports.sent(publication)
        self.told_ports.sent(publication)
        self.moves.wait(overtaken, publication)
        return publication


def _ordered(resources: Iterable[PlannedResource]) -> list[PlannedResource]:
    """Clusters before what names them."""
    return sorted(resources, key=lambda each: each.type_url != CLUSTER)


def _readers(pod: str, sent: Iterable[tuple[str, str]]) -> frozenset[int]:
    """The ports of a pod for which Envoy was sent somebody who reads."""
    subject = names.pod_requests(pod)
    ports = (names.port_allowed(subject, name) for type_url, name in sent if type_url == EXTENSION)
    return frozenset(port for port in ports if port is not None)
