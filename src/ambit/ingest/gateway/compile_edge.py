"""The part of the graph about gateways at the edge.

gatewayclasses, gateways, listenersets ──> edge gateways ──> proxies
edge gateways, attached routes ──> routes of listeners, statuses
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ambit.graph.collection import Collection, Index
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.attachment import CompiledRoute
from ambit.ingest.gateway.edge import EdgeGateway, compiled_edge, gateway_of, is_edge_class, label_value
from ambit.ingest.gateway.gateways import gateway_status, listener_set_status
from ambit.ingest.gateway.listener_table import listener_routes
from ambit.ingest.gateway.listeners import Admission, EdgeListener
from ambit.ingest.gateway.parameters import ParameterMaps
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import GatewayCertificates, ListenerRoutes, Proxy
from ambit.model.status import GatewayStatus, ListenerStatus, Status
from ambit.objects import gateway, kube


class EdgeSources(msgspec.Struct, frozen=True):
    classes: Collection[gateway.GatewayClass]
    gateways: Collection[gateway.Gateway]
    sets: Collection[gateway.ListenerSet]
    namespaces: Collection[kube.Namespace]
    services: Collection[kube.Service]
    pods: Collection[kube.Pod]
    secrets: Collection[kube.Secret]
    configmaps: Collection[kube.ConfigMap]
    grants: Collection[gateway.ReferenceGrant]


class EdgeRoutes(msgspec.Struct, frozen=True):
    """Tables by `ListenerRoutes.key`, statuses of Gateways and ListenerSets by the text of their object."""

    tables: Collection[ListenerRoutes]
    statuses: Collection[Status]


class _Counts(msgspec.Struct, frozen=True):
    """How many routes each listener of a gateway has. Made once: many sets ask for it."""

    routes: dict[str, int]

    def told(self, listener: EdgeListener) -> ListenerStatus:
        return msgspec.structs.replace(listener.status, attached=self.routes.get(listener.id, 0))


class Edges:
    """Gateways of classes at the edge. Proxies are keyed `<namespace>/<name>`."""

    def __init__(
        self, graph: Graph, sources: EdgeSources, parameters: ParameterMaps, settings: MeshSettings
    ) -> None:
        self._sources = sources
        self._parameters = parameters
        self._settings = settings
        self._grants = sources.grants.index(lambda each: [each.metadata.namespace])
        self._sets = sources.sets.index(lambda each: [each.gateway] if each.gateway else [])
        self._gateways = graph.derive("edge gateways", sources.gateways, self._compiled)
        self._pods = sources.pods.index(gateway_of)
        self.proxies: Collection[Proxy] = graph.derive(
            "edge proxies", self._gateways, lambda _, compiled: compiled.proxy
        )
        self.certificates: Collection[GatewayCertificates] = graph.derive(
            "gateway certificates", self._gateways, lambda _, compiled: compiled.certificates
        )

    def find(self, context: Context, key: str) -> EdgeGateway | None:
        """A Gateway at the edge, accepted or not."""
        return context.get(self._gateways, key)

    def of_set(self, context: Context, key: str) -> EdgeGateway | None:
        """The Gateway at the edge that a ListenerSet names, whether or not it allows the set."""
        given = context.get(self._sources.sets, key)
        return self.find(context, given.gateway) if given is not None and given.gateway else None

    def labels(self, context: Context, namespace: str) -> dict[str, str]:
        """A namespace's labels."""
        given = context.get(self._sources.namespaces, namespace)
        return given.metadata.labels if given is not None else {}

    def routed(self, graph: Graph, routes: Sequence[Collection[CompiledRoute]]) -> EdgeRoutes:
        """What the routes come to that are attached to listeners."""
        indices = [each.index(_gateways_of) for each in routes]

        def tables(context: Context, given: gateway.Gateway) -> dict[str, ListenerRoutes]:
            compiled = self.find(context, given.metadata.key)
            if compiled is None:
                return {}
            return listener_routes(compiled, _attached(context, indices, compiled.key))

        def counts(context: Context, given: EdgeGateway) -> _Counts:
            return _count(given.key, _attached(context, indices, given.key))

        counted = graph.derive("routes on listeners", self._gateways, counts)

        def status(context: Context, given: gateway.Gateway) -> Status | None:
            compiled = self.find(context, given.metadata.key)
            count = context.get(counted, given.metadata.key)
            if compiled is None or count is None:
                return None
            return self._status(context, given, compiled, count)

        def set_status(context: Context, given: gateway.ListenerSet) -> Status | None:
            compiled = self.find(context, given.gateway) if given.gateway else None
            of_gateway = context.get(self._sources.gateways, given.gateway)
            own = (
                next((each for each in compiled.sets if each.key == given.metadata.key), None)
                if compiled
                else None
            )
            count = context.get(counted, given.gateway)
            if compiled is None or own is None or of_gateway is None or count is None:
                return None
            said = self._status(context, of_gateway, compiled, count)
            listeners = [count.told(each) for each in own.listeners]
            return listener_set_status(given, own, said, listeners)

        of_gateways: Collection[Status] = graph.derive(
            "statuses of edge gateways", self._sources.gateways, status, key=_text_of
        )
        of_sets: Collection[Status] = graph.derive(
            "statuses of listener sets", self._sources.sets, set_status, key=_text_of
        )
        return EdgeRoutes(
            tables=graph.derive_many("listener routes", self._sources.gateways, tables),
            statuses=graph.join("statuses at the edge", [of_gateways, of_sets]),
        )

    def _compiled(self, context: Context, given: gateway.Gateway) -> EdgeGateway | None:
        of_class = context.get(self._sources.classes, given.spec.gateway_class_name)
        if not is_edge_class(given.spec.gateway_class_name, of_class):
            return None
        known = _Secrets(context, self._sources, self._grants)
        sets = [
            (each, self._allows(context, given, each))
            for each in context.lookup(self._sets, given.metadata.key)
        ]
        return self._parameters.applied(context, given, compiled_edge(given, known, self._settings, sets))

    def _allows(self, context: Context, given: gateway.Gateway, one: gateway.ListenerSet) -> bool:
        allowed = given.spec.allowed_listeners.namespaces
        namespace = one.metadata.namespace
        labels = self.labels(context, namespace) if allowed.sources == "Selector" else {}
        return Admission(allowed.sources, allowed.selector).admits(
            given.metadata.namespace, namespace, labels
        )

    def _status(
        self, context: Context, given: gateway.Gateway, compiled: EdgeGateway, count: _Counts
    ) -> GatewayStatus:
        addresses: tuple[str, ...] = ()
        is_ready = False
        if compiled.proxy is not None:
            account = compiled.proxy.identity.service_account
            service = context.get(self._sources.services, f"{given.metadata.namespace}/{account}")
            addresses = service.outer_addresses if service is not None else ()
            label = f"{given.metadata.namespace}/{label_value(given.metadata.name)}"
            is_ready = any(pod.ready and not pod.terminating for pod in context.lookup(self._pods, label))
        listeners = [count.told(each) for each in compiled.listeners]
        return gateway_status(given, compiled, listeners, addresses, is_ready=is_ready)


class _Secrets:
    """What `resolve` asks, read through a context."""

    def __init__(self, context: Context, sources: EdgeSources, grants: Index[gateway.ReferenceGrant]) -> None:
        self._context = context
        self._sources = sources
        self._grants = grants

    def secret(self, key: str) -> kube.Secret | None:
        return self._context.get(self._sources.secrets, key)

    def roots(self, key: str) -> str | None:
        found = self._context.get(self._sources.configmaps, key)
        return found.roots if found is not None else None

    def grants(self, namespace: str) -> list[gateway.ReferenceGrant]:
        return self._context.lookup(self._grants, namespace)


def _count(key: str, attached: Iterable[CompiledRoute]) -> _Counts:
    """Of the gateway `key`; a route counts once on a listener."""
    found: Counter[str] = Counter()
    for route in attached:
        found.update({each.listener for each in route.listeners if each.gateway == key})
    return _Counts(dict(found))


def _text_of(status: Status) -> str:
    return str(status.version.origin)


def _attached(context: Context, indices: Sequence[Index[CompiledRoute]], key: str) -> Iterator[CompiledRoute]:
    for index in indices:
        yield from context.lookup(index, key)


def _gateways_of(route: CompiledRoute) -> list[str]:
    return list(dict.fromkeys(each.gateway for each in route.listeners))
