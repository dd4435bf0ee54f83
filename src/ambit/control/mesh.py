"""From watched objects to published resources: informers, the compiler, batches of what comes while it is busy.

A change is compiled at once when nothing else is to be done. After a batch comes a pause of twice what the batch has
cost, with the writing to every node, so that many changes become few batches and the loop has time for its streams.
What is more than one batch is shared out by namespace (`ambit.control.pending_changes`), with a pause of half of the
cost between batches.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ambit.control.discovery import Update
from ambit.control.metrics import Counters
from ambit.control.pending_changes import PendingChanges
from ambit.control.settings import Settings
from ambit.core.finding import Finding
from ambit.daemon.logs import event
from ambit.ingest.mesh import Change, MeshCompiler, MeshDelta
from ambit.ingest.settings import MeshSettings
from ambit.kube.client import Client
from ambit.kube.informer import EventKind, Informer
from ambit.kube.resource import Resource as Kind
from ambit.model.jwt import KeySource, sources_of
from ambit.model.policy import Action, Authorization, Rule
from ambit.model.proxy import Proxy
from ambit.model.service import Service
from ambit.objects.decoding import PROJECTIONS, Projection
from ambit.xds.frames import Resource
from ambit.xds.messages import ADDRESS_TYPE, AUTHORIZATION_TYPE, Value, to_resource

log = logging.getLogger("ambit.control.mesh")

BATCHES = "ambit_compile_batches_total"
CHANGES = "ambit_compile_changes_total"
SECONDS = "ambit_compile_seconds_total"
PAUSE_SHARE, PAUSE_BETWEEN, PAUSE_MOST = 2.0, 0.5, 0.1
"""The pause after a batch: what the batch has cost times this (the second while more changes wait), but at most so
many seconds."""


class MeshFeed:
    """Watches everything the compiler reads. Before `start` nothing is published."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        counters: Counters,
    ) -> None:
        self.informers: dict[str, Informer[Any]] = {
            name: _informer(client, projection) for name, projection in PROJECTIONS.items()
        }
        self._compiler = MeshCompiler(
            MeshSettings(
                trust_domain=settings.trust_domain,
                cluster_id=settings.cluster_id,
                root_namespace=settings.root_namespace,
                system_namespace=settings.system_namespace,
                network=settings.network,
                cluster_domain=settings.cluster_domain,
                trust_domain_aliases=settings.trust_domain_aliases,
                entry_visibility=settings.entry_visibility,
                logs=settings.logs,
                authorizers=settings.authorizers,
                tracing=settings.tracing,
                trusted_proxies=settings.trusted_proxies,
                patches=settings.patches,
                server_names=settings.by_server_name,
            )
        )
        self._publish: Callable[[Sequence[Update]], None] = lambda _: None
        self._compiled: Callable[[Sequence[Change], MeshDelta], None] = lambda *_: None
        self._at_once: Callable[[MeshDelta], MeshDelta] = lambda delta: delta
        self._counters = counters
        self.failed: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        """Gets the exception of a batch that could not be compiled; nothing is right after that."""
        self.keyed: Callable[[Service], Service] = lambda service: service
        """Gives a service the keys of tokens that were fetched."""
        self._pending = PendingChanges()
        self._started = False
        self._next: asyncio.Handle | None = None
        """The batch to come, or the end of the pause after the last one."""
        counters.declare(BATCHES, "Batches of object changes compiled.")
        counters.declare(CHANGES, "Object changes compiled.")
        counters.declare(SECONDS, "Seconds spent to compile and publish changes.")
        for name, informer in self.informers.items():
            informer.subscribe(self._collector(name))

    def publish_to(
        self,
        publish: Callable[[Sequence[Update]], None],
        compiled: Callable[[Sequence[Change], MeshDelta], None],
        at_once: Callable[[MeshDelta], MeshDelta] = lambda delta: delta,
    ) -> None:
        """Who gets what each batch changed: nodes first, of `at_once`, then whoever writes about it."""
        self._at_once = at_once
        self._publish = publish
        self._compiled = compiled

    async def start(self) -> None:
        """Wait until everything was seen once, compile it and publish it. The informers must run beside this."""
        for informer in self.informers.values():
            await informer.wait_synced()
        self._started = True
        self._flush(self._pending.take_all())

    def has_compiled(self, resources: Collection[str]) -> bool:
        """Whether all objects of these resources are compiled and published as they were seen last."""
        return self._started and not self._pending.has_any(resources)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with any object now."""
        return self._compiler.findings

    @property
    def authorizations(self) -> Mapping[str, Authorization]:
        """All compiled policies."""
        return self._compiler.authorizations

    @property
    def proxies(self) -> Mapping[str, Proxy]:
        """All L7 proxies."""
        return self._compiler.proxies

    @property
    def undecodable(self) -> dict[str, str]:
        """Objects whose newest version could not be read: their former version stays in force."""
        return {
            f"{name} {'/'.join(filter(None, key))}": str(problem)
            for name, informer in self.informers.items()
            for key, problem in informer.undecodable.items()
        }

    @property
    def refused(self) -> dict[str, str]:
        """Kinds that the API server does not show us now, and why: what was last seen of them stays in force."""
        return {name: each.refusal for name, each in self.informers.items() if each.refusal}

    @property
    def verifies_at_pods(self) -> bool:
        """Whether nodes verify tokens by keys that are fetched."""
        services = self._compiler.services.values()
        return any(each.rules is not None and sources_of(each.rules.tokens) for each in services)

    def rekeyed(self, sources: Collection[KeySource]) -> None:
        """Other keys of tokens were fetched from these: services by whose rules nodes verify tokens go out anew."""
        found = {
            key: self.keyed(service)
            for key, service in self._compiler.services.items()
            if service.rules is not None and not sources_of(service.rules.tokens).isdisjoint(sources)
        }
        if found and self._started:
            self._publish([Update(ADDRESS_TYPE, _resources(found), ())])

    def _collector(self, name: str) -> Callable[[EventKind, Any, Any], None]:
        def collect(kind: EventKind, old: Any, new: Any) -> None:
            metadata = (new if new is not None else old).metadata
            self._pending.add(Change(name, metadata.key, new if kind != "deleted" else None))
            if self._started and self._next is None:
                self._next = asyncio.get_running_loop().call_soon(self._go_on)

        return collect

    def _flush(self, changes: list[Change]) -> None:
        """A batch that fails ends the process: its changes would be missing for ever."""
        began = time.monotonic()
        try:
            self._compile(changes)
        except Exception as error:
            if not self.failed.done():
                self.failed.set_exception(error)
            raise
        self._pending.note_cost(time.monotonic() - began)
        # What was published woke a writer for each node: they have all had their turn when this comes.
        self._next = asyncio.get_running_loop().call_soon(self._pause, began)

    def _pause(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        cost = time.monotonic() - began
        share = PAUSE_BETWEEN if self._pending else PAUSE_SHARE
        self._next = loop.call_later(min(PAUSE_MOST, share * cost), self._go_on)

    def _go_on(self) -> None:
        self._next = None
        if self._pending:
            self._flush(self._pending.take_slice())

    def _compile(self, changes: list[Change]) -> None:
        begin = time.perf_counter()
        delta = self._compiler.apply(changes)
        updates = updates_of(self._at_once(delta), self.keyed)
        if updates:
            self._publish(updates)
        self._compiled(changes, delta)
        spent = time.perf_counter() - begin
        self._counters.count(BATCHES)
        self._counters.count(CHANGES, len(changes))
        self._counters.count(SECONDS, spent)
        event(log, logging.DEBUG, "compiled", changes=len(changes), seconds=f"{spent:.4f}")


def updates_of(
    delta: MeshDelta, keyed: Callable[[Service], Service] = lambda service: service
) -> list[Update]:
    """What a compiled batch changes for nodes: new policies, then services and workloads together, then the
    policies that go. A workload that names an unknown policy is closed, so names go before what they name. `keyed`
    gives a service the keys of tokens that were fetched."""
    updates = []
    policies = delta.authorizations
    if policies.upserts:
        updates.append(Update(AUTHORIZATION_TYPE, _resources(policies.upserts), ()))
    services, workloads = delta.services, delta.workloads
    if services or workloads:
        found = {key: keyed(each) for key, each in services.upserts.items()}
        changed = _resources(found) | _resources(workloads.upserts)
        updates.append(Update(ADDRESS_TYPE, changed, (*services.removals, *workloads.removals)))
    if policies.removals:
        updates.append(Update(AUTHORIZATION_TYPE, {}, policies.removals))
    return updates


def _resources(values: Mapping[str, Value]) -> dict[str, Resource]:
    """What cannot be said on the wire keeps its former form; a policy becomes one that denies."""
    resources: dict[str, Resource] = {}
    for value in values.values():
        try:
            resource = to_resource(value)
        except (ValueError, TypeError, OverflowError) as error:
            event(log, logging.ERROR, "cannot be sent to nodes", name=value.key, reason=error)
            if not isinstance(value, Authorization):
                continue
            resource = to_resource(
                Authorization(value.name, value.namespace, value.scope, Action.DENY, rules=(Rule(),))
            )
        resources[resource.name] = resource
    return resources


def _informer(client: Client, projection: Projection) -> Informer[Any]:
    kind = Kind(
        projection.group,
        projection.version,
        projection.plural,
        projection.kind,
        projection.namespaced,
    )
    return Informer(client, kind, projection.decode, field_selector=projection.field_selector or None)
