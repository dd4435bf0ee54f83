"""The Gateway API's part of the graph.

gatewayclasses, gateways ──> gateways ──> proxies, statuses
namespaces ──> wishes ─┬─> binding of services and workloads (asked for by their own part of the graph)
gateways ──────────────┘
routes of all kinds, referencegrants, all services ──> attached routes ──> service routes, statuses
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from ambit.core.names import USE_WAYPOINT_LABEL
from ambit.graph.collection import Collection, Index
from ambit.graph.engine import Context, Derived, Graph
from ambit.ingest.gateway.attachment import KINDS, CompiledRoute, Frontend, Route, attach
from ambit.ingest.gateway.binding import Binding, Traffic, Wish, bind, lets_past, wish
from ambit.ingest.gateway.canary import Canary, asked_by, canary
from ambit.ingest.gateway.compile_edge import Edges
from ambit.ingest.gateway.compile_foreign import ForeignWaypoints
from ambit.ingest.gateway.conditions import version
from ambit.ingest.gateway.consumers import concerns
from ambit.ingest.gateway.edge import Front, gateway_of
from ambit.ingest.gateway.gateways import (
    CompiledGateway,
    class_status,
    compiled_waypoint,
    gateway_status,
    waypoint_kind,
)
from ambit.ingest.gateway.parameters import ParameterMaps
from ambit.ingest.gateway.route_shares import within_shares
from ambit.ingest.gateway.table import compile_tables
from ambit.ingest.settings import MeshSettings
from ambit.ingest.visibility import VISIBILITY_APPLIED, Visibilities
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes
from ambit.model.service import Service, Visibility
from ambit.model.status import Condition, ObjectStatus, Status
from ambit.model.streams import Datagrams, datagrams_key
from ambit.model.workload import GatewayAddress, Workload
from ambit.objects import gateway, kube, networking, routes, stream_routes
from ambit.objects.meta import ObjectMeta

_UNBOUND = Binding()


class WaypointSources(msgspec.Struct, frozen=True):
    classes: Collection[gateway.GatewayClass]
    gateways: Collection[gateway.Gateway]
    namespaces: Collection[kube.Namespace]
    services: Collection[kube.Service]
    pods: Collection[kube.Pod]
    entries: Collection[networking.ServiceEntry]
    workload_entries: Collection[networking.WorkloadEntry]


class RouteSources(msgspec.Struct, frozen=True):
    http: Collection[routes.HTTPRoute]
    grpc: Collection[routes.GRPCRoute]
    tls: Collection[stream_routes.TLSRoute]
    tcp: Collection[stream_routes.TCPRoute]
    udp: Collection[stream_routes.UDPRoute]
    grants: Collection[gateway.ReferenceGrant]
    services: Collection[kube.Service]
    datagrams: Collection[Datagrams]


class _Bound(Protocol):
    """What a waypoint can be bound to."""

    @property
    def metadata(self) -> ObjectMeta: ...


class Waypoints:
    """Gateways of waypoint classes, and what is bound to them. Proxies are keyed `<namespace>/<name>`, statuses by the
    text of their object."""

    def __init__(
        self,
        graph: Graph,
        sources: WaypointSources,
        parameters: ParameterMaps,
        visibilities: Visibilities,
        others: ForeignWaypoints,
        settings: MeshSettings,
    ) -> None:
        self.others = others
        self._sources = sources
        self._parameters = parameters
        self._visibilities = visibilities
        self._settings = settings
        self._gateways: Derived[gateway.Gateway, CompiledGateway] = graph.derive(
            "gateways compiled", sources.gateways, self._compiled
        )
        self.proxies: Collection[Proxy] = graph.derive(
            "proxies", self._gateways, lambda context, compiled: compiled.proxy
        )
        self._wishes = graph.derive(
            "waypoint wishes",
            sources.namespaces,
            lambda context, given: wish(given.metadata.labels, given.metadata.name, is_own=False),
        )
        self._lenient: Collection[bool] = graph.derive(
            "namespaces that fail open",
            sources.namespaces,
            lambda _, given: lets_past(given.metadata.labels) or None,
        )
        self._pods = sources.pods.index(gateway_of)
        self.statuses: Collection[Status] = graph.join(
            "gateway statuses",
            [
                graph.derive("statuses of gateways", sources.gateways, self._gateway_status, key=text_of),
                graph.derive(
                    "statuses of classes", sources.classes, lambda _, given: class_status(given), key=text_of
                ),
                *(
                    graph.derive(
                        f"bindings of {source.name}", source, self._binding_status(kind, traffic), key=text_of
                    )
                    for source, kind, traffic in (
                        (sources.services, "Service", Traffic.SERVICE),
                        (sources.workload_entries, "WorkloadEntry", Traffic.WORKLOAD),
                    )
                ),
                graph.derive("statuses of entries", sources.entries, self._entry_status, key=text_of),
            ],
        )

    def bind(
        self,
        context: Context,
        labels: Mapping[str, str],
        namespace: str,
        traffic: Traffic,
        *,
        confined: bool = False,
    ) -> Binding:
        """The waypoint of an object with these labels; `confined`: only one of its own namespace."""
        if USE_WAYPOINT_LABEL not in labels and self.wish(context, namespace) is None:
            return _UNBOUND  # nearly all of them
        known = _Namespaces(context, self)
        return bind(labels, namespace, traffic, known, self._settings, confined=confined)

    def of_service(
        self, context: Context, namespace: str, labels: Mapping[str, str]
    ) -> GatewayAddress | None:
        """The waypoint of a service with these labels."""
        return self.bind(context, labels, namespace, Traffic.SERVICE).waypoint

    def of_entry(self, context: Context, namespace: str, labels: Mapping[str, str]) -> GatewayAddress | None:
        """The waypoint of a ServiceEntry with these labels."""
        return self._of_entry(context, namespace, labels).waypoint

    def of_workload(
        self, context: Context, namespace: str, labels: Mapping[str, str]
    ) -> GatewayAddress | None:
        """The waypoint of a workload with these labels."""
        return self.bind(context, labels, namespace, Traffic.WORKLOAD).waypoint

    def canary(self, context: Context, own: ObjectMeta, *, confined: bool = False) -> Canary | None:
        """What is said about the canary of a Service or ServiceEntry that is bound to a waypoint."""
        namespace = context.get(self._sources.namespaces, own.namespace)
        asked = asked_by(own, namespace.metadata if namespace is not None else None)
        primary = wish(own.labels, own.namespace) or self.wish(context, own.namespace)
        if asked is None or primary is None:
            return None
        known = _Namespaces(context, self)
        return canary(asked, primary, own.namespace, known, self._settings, confined=confined)

    def canary_of(self, context: Context, bound: Service) -> Canary | None:
        """The same of a compiled service."""
        key = f"{bound.namespace}/{bound.name}"
        if bound.is_kubernetes:
            service = context.get(self._sources.services, key)
            return self.canary(context, service.metadata) if service is not None else None
        entry = context.get(self._sources.entries, key)
        confined = self._is_confined(context, bound.namespace)
        return self.canary(context, entry.metadata, confined=confined) if entry is not None else None

    def wish(self, context: Context, namespace: str) -> Wish | None:
        """What a namespace asks for."""
        return context.get(self._wishes, namespace)

    def labels(self, context: Context, namespace: str) -> dict[str, str]:
        """A namespace's labels."""
        given = context.get(self._sources.namespaces, namespace)
        return given.metadata.labels if given is not None else {}

    def waypoint(self, context: Context, key: str) -> CompiledGateway | None:
        """A Gateway of a waypoint class, accepted or not, or somebody else's waypoint."""
        found = context.get(self._gateways, key)
        if found is None and (foreign := self.others.named(context, key)) is not None:
            return CompiledGateway(None, foreign.admissions, foreign=foreign)
        return found

    def is_own(self, context: Context, key: str) -> bool:
        """Whether a Gateway is of a waypoint class."""
        return context.get(self._gateways, key) is not None

    def is_ready(self, context: Context, key: str) -> bool:
        """Whether a pod of a Gateway is; one without pods always is."""
        compiled = self.waypoint(context, key)
        if compiled is not None and compiled.proxy is not None and compiled.proxy.kind is ProxyKind.INLINE:
            return True
        return any(pod.ready and not pod.terminating for pod in context.lookup(self._pods, key))

    def lets_past(self, context: Context, bound: Service | Workload) -> bool:
        """Whether the labels of a Service or Pod, else of its namespace, let connections past a waypoint that cannot
        be used."""
        key = f"{bound.namespace}/{bound.name}"
        given: _Bound | None = None
        if isinstance(bound, Workload):
            given = context.get(self._sources.pods, key) if bound.is_pod else None
        elif bound.is_kubernetes:
            given = context.get(self._sources.services, key)
        else:
            given = context.get(self._sources.entries, key)
        of_namespace = self.namespace_lets_past(context, bound.namespace)
        return lets_past(given.metadata.labels if given else {}, of_namespace)

    def namespace_lets_past(self, context: Context, namespace: str) -> bool:
        """Whether a namespace does."""
        found: bool | None = context.get(self._lenient, namespace)
        return found is not None

    def _class(self, context: Context, given: gateway.Gateway) -> gateway.GatewayClass | None:
        return context.get(self._sources.classes, given.spec.gateway_class_name)

    def _compiled(self, context: Context, given: gateway.Gateway) -> CompiledGateway | None:
        of_class = self._class(context, given)
        kind = waypoint_kind(given.spec.gateway_class_name, of_class)
        if kind is None:
            return None
        compiled = compiled_waypoint(given, of_class, kind, self._settings)
        return self._parameters.applied(context, given, compiled)

    def _gateway_status(self, context: Context, given: gateway.Gateway) -> Status | None:
        key = given.metadata.key
        compiled = context.get(self._gateways, key)
        if compiled is None:
            return None
        service = context.get(self._sources.services, key)
        addresses = service.addresses if service else ()
        return gateway_status(
            given, compiled, compiled.listeners, addresses, is_ready=self.is_ready(context, key)
        )

    def _of_entry(self, context: Context, namespace: str, labels: Mapping[str, str]) -> Binding:
        confined = self._is_confined(context, namespace)
        return self.bind(context, labels, namespace, Traffic.SERVICE, confined=confined)

    def _is_confined(self, context: Context, namespace: str) -> bool:
        return self._visibilities.allowed(context, namespace) is Visibility.NAMESPACE

    def _condition(
        self, context: Context, meta: ObjectMeta, bound: Condition | None, *, confined: bool = False
    ) -> Condition | None:
        """What is said of a binding: what is wrong with its canary, when nothing else is."""
        if bound is None or not bound.holds:
            return bound
        found = self.canary(context, meta, confined=confined)
        return found.problem if found is not None and found.problem is not None else bound

    def _entry_status(self, context: Context, given: networking.ServiceEntry) -> Status | None:
        """Said also to take a condition back that is there and holds no more: the settings may be gone."""
        meta = given.metadata
        bound = self._of_entry(context, meta.namespace, meta.labels).condition
        bound = self._condition(context, meta, bound, confined=self._is_confined(context, meta.namespace))
        visible = self._visibilities.condition(context, given)
        said = tuple(each for each in (bound, visible) if each is not None)
        is_stale = visible is None and any(
            each.type == VISIBILITY_APPLIED for each in given.status.conditions
        )
        return ObjectStatus(version(meta, "ServiceEntry"), said) if said or is_stale else None

    def _binding_status(self, kind: str, traffic: Traffic) -> Callable[[Context, _Bound], Status | None]:
        def status(context: Context, given: _Bound) -> Status | None:
            meta = given.metadata
            condition = self.bind(context, meta.labels, meta.namespace, traffic).condition
            if traffic is Traffic.SERVICE:
                condition = self._condition(context, meta, condition)
            return ObjectStatus(version(meta, kind), (condition,)) if condition is not None else None

        return status


class RouteCollections(msgspec.Struct, frozen=True):
    """Tables by `ServiceRoutes.key`, statuses by the text of their object."""

    tables: Collection[ServiceRoutes]
    statuses: Collection[Status]
    compiled: tuple[Collection[CompiledRoute], ...]


def compile_routes(
    graph: Graph,
    sources: RouteSources,
    services: Collection[Service],
    waypoints: Waypoints,
    edges: Edges,
    settings: MeshSettings,
) -> RouteCollections:
    """Adds the collections of routes to a graph. `services` are those of all kinds."""
    # Of its own, so that other endpoints make no route anew.
    udp: Collection[bool] = graph.derive("udp ports", sources.datagrams, lambda _, __: True)
    known = _Index(sources, services, udp, waypoints, edges, settings)
    compiled = within_shares(graph, _compile_kinds(graph, sources, known, settings))
    return RouteCollections(
        tables=compile_tables(graph, services, compiled),
        statuses=graph.join(
            "route statuses",
            [
                graph.derive(f"statuses of {each.name}", each, lambda _, route: _status(route), key=text_of)
                for each in compiled
            ],
        ),
        compiled=tuple(compiled),
    )


def _compile_kinds(
    graph: Graph, sources: RouteSources, known: "_Index", settings: MeshSettings
) -> list[Collection[CompiledRoute]]:
    """The routes of each kind, attached. A kind knows where those have attached that go before it."""
    of_kind: dict[type[Route], Collection[Any]] = {
        routes.GRPCRoute: sources.grpc,
        routes.HTTPRoute: sources.http,
        stream_routes.TLSRoute: sources.tls,
        stream_routes.TCPRoute: sources.tcp,
        stream_routes.UDPRoute: sources.udp,
    }

    def attached(context: Context, given: Route) -> CompiledRoute:
        return attach(given, _Parents(context, known), _Known(context, known), settings)

    compiled: list[Collection[CompiledRoute]] = []
    for kind in KINDS:
        collection = graph.derive(f"{kind.__name__} compiled", of_kind[kind], attached)
        known.by_kind[kind.__name__] = collection.index(_services_of)
        compiled.append(collection)
    return compiled


def text_of(status: Status) -> str:
    """Under what a status is kept."""
    return str(status.version.origin)


def _status(route: CompiledRoute) -> Status | None:
    return route.status


def _services_of(route: CompiledRoute) -> list[str]:
    return [each.service for each in route.attachments]


class _Namespaces:
    """What `bind` asks, read through a context."""

    def __init__(self, context: Context, waypoints: Waypoints) -> None:
        self._context = context
        self._waypoints = waypoints

    def wish(self, namespace: str) -> Wish | None:
        return self._waypoints.wish(self._context, namespace)

    def lets_past(self, namespace: str) -> bool:
        return self._waypoints.namespace_lets_past(self._context, namespace)

    def labels(self, namespace: str) -> dict[str, str]:
        return self._waypoints.labels(self._context, namespace)

    def waypoint(self, key: str) -> CompiledGateway | None:
        return self._waypoints.waypoint(self._context, key)

    def is_ready(self, key: str) -> bool:
        return self._waypoints.is_ready(self._context, key)


class _Index:
    """What routes can name, by what they name it."""

    def __init__(
        self,
        sources: RouteSources,
        services: Collection[Service],
        udp: Collection[bool],
        waypoints: Waypoints,
        edges: Edges,
        settings: MeshSettings,
    ) -> None:
        self.sources = sources
        self.services = services
        self.udp = udp
        self.waypoints = waypoints
        self.edges = edges
        self.settings = settings
        self.by_host = services.index(lambda each: [each.hostname])
        self.by_entry = services.index(
            lambda each: [] if each.is_kubernetes else [f"{each.namespace}/{each.name}"]
        )
        self.grants = sources.grants.index(lambda each: [each.metadata.namespace])
        self.by_kind: dict[str, Index[CompiledRoute]] = {}
        """Compiled routes by service, of each kind, in the order in which kinds go before each other."""


class _Known:
    """What `resolve` asks, read through a context."""

    def __init__(self, context: Context, index: _Index) -> None:
        self._context = context
        self._index = index

    def service(self, key: str) -> Service | None:
        return self._context.get(self._index.services, key)

    def has_datagrams(self, key: str, port: int) -> bool:
        return self._context.get(self._index.udp, datagrams_key(key, port)) is not None

    def hosts(self, hostname: str) -> list[Service]:
        return self._context.lookup(self._index.by_host, hostname)

    def grants(self, namespace: str) -> list[gateway.ReferenceGrant]:
        return self._context.lookup(self._index.grants, namespace)


class _Parents:
    """What `attach` asks, read through a context."""

    def __init__(self, context: Context, index: _Index) -> None:
        self._context = context
        self._index = index

    def of_service(self, namespace: str, name: str) -> Frontend | None:
        key = f"{namespace}/{self._index.settings.hostname(name, namespace)}"
        service = self._context.get(self._index.services, key)
        given = self._context.get(self._index.sources.services, f"{namespace}/{name}")
        if service is None or given is None:
            return None
        names = {port.name: port.port for port in given.spec.ports or () if port.name}
        return Frontend(service, names, given.headless)

    def of_entry(self, namespace: str, name: str) -> list[Frontend]:
        found = self._context.lookup(self._index.by_entry, f"{namespace}/{name}")
        return [Frontend(each) for each in found]

    def is_waypoint(self, namespace: str, name: str) -> bool:
        return self._index.waypoints.is_own(self._context, f"{namespace}/{name}")

    def is_foreign(self, service: Service) -> bool:
        return self._index.waypoints.others.at(self._context, service.waypoint) is not None

    def is_inline(self, service: Service) -> bool:
        name = service.waypoint.hostname.partition(".")[0] if service.waypoint is not None else ""
        key = f"{service.waypoint.namespace}/{name}" if service.waypoint is not None else ""
        found = self._index.waypoints.waypoint(self._context, key)
        return found is not None and found.proxy is not None and found.proxy.kind is ProxyKind.INLINE

    def taken(self, kind: str, service: str, port: int, consumer: str) -> str:
        for before, index in self._index.by_kind.items():
            if before == kind:
                return ""
            for route in self._context.lookup(index, service):
                if any(
                    each.service == service and port in each.ports and concerns(each.consumer, consumer)
                    for each in route.attachments
                ):
                    return before
        return ""

    def edge(self, namespace: str, name: str) -> Front | None:
        return self._index.edges.front(self._context, f"{namespace}/{name}")

    def edge_of_set(self, namespace: str, name: str) -> Front | None:
        return self._index.edges.front_of_set(self._context, f"{namespace}/{name}")

    def labels(self, namespace: str) -> dict[str, str]:
        return self._index.edges.labels(self._context, namespace)
