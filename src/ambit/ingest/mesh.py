"""The compiler: API objects in, mesh model out, one batch at a time.

    services, serviceentries ──> targets ─┐   (namespaces: who may see a ServiceEntry)
    nodes ─> localities ──────────────────┼──> workloads
    pods, workloadentries ────────────────┘       ↑ names of policies
    authorizationpolicies, peerauthentications ──> authorizations, findings
    gateways, namespaces ──> proxies, waypoints of services and workloads (closed by policies for them)
    httproutes, grpcroutes, services ──> service routes

`MeshCompiler.apply` takes what changed since the last call and returns what that changed in the model. It
is pure computation: no clock, no I/O, never an exception for what an object says.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.graph.collection import Collection, Delta, Source, Statistics
from ambit.graph.engine import Failure, Graph
from ambit.ingest.binds import Binds
from ambit.ingest.gateway.compile import RouteSources, Waypoints, WaypointSources, compile_routes
from ambit.ingest.gateway.findings import findings_of
from ambit.ingest.istio.compile import IstioSources, compile_istio
from ambit.ingest.istio.entries import compile_entries, compile_workload_entries
from ambit.ingest.kube.compile import KubeSources, compile_kube
from ambit.ingest.owners import Owners
from ambit.ingest.preference import DISTRIBUTION_ANNOTATION
from ambit.ingest.settings import MeshSettings
from ambit.ingest.unenforced import Unenforced
from ambit.ingest.visibility import Visibilities
from ambit.model.policy import Authorization
from ambit.model.proxy import Proxy, ServiceRoutes
from ambit.model.service import Service
from ambit.model.status import Status
from ambit.model.workload import Workload
from ambit.objects.decoding import PROJECTIONS
from ambit.objects.kube import Namespace


class Change(msgspec.Struct, frozen=True):
    """One object that was added or modified (`value` is its projection), or deleted (`value` is None).

    `resource` is plural and group, a key of `PROJECTIONS`: `pods`, `authorizationpolicies.security.istio.io`.
    `key` is `<namespace>/<name>`, or `<name>` for a cluster-scoped object.
    """

    resource: str
    key: str
    value: Any = None


class MeshDelta(msgspec.Struct, frozen=True):
    """What one batch changed, by resource name in the workload API; findings and statuses by their object's text,
    proxies and tables of routes by their keys.

    Whoever sends it: new authorizations first, then services and workloads, then the authorizations that go.
    So no workload ever names an unknown policy, which would close it.
    """

    workloads: Delta[Workload] = Delta()
    services: Delta[Service] = Delta()
    authorizations: Delta[Authorization] = Delta()
    findings: Delta[tuple[Finding, ...]] = Delta()
    proxies: Delta[Proxy] = Delta()
    routes: Delta[ServiceRoutes] = Delta()
    statuses: Delta[Status] = Delta()

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__struct_fields__)


class MeshCompiler:
    """Keeps every object's projection and the model compiled from them. Single-threaded.

    `clock` returns seconds and serves `statistics` only.
    """

    def __init__(self, settings: MeshSettings, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.settings = settings
        self._graph = graph = Graph(clock)
        self._sources: dict[str, Source[Any]] = {
            resource: graph.source(resource, projection.type) for resource, projection in PROJECTIONS.items()
        }
        policies = compile_istio(
            graph,
            IstioSources(
                self._sources["authorizationpolicies.security.istio.io"],
                self._sources["peerauthentications.security.istio.io"],
            ),
            settings,
        )
        namespaces: Collection[Namespace] = self._sources["namespaces"]
        visibilities = Visibilities(namespaces, settings.entry_visibility)
        waypoints = Waypoints(graph, self._waypoint_sources(), visibilities, settings)
        unenforced = Unenforced(graph, self._sources["authorizationpolicies.security.istio.io"], settings)
        binds = unenforced.binds(Binds(waypoints.of_service, waypoints.of_entry, waypoints.of_workload))
        entries = compile_entries(
            graph,
            self._sources["serviceentries.networking.istio.io"],
            policies.attach,
            lambda context, name: _distribution(context.get(namespaces, name)),
            Owners(namespaces, self._sources["services"], self._sources["pods"], settings.cluster_domain),
            binds,
            visibilities,
            settings,
        )
        kube = compile_kube(
            graph,
            KubeSources(
                namespaces=namespaces,
                nodes=self._sources["nodes"],
                services=self._sources["services"],
                slices=self._sources["endpointslices.discovery.k8s.io"],
                pods=self._sources["pods"],
            ),
            entries.targets,
            policies.attach,
            binds,
            settings,
        )
        outside = compile_workload_entries(
            graph,
            self._sources["workloadentries.networking.istio.io"],
            kube.targets,
            policies.attach,
            binds,
            settings,
        )
        self._workloads = graph.join("mesh workloads", [kube.workloads, entries.workloads, outside])
        opened = graph.join("all services", [kube.services, entries.services])
        self._services = graph.derive("services with their waypoints", opened, unenforced.service)
        self._authorizations = policies.authorizations
        self._proxies = waypoints.proxies
        routes = compile_routes(graph, self._route_sources(), self._services, waypoints, settings)
        self._routes = routes.tables
        self._statuses = graph.join("all statuses", [waypoints.statuses, routes.statuses])
        about_status = graph.derive(
            "findings of statuses",
            self._statuses,
            lambda _, status: findings_of(status) or None,
            key=lambda findings: f"{findings[0].origin} (status)",
        )
        said: list[Collection[tuple[Finding, ...]]] = [policies.findings, entries.findings, about_status]
        self._findings = graph.join("all findings", said)

    @property
    def workloads(self) -> Mapping[str, Workload]:
        """All workloads by uid, as of the last `apply`."""
        return self._workloads.values()

    @property
    def services(self) -> Mapping[str, Service]:
        """All services by `<namespace>/<hostname>`, as of the last `apply`."""
        return self._services.values()

    @property
    def authorizations(self) -> Mapping[str, Authorization]:
        """All L4 policies by `<namespace>/<name>`, as of the last `apply`."""
        return self._authorizations.values()

    @property
    def proxies(self) -> Mapping[str, Proxy]:
        """All L7 proxies by `<namespace>/<name>` of their Gateways, as of the last `apply`."""
        return self._proxies.values()

    @property
    def routes(self) -> Mapping[str, ServiceRoutes]:
        """What waypoints do with requests to services, by `ServiceRoutes.key`, as of the last `apply`."""
        return self._routes.values()

    @property
    def statuses(self) -> Mapping[str, Status]:
        """What is to be said in the status of objects, by the text of the object, as of the last `apply`."""
        return self._statuses.values()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong with any object now, ordered; faults of the compiler itself included."""
        said = [finding for several in self._findings.values().values() for finding in several]
        return tuple(sorted((*said, *map(_fault, self._graph.failures.values()))))

    def apply(self, changes: Iterable[Change]) -> MeshDelta:
        """Compiles one batch. Raises KeyError for a resource that is not in `PROJECTIONS`."""
        for change in changes:
            source = self._sources[change.resource]
            if change.value is None:
                source.remove(change.key)
            else:
                source.put(change.key, change.value)
        self._graph.commit()
        return MeshDelta(
            workloads=self._workloads.delta(),
            services=self._services.delta(),
            authorizations=self._authorizations.delta(),
            findings=self._findings.delta(),
            proxies=self._proxies.delta(),
            routes=self._routes.delta(),
            statuses=self._statuses.delta(),
        )

    def keys(self, resource: str) -> list[str]:
        """Keys of the objects held of one resource: what a fresh list must be compared with."""
        return list(self._sources[resource])

    def _waypoint_sources(self) -> WaypointSources:
        given = self._sources
        return WaypointSources(
            classes=given["gatewayclasses.gateway.networking.k8s.io"],
            gateways=given["gateways.gateway.networking.k8s.io"],
            namespaces=given["namespaces"],
            services=given["services"],
            pods=given["pods"],
            entries=given["serviceentries.networking.istio.io"],
            workload_entries=given["workloadentries.networking.istio.io"],
        )

    def _route_sources(self) -> RouteSources:
        given = self._sources
        return RouteSources(
            http=given["httproutes.gateway.networking.k8s.io"],
            grpc=given["grpcroutes.gateway.networking.k8s.io"],
            grants=given["referencegrants.gateway.networking.k8s.io"],
            services=given["services"],
        )

    def statistics(self) -> tuple[Statistics, ...]:
        return self._graph.statistics()


def _distribution(namespace: Namespace | None) -> str:
    return namespace.metadata.annotations.get(DISTRIBUTION_ANNOTATION, "") if namespace else ""


def _fault(failure: Failure) -> Finding:
    namespace, _, name = failure.key.rpartition("/")
    projection = PROJECTIONS.get(failure.source)
    return Finding(
        "AMB0001",
        Level.ERROR,
        ObjectRef(projection.kind if projection else failure.source, namespace, name),
        "",
        f"{failure.collection} could not be made of it ({failure.text}); its former result stays in force",
    )
