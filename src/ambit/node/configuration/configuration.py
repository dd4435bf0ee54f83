"""Keeps Envoy's configuration equal to what the node knows: pods, mesh state, certificates.

Rules:
1. A pod's inbound listeners exist only when both workload-API types were answered completely (design 6);
   until then questions for destinations wait too, because an unknown destination would pass in plain text.
2. Every question for a cluster gets an answer; an answer changes when what it read changes, and goes only
   with its pod.
3. A question for a secret is answered when there is a valid certificate, never with "removed".
4. Changes that arrive together are computed and sent together.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from ambit.core.address import Address
from ambit.core.errors import AmbitError
from ambit.core.identity import Identity
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.node.configuration.tracking import (
    Answer,
    Dependencies,
    TrackedPods,
    TrackedView,
    pod_keys,
)
from ambit.node.downstream.publication import Publication
from ambit.node.downstream.server import EnvoyServer
from ambit.node.upstream.csr import Certificate
from ambit.plan import node_proxy
from ambit.plan.values import CLUSTER, SECRET, LocalPod, LocalPods, NodeSettings, PlannedResource
from ambit.xds.frames import Resource

_log = logging.getLogger("ambit.configuration")
MAX_DESTINATIONS = 4096
"""Distinct destinations of one pod; a further one is refused, because Envoy never forgets a name."""
NODE_DESTINATIONS = 8_192
"""When all pods of the node together have so many (220 MiB in Envoy), each may have its share only."""
LEAST_SHARE = 32
FORMER = 256
"""Pods that are gone and still known by key: Envoy reports their last connections up to a second later."""
_ORDER = {CLUSTER: 0, SECRET: 2}
"""Clusters before listeners and extensions (1), certificates last: Envoy asks for those by itself."""


class Configuration:
    """What one node's Envoy is told. `complete` says whether the node knows enough to open inbound listeners."""

    def __init__(
        self,
        view: MeshView,
        settings: NodeSettings,
        server: EnvoyServer,
        complete: Callable[[], bool],
        certificate: Callable[[Identity], Certificate | None],
    ) -> None:
        self._view = view
        self._settings = settings
        self._server = server
        self._complete = complete
        self._certificate = certificate
        self._pods: dict[str, LocalPod] = {}
        self._former: deque[LocalPod] = deque(maxlen=FORMER)
        self._known = LocalPods()
        self._table = TrackedPods(())
        self._sent: dict[str, frozenset[tuple[str, str]]] = {}
        self._destinations: dict[str, set[str]] = {}
        self._refused: dict[str, set[str]] = {}
        self._dependencies = Dependencies()
        self._touched: set[str] = set()
        self._batch: asyncio.Future[Publication] | None = None
        self._bundle = ""
        self._waiting: set[str] = set()
        self.capped: set[str] = set()
        """Keys of pods that reached the limit of destinations."""

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

    @property
    def destinations(self) -> int:
        """How many destinations all pods have asked for."""
        return sum(len(known) for known in self._destinations.values())

    def pods_reading(self, touched: Iterable[str]) -> list[LocalPod]:
        """Pods whose policies or records a change touched."""
        answers = self._dependencies.on(touched)
        return [self._pods[answer.name] for answer in sorted(answers) if answer.kind == "pod"]

    def begin(self) -> None:
        """Sends what every node has; call once, before Envoy starts."""
        self._publish(node_proxy.shared_resources())

    def add(self, pod: LocalPod) -> Publication:
        """A pod came, or a fact about it changed."""
        self._pods[pod.key] = pod
        self._note_pods()
        resources = self._pod_resources(pod)
        return self._publish([*resources, *self._answers(self._dependencies.on(pod_keys(pod)))])

    def remove(self, key: str) -> Publication:
        """A pod's sandbox ends: its listeners, clusters and answers go; await the publication before the
        namespace goes."""
        touched, removed = self._without(key)
        for name in self._destinations.pop(key, set()):
            removed.add((CLUSTER, name))
            self._dependencies.forget(Answer("cluster", name))
        removed |= {(CLUSTER, name) for name in self._refused.pop(key, ())}
        self.capped.discard(key)
        return self._publish(self._answers(self._dependencies.on(touched)), removed)

    def release(self, key: str) -> Publication:
        """A pod leaves the mesh and goes on running: like `remove`, but its answers stay, as refusals,
        because Envoy does not ask again when the pod comes back."""
        touched, removed = self._without(key)
        return self._publish(self._answers(self._dependencies.on(touched)), removed)

    def _note_pods(self) -> None:
        self._known = LocalPods(self._pods.values(), self._former)
        self._table = TrackedPods(self._pods.values())

    def _without(self, key: str) -> tuple[frozenset[str], set[tuple[str, str]]]:
        """What looked for this pod, and what is to be removed from Envoy."""
        pod = self._pods.pop(key, None)
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
        resources = [each for pod in self._pods.values() for each in self._pod_resources(pod)]
        resources += [self._answer(answer.name) for answer in self._dependencies if answer.kind == "cluster"]
        resources += [self._answer_new(name) for name in sorted(waiting)]
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

    def asked(self, type_url: str, wanted: Iterable[str]) -> None:
        """Envoy asked for names that were not there."""
        found: list[PlannedResource] = []
        for name in wanted:
            if type_url == CLUSTER and not self._complete():
                self._waiting.add(name)
            elif type_url == CLUSTER:
                found.append(self._answer_new(name))
            elif type_url == SECRET:
                found += self._secret(name)
        self._server.answer(_ordered(found))

    def certified(self, certificate: Certificate) -> None:
        """There is a new certificate: it is sent under both names."""
        self._publish(self._secrets(certificate))

    def trusted(self, bundle: str) -> Publication:
        """Roots and revocation lists (PEM) by which peers are believed from now on."""
        if self._bundle == bundle:
            return self._publish(())
        self._bundle = bundle
        return self._publish([self._trust()])

    def secrets(self) -> Publication:
        """Certificates and trust as sent so far, to be awaited."""
        return self._server.latest(SECRET)

    def uncertified(self, identity: Identity) -> None:
        """No pod of this node has the identity any more: its key leaves Envoy."""
        self._publish((), [(SECRET, name) for name in node_proxy.required_secrets(identity)])

    def _secret(self, name: str) -> list[PlannedResource]:
        if name == names.TRUST:
            return [self._trust()] if self._bundle else []
        try:
            certificate = self._certificate(names.parse_secret(name))
        except ValueError:
            return []
        return self._secrets(certificate) if certificate is not None else []

    def _secrets(self, certificate: Certificate) -> list[PlannedResource]:
        return [
            node_proxy.secret(name, chain_pem=certificate.chain.decode(), key_pem=certificate.key.decode())
            for name in node_proxy.required_secrets(certificate.identity)
        ]

    def _trust(self) -> PlannedResource:
        return node_proxy.trust_bundle({self._settings.trust_domain: self._bundle})

    # Answers

    def _answer_new(self, name: str) -> PlannedResource:
        key = names.pod_of(name)
        if key is not None and key in self._pods:
            known = self._destinations.setdefault(key, set())
            if name not in known and (key in self.capped or len(known) >= self._allowed()):
                self._cap(key)
                self._refused.setdefault(key, set()).add(name)
                return node_proxy.destination(name, self._view, TrackedPods(()), self._settings)
            known.add(name)
        return self._answer(name)

    def _allowed(self) -> int:
        if self.destinations < NODE_DESTINATIONS:
            return MAX_DESTINATIONS
        return max(LEAST_SHARE, NODE_DESTINATIONS // len(self._pods))

    def _cap(self, key: str) -> None:
        """From now on Envoy refuses new destinations of this pod without a question, which would cost memory too."""
        if key not in self.capped:
            self.capped.add(key)
            known = len(self._destinations[key])
            _log.error("pod %s has %d destinations: no further one is served", key, known)
            self._server.answer(_ordered(self._pod_resources(self._pods[key])))

    def _only(self, key: str) -> list[tuple[Address, int]] | None:
        """The destinations that a capped pod may go on to use."""
        if key not in self.capped:
            return None
        asked = (names.parse_cluster(name) for name in self._destinations[key])
        return [(each.address, each.port) for each in asked if isinstance(each, names.Destination)]

    def _answer(self, name: str) -> PlannedResource:
        view = TrackedView(self._view)
        self._table.read = set()
        resource = node_proxy.destination(name, view, self._table, self._settings)
        self._dependencies.record(Answer("cluster", name), view.read | self._table.read)
        return resource

    def _answers(self, answers: Iterable[Answer]) -> list[PlannedResource]:
        found: list[PlannedResource] = []
        for answer in sorted(answers):
            if answer.kind == "pod":
                found += self._pod_resources(self._pods[answer.name])
            else:
                found.append(self._answer(answer.name))
        return found

    def _pod_resources(self, pod: LocalPod) -> list[PlannedResource]:
        view = TrackedView(self._view)
        if self._complete():
            resources = node_proxy.pod_resources(pod, view, self._settings, self._only(pod.key))
        else:
            resources = node_proxy.outbound_resources(pod, view, self._settings, self._only(pod.key))
        self._dependencies.record(Answer("pod", pod.key), view.read)
        sent = frozenset((resource.type_url, resource.name) for resource in resources)
        self._sent[pod.key] = self._sent.get(pod.key, frozenset()) | sent
        return list(resources)

    def _publish(
        self, resources: Iterable[PlannedResource], removed: Iterable[tuple[str, str]] = ()
    ) -> Publication:
        return self._server.publish(_ordered(resources), removed)


def _ordered(resources: Iterable[PlannedResource]) -> list[tuple[str, Resource]]:
    ordered = sorted(resources, key=lambda each: _ORDER.get(each.type_url, 1))
    return [
        (
            each.type_url,
            Resource(name=each.name, version=each.version, body=each.body, on_demand=each.on_demand),
        )
        for each in ordered
    ]
