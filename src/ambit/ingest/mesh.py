"""The compiler: API objects in, mesh model out, one batch at a time.

    services, serviceentries ──> targets ─┐   (namespaces: who may see a ServiceEntry)
    nodes ─> localities ──────────────────┼──> workloads
    pods, workloadentries ────────────────┘       ↑ names of policies
    authorizationpolicies, peerauthentications ──> authorizations, findings
    authorizationpolicies, requestauthentications, gateways ──> policies for requests, rules about tokens, findings
    telemetries ──> what is told of requests, findings
    gateways, namespaces ──> proxies, waypoints of services and workloads (closed by policies for them)
    routes of all kinds, services, gateways ──> service routes, listener routes
    service routes, rules, services ──> services with an inline waypoint (their pods closed where nobody enforces)

`MeshCompiler.apply` takes what changed since the last call and returns what that changed in the model. It
is pure computation: no clock, no I/O, never an exception for what an object says.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.graph.collection import Collection, Delta, Source, Statistics
from ambit.graph.engine import Failure, Graph
from ambit.ingest import reading
from ambit.ingest.asked import Providers
from ambit.ingest.binds import Binds
from ambit.ingest.findings.circles import Circles
from ambit.ingest.findings.past_waypoints import past_waypoints
from ambit.ingest.findings.untold import untold
from ambit.ingest.findings.ways_around import WaysAround
from ambit.ingest.gateway.backend_tls import BackendPolicies
from ambit.ingest.gateway.backend_traffic import TrafficPolicies
from ambit.ingest.gateway.compile import Waypoints, compile_routes
from ambit.ingest.gateway.compile_edge import Edges
from ambit.ingest.gateway.compile_foreign import ForeignWaypoints
from ambit.ingest.gateway.findings import findings_of
from ambit.ingest.gateway.missing_parents import missing_parents
from ambit.ingest.gateway.parameters import ParameterMaps
from ambit.ingest.gateway_pods import GatewayPods
from ambit.ingest.istio.compile import compile_istio
from ambit.ingest.istio.entries import compile_entries, compile_workload_entries
from ambit.ingest.kube.compile import compile_kube
from ambit.ingest.kube.datagrams import compile_datagrams
from ambit.ingest.own_addresses import OwnAddresses
from ambit.ingest.owners import Owners
from ambit.ingest.pod_addresses import PodAddresses
from ambit.ingest.preference import DISTRIBUTION_ANNOTATION
from ambit.ingest.settings import MeshSettings
from ambit.ingest.statuses.left_out import LeftOut
from ambit.ingest.statuses.policy_statuses import policy_statuses
from ambit.ingest.statuses.policy_targets import Served, token_statuses
from ambit.ingest.statuses.telemetry_statuses import telemetry_statuses
from ambit.ingest.visibility import Visibilities
from ambit.ingest.waypoints.canaries import Canaries
from ambit.ingest.waypoints.ingress import Ingress
from ambit.ingest.waypoints.inline import Inline
from ambit.ingest.waypoints.only_by_waypoint import OnlyByWaypoint
from ambit.ingest.waypoints.read_at_pods import ReadAtPods
from ambit.ingest.waypoints.unenforced import Unenforced
from ambit.model.jwt import TokenPolicy
from ambit.model.policy import Authorization
from ambit.model.proxy import GatewayCertificates, ListenerRoutes, Proxy, ServiceRoutes
from ambit.model.request_policy import RequestPolicy
from ambit.model.service import Service
from ambit.model.status import Status
from ambit.model.streams import Datagrams
from ambit.model.telemetry import TelemetryPolicy
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
    listener_routes: Delta[ListenerRoutes] = Delta()
    certificates: Delta[GatewayCertificates] = Delta()
    datagrams: Delta[Datagrams] = Delta()
    request_policies: Delta[RequestPolicy] = Delta()
    statuses: Delta[Status] = Delta()
    tokens: Delta[TokenPolicy] = Delta()
    telemetry: Delta[TelemetryPolicy] = Delta()

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
        edge_pods = GatewayPods(
            graph,
            self._sources["gateways.gateway.networking.k8s.io"],
            self._sources["gatewayclasses.gateway.networking.k8s.io"],
            settings.root_namespace,
        )
        policies = compile_istio(graph, reading.istio(self._sources), edge_pods, settings)
        namespaces: Collection[Namespace] = self._sources["namespaces"]
        visibilities = Visibilities(namespaces, settings.entry_visibility)
        parameters = ParameterMaps(self._sources["configmaps"], settings)
        sources = reading.waypoints(self._sources)
        others = ForeignWaypoints(
            graph, sources.gateways, sources.classes, sources.services, sources.pods, settings
        )
        waypoints = Waypoints(graph, sources, parameters, visibilities, others, settings)
        self._request_policies = graph.derive(
            "policies for requests",
            policies.requests,
            lambda _, compiled: compiled.policy,
            key=lambda policy: policy.key,
        )
        unenforced = Unenforced(self._request_policies, waypoints.lets_past, others.at)
        binds = Binds(waypoints.of_service, waypoints.of_entry, waypoints.of_workload, others.handed)
        owners = Owners(namespaces, self._sources["services"], self._sources["pods"], settings.cluster_domain)
        entries = compile_entries(
            graph,
            self._sources["serviceentries.networking.istio.io"],
            policies.attach,
            lambda context, name: _distribution(context.get(namespaces, name)),
            owners,
            binds,
            visibilities,
            OwnAddresses(
                graph,
                self._sources["nodes"],
                self._sources["services"],
                self._sources["endpointslices.discovery.k8s.io"],
                self._sources["pods"],
                settings.server_names,
            ),
            settings,
        )
        pod_addresses = PodAddresses(graph, self._sources["pods"], self._sources["nodes"], owners, settings)
        kube = compile_kube(
            graph,
            reading.kube(self._sources),
            entries.targets,
            policies.attach,
            binds,
            pod_addresses,
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
        workloads = graph.join("all workloads", [kube.workloads, entries.workloads, outside.workloads])
        opened = graph.join("all services", [kube.services, entries.services])
        providers = Providers(opened, settings)
        self._asking = graph.derive(
            "policies for requests with whom they ask", self._request_policies, providers.asking
        )
        canaries = Canaries(waypoints, settings)
        ingress = Ingress(
            namespaces, self._sources["services"], self._sources["serviceentries.networking.istio.io"]
        )
        backend_policies = BackendPolicies(graph, reading.backend_policies(self._sources))
        traffic_policies = TrafficPolicies(
            graph, self._sources["xbackendtrafficpolicies.gateway.networking.x-k8s.io"]
        )
        secured = graph.derive(
            "services as policies have them called",
            opened,
            lambda context, given: traffic_policies.service(
                context, backend_policies.service(context, given)
            ),
        )
        bound = graph.derive(
            "services with their waypoints",
            secured,
            lambda context, given: canaries.service(
                context, ingress.service(context, unenforced.service(context, given))
            ),
        )
        self._tokens = policies.tokens
        self._telemetry = policies.telemetry
        edges = Edges(graph, reading.edges(self._sources), parameters, settings)
        self._proxies = graph.join("all proxies", [waypoints.proxies, edges.proxies])
        self._datagrams = compile_datagrams(
            graph, self._sources["services"], self._sources["endpointslices.discovery.k8s.io"], settings
        )
        routes = compile_routes(
            graph, reading.routes(self._sources, self._datagrams), secured, waypoints, edges, settings
        )
        inline = Inline(
            graph,
            namespaces,
            bound,
            waypoints.proxies,
            routes.tables,
            policies.tokens,
            self._asking,
            policies.telemetry,
        )
        self._services = graph.derive("services with inline routes", bound, inline.service)
        only = OnlyByWaypoint(
            graph,
            self._sources["authorizationpolicies.security.istio.io"],
            self._services,
            routes.tables,
            waypoints.lets_past,
            others.at,
            settings,
        )
        at_pods = ReadAtPods(graph, self._services)
        self._workloads = graph.derive(
            "workloads behind waypoints",
            workloads,
            lambda context, given: at_pods.workload(context, only.workload(context, given)),
        )
        self._authorizations = graph.join(
            "all authorizations",
            [
                policies.authorizations,
                graph.derive_many("only by waypoints", self._workloads, only.authorizations),
                graph.derive_many("read at pods", self._workloads, at_pods.authorizations),
            ],
        )
        self._closed = graph.derive(
            "services that nobody could serve inline", bound, inline.why_closed, key=lambda found: found[0]
        )
        self._routes = routes.tables
        at_edge = edges.routed(graph, routes.compiled)
        self._listener_routes = at_edge.tables
        self._certificates = edges.certificates
        served = Served(graph, self._proxies, bound, inline)
        nobody_told = untold(graph, policies.telemetry, opened, settings)
        about_telemetry = telemetry_statuses(
            graph,
            self._sources["telemetries.telemetry.istio.io"],
            policies.telemetry,
            policies.findings,
            nobody_told,
            served,
        )
        about_tokens = token_statuses(
            graph,
            self._sources["requestauthentications.security.istio.io"],
            policies.tokens,
            policies.findings,
            served,
        )
        left_out = LeftOut(entries.services, entries.findings)
        about_requests, elsewhere = policy_statuses(
            graph,
            self._sources["authorizationpolicies.security.istio.io"],
            policies.requests,
            opened,
            self._proxies,
            sources.classes,
            others,
            inline,
            providers,
            left_out,
        )
        about_policies = backend_policies.statuses(bound, routes.compiled)
        about_traffic = traffic_policies.statuses(self._services, routes.compiled)
        statuses: list[Collection[Status]] = [
            graph.derive("statuses with what is left out", waypoints.statuses, left_out.status),
            routes.statuses,
            at_edge.statuses,
            about_tokens,
            about_telemetry,
            about_policies,
            about_traffic,
            about_requests,
        ]
        self._statuses = graph.join("all statuses", statuses)
        about_status = graph.derive(
            "findings of statuses",
            self._statuses,
            lambda _, status: findings_of(status) or None,
            key=lambda findings: f"{findings[0].origin} (status)",
        )
        said: list[Collection[tuple[Finding, ...]]] = [
            policies.findings,
            entries.findings,
            outside.findings,
            about_status,
            elsewhere,
            nobody_told,
            pod_addresses.findings,
            missing_parents(graph, reading.parents(self._sources)),
            graph.derive(
                "findings of services that nobody could serve inline",
                bound,
                inline.finding,
                key=lambda found: f"{found[0].origin} {found[0].text} (closed)",
            ),
            past_waypoints(graph, routes.compiled, bound, self._proxies, ingress),
            Circles(
                graph, routes.compiled, bound, workloads, self._datagrams, self._proxies, routes.tables
            ).findings,
            WaysAround(
                graph,
                only,
                self._services,
                workloads,
                routes.tables,
                self._sources["pods"],
                waypoints.lets_past,
            ).findings,
        ]
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
    def closed(self) -> Mapping[str, str]:
        """Why nobody reaches services with an inline waypoint, by their keys, as of the last `apply`."""
        return dict(self._closed.values().values())

    @property
    def authorizations(self) -> Mapping[str, Authorization]:
        """All L4 policies by `<namespace>/<name>`, as of the last `apply`."""
        return self._authorizations.values()

    @property
    def tokens(self) -> Mapping[str, TokenPolicy]:
        """All rules about tokens by `<namespace>/<name>`, as of the last `apply`."""
        return self._tokens.values()

    @property
    def telemetry(self) -> Mapping[str, TelemetryPolicy]:
        """What L7 proxies are to tell of requests, by `<namespace>/<name>`, as of the last `apply`."""
        return self._telemetry.values()

    @property
    def proxies(self) -> Mapping[str, Proxy]:
        """All L7 proxies by `<namespace>/<name>` of their Gateways, as of the last `apply`."""
        return self._proxies.values()

    @property
    def routes(self) -> Mapping[str, ServiceRoutes]:
        """What waypoints do with requests to services, by `ServiceRoutes.key`, as of the last `apply`."""
        return self._routes.values()

    @property
    def listener_routes(self) -> Mapping[str, ListenerRoutes]:
        """What gateways do with what comes to their listeners, by `ListenerRoutes.key`, as of the last `apply`."""
        return self._listener_routes.values()

    @property
    def certificates(self) -> Mapping[str, GatewayCertificates]:
        """What gateways show their clients, by their keys, as of the last `apply`. Private keys are among it."""
        return self._certificates.values()

    @property
    def datagrams(self) -> Mapping[str, Datagrams]:
        """UDP ports of services and what is behind them, by `Datagrams.key`, as of the last `apply`."""
        return self._datagrams.values()

    @property
    def request_policies(self) -> Mapping[str, RequestPolicy]:
        """All policies for requests by `<namespace>/<name>`, as of the last `apply`."""
        return self._asking.values()

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
            listener_routes=self._listener_routes.delta(),
            certificates=self._certificates.delta(),
            datagrams=self._datagrams.delta(),
            request_policies=self._asking.delta(),
            statuses=self._statuses.delta(),
            tokens=self._tokens.delta(),
            telemetry=self._telemetry.delta(),
        )

    def keys(self, resource: str) -> list[str]:
        """Keys of the objects held of one resource: what a fresh list must be compared with."""
        return list(self._sources[resource])

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
