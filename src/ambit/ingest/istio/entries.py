"""The part of the graph about what is no pod: ServiceEntries, WorkloadEntries, and what is wrong with them.

serviceentries, namespaces ──> entries ──> services, targets, workloads of their endpoints, findings
workloadentries ──────────────> workloads   (behind every service that selects them)
"""

from collections.abc import Callable, Mapping

import msgspec

from ambit.core.finding import Finding, Level
from ambit.graph.collection import Collection, Index
from ambit.graph.engine import Context, Graph
from ambit.ingest.binds import Binds
from ambit.ingest.istio.allocation import holder_of
from ambit.ingest.istio.endpoint import ENTRY, WORKLOAD, entry_workload, parts, ports_of, problem
from ambit.ingest.istio.service_entry import DYNAMIC, CompiledEntry, Host, service_entry
from ambit.ingest.own_addresses import OwnAddresses
from ambit.ingest.owners import Owners, normal
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targets import ServiceTarget, chosen
from ambit.ingest.visibility import Visibilities
from ambit.model.service import Service, Visibility
from ambit.model.workload import Workload
from ambit.objects.networking import ServiceEntry, WorkloadEntry

Attach = Callable[[Context, str, Mapping[str, str]], tuple[str, ...]]
Distribution = Callable[[Context, str], str]
"""What a namespace wishes for the traffic distribution of its services; reads through the context."""


class EntryCollections(msgspec.Struct, frozen=True):
    """Services by `<namespace>/<host>`, workloads by uid, findings by their object."""

    services: Collection[Service]
    targets: Collection[ServiceTarget]
    workloads: Collection[Workload]
    findings: Collection[tuple[Finding, ...]]


class WorkloadCollections(msgspec.Struct, frozen=True):
    """Workloads by uid, findings by their object."""

    workloads: Collection[Workload]
    findings: Collection[tuple[Finding, ...]]


def compile_entries(
    graph: Graph,
    source: Collection[ServiceEntry],
    attach: Attach,
    distribution: Distribution,
    owners: Owners,
    binds: Binds,
    visibilities: Visibilities,
    own: OwnAddresses,
    settings: MeshSettings,
) -> EntryCollections:
    """Adds the collections of ServiceEntries to a graph."""
    by_host = source.index(lambda given: given.spec.hosts)
    by_address = source.index(_claimed)

    def rivals(
        context: Context, index: Index[ServiceEntry], entry: str, namespace: str
    ) -> list[ServiceEntry]:
        return [
            each
            for each in context.lookup(index, entry)
            if (seen := visibilities.of_entry(context, each)) is Visibility.PUBLIC
            or (seen is not None and each.metadata.namespace == namespace)
        ]

    compiled = graph.derive(
        "service entries",
        source,
        lambda context, given: service_entry(
            given,
            [rivals(context, by_host, host, given.metadata.namespace) for host in given.spec.hosts],
            [
                each
                for address in _claimed(given)
                for each in rivals(context, by_address, address, given.metadata.namespace)
            ],
            _Owned(context, owners, by_address, given.metadata.namespace),
            distribution(context, given.metadata.namespace),
            binds.entry(context, given.metadata.namespace, given.metadata.labels),
            visibilities.allowed(context, given.metadata.namespace),
            settings,
            own.server_names(context) if given.spec.resolution == DYNAMIC else None,
        ),
    )

    def workloads(context: Context, entry: CompiledEntry) -> Mapping[str, Workload]:
        namespace, _, name = context.key.partition("/")
        made: dict[str, Workload] = {}
        for host in entry.hosts:
            for part, given in parts(host.endpoints):
                policies = attach(context, namespace, given.labels)
                services = {host.target.key: ports_of(given, host.target)}
                found = entry_workload(
                    ENTRY, (namespace, name, part), given, given.labels, services, policies, settings
                )
                earlier = made.get(found.uid)
                joined = {**(earlier.services if earlier else {}), **services}
                made[found.uid] = msgspec.structs.replace(found, services=joined)
        return made

    return EntryCollections(
        services=graph.derive_many(
            "entry services",
            compiled,
            lambda context, entry: {each.service.key: each.service for each in entry.hosts},
        ),
        targets=graph.derive_many("entry targets", compiled, lambda context, entry: _targets(entry.hosts)),
        workloads=graph.derive_many("entry workloads", compiled, workloads),
        findings=graph.derive(
            "entry findings",
            compiled,
            lambda context, entry: entry.findings or None,
            key=lambda findings: str(findings[0].origin),
        ),
    )


def compile_workload_entries(
    graph: Graph,
    source: Collection[WorkloadEntry],
    targets: Index[ServiceTarget],
    attach: Attach,
    binds: Binds,
    settings: MeshSettings,
) -> WorkloadCollections:
    """Adds the workloads of WorkloadEntries to a graph; `targets` has the services of all kinds that select."""

    def workload(context: Context, given: WorkloadEntry) -> Workload | None:
        meta = given.metadata
        if problem(given.spec, names=True):
            return None
        labels = {**meta.labels, **given.spec.labels}
        services = {
            target.key: ports_of(given.spec, target)
            for target in chosen(context, targets, meta.namespace, labels)
        }
        policies = attach(context, meta.namespace, labels)
        place = (meta.namespace, meta.name, "")
        made = entry_workload(WORKLOAD, place, given.spec, labels, services, policies, settings)
        waypoint = binds.workload(context, meta.namespace, meta.labels)
        return msgspec.structs.replace(made, waypoint=waypoint)

    def findings(_: Context, given: WorkloadEntry) -> tuple[Finding, ...] | None:
        text = problem(given.spec, names=True)
        origin = given.metadata.reference(WORKLOAD)
        return (Finding("AMB0304", Level.WARNING, origin, "spec.address", text),) if text else None

    return WorkloadCollections(
        workloads=graph.derive("workload entries", source, workload, key=lambda made: made.uid),
        findings=graph.derive(
            "findings of workload entries",
            source,
            findings,
            key=lambda said: str(said[0].origin),
        ),
    )


class _Owned:
    """What an entry of a namespace must leave to others."""

    def __init__(
        self, context: Context, owners: Owners, entries: Index[ServiceEntry], namespace: str
    ) -> None:
        self._context = context
        self._owners = owners
        self._entries = entries
        self._namespace = namespace

    def of_address(self, address: str) -> str:
        owner = self._owners.of_address(self._context, normal(address))
        return "" if owner is None else str(owner)

    def of_written(self, address: str) -> str:
        """As `of_address`, of an address in a spec."""
        exact = normal(address)
        given = None if "/" in exact else holder_of(exact, self._context.lookup(self._entries, exact))
        return self.of_address(address) or ("" if given is None else str(given.metadata.reference(ENTRY)))

    def of_host(self, host: str) -> str:
        return self._owners.of_host(self._context, host, self._namespace)


def _claimed(given: ServiceEntry) -> set[str]:
    """Addresses and ranges that an entry has."""
    return {
        normal(each) for each in (*given.spec.addresses, *(each.value for each in given.status.addresses))
    }


def _targets(hosts: tuple[Host, ...]) -> Mapping[str, ServiceTarget]:
    """Under names that no Service's target has, which is filed by namespace and name."""
    return {f"{ENTRY}/{host.target.key}": host.target for host in hosts if host.target.selector}
