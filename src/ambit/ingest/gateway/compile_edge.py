"""The part of the graph about gateways at the edge.

secrets that are named ──> key pairs ─┐
gatewayclasses, gateways, listenersets ──> edge gateways ──> proxies
edge gateways, attached routes ──> routes of listeners, statuses
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ambit.graph.collection import Collection, Index
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.attachment import CompiledRoute
from ambit.ingest.gateway.edge import (
    EdgeGateway,
    EdgeSet,
    Front,
    compiled_edge,
    gateway_of,
    is_edge_class,
    label_value,
)
from ambit.ingest.gateway.gateways import gateway_status, listener_set_status
from ambit.ingest.gateway.key_pairs import ReadSecret, read
from ambit.ingest.gateway.listener_table import listener_routes
from ambit.ingest.gateway.listeners import Admission, EdgeListener
from ambit.ingest.gateway.parameters import ParameterMaps
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import GatewayCertificates, ListenerRoutes, Proxy
from ambit.model.status import Condition, GatewayStatus, ListenerStatus, Status
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
    """How many routes each listener of a Gateway, or of a ListenerSet, has."""

    routes: dict[str, int] = {}

    def told(self, listener: EdgeListener) -> ListenerStatus:
        return msgspec.structs.replace(listener.status, attached=self.routes.get(listener.id, 0))


class _Said(msgspec.Struct, frozen=True):
    """Of a Gateway as a whole."""

    conditions: tuple[Condition, ...]


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
        self._secrets = _read_secrets(graph, sources)
        self._gateways = graph.derive("edge gateways", sources.gateways, self._compiled)
        # Of their own, so that one set that changes makes neither the others' routes and statuses anew nor looks for
        # itself among thousands.
        self._fronts: Collection[Front] = graph.derive(
            "fronts of edge gateways", self._gateways, lambda _, each: Front(each.key, each.listeners)
        )
        self._at_gateways: Collection[EdgeSet] = graph.derive_many(
            "sets of edge gateways",
            self._gateways,
            lambda _, compiled: {each.key: each for each in compiled.sets},
        )
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

    def front(self, context: Context, key: str) -> Front | None:
        """A Gateway at the edge, accepted or not."""
        return context.get(self._fronts, key)

    def front_of_set(self, context: Context, key: str) -> Front | None:
        """A ListenerSet that names a Gateway at the edge, whether or not it is allowed there."""
        own = context.get(self._at_gateways, key)
        given = context.get(self._sources.sets, key)
        return Front(given.gateway, own.listeners) if own is not None and given is not None else None

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

        def counts(context: Context, given: EdgeGateway) -> dict[str, _Counts]:
            return _count(given.key, _attached(context, indices, given.key))

        counted = graph.derive_many("routes on listeners", self._gateways, counts)

        def status(context: Context, given: gateway.Gateway) -> GatewayStatus | None:
            compiled = self.find(context, given.metadata.key)
            count = context.get(counted, _place(given.metadata.key)) or _Counts()
            return self._status(context, given, compiled, count) if compiled is not None else None

        told: Collection[GatewayStatus] = graph.derive("told by gateways", self._sources.gateways, status)
        said = graph.derive("conditions of gateways", told, lambda _, given: _Said(given.conditions))

        def set_status(context: Context, given: gateway.ListenerSet) -> Status | None:
            own = context.get(self._at_gateways, given.metadata.key)
            of_gateway = context.get(said, given.gateway)
            if own is None or of_gateway is None:
                return None
            count = context.get(counted, _place(given.gateway, own.key)) or _Counts()
            listeners = [count.told(each) for each in own.listeners]
            return listener_set_status(given, own, of_gateway.conditions, listeners)

        of_gateways: Collection[Status] = graph.derive(
            "statuses of edge gateways", told, lambda _, given: given, key=_text_of
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
        known = _Secrets(context, self._sources, self._secrets, self._grants)
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

    def __init__(
        self,
        context: Context,
        sources: EdgeSources,
        secrets: Collection[ReadSecret],
        grants: Index[gateway.ReferenceGrant],
    ) -> None:
        self._context = context
        self._sources = sources
        self._secrets = secrets
        self._grants = grants

    def secret(self, key: str) -> ReadSecret | None:
        return self._context.get(self._secrets, key)

    def roots(self, key: str) -> str | None:
        found = self._context.get(self._sources.configmaps, key)
        return found.roots if found is not None else None

    def grants(self, namespace: str) -> list[gateway.ReferenceGrant]:
        return self._context.lookup(self._grants, namespace)


def _read_secrets(graph: Graph, sources: EdgeSources) -> Collection[ReadSecret]:
    """Those that a Gateway or ListenerSet names, each read when it changes. Of others nothing is known."""
    by_gateway = sources.gateways.index(_secrets_of_gateway)
    by_set = sources.sets.index(lambda each: _secrets_of(each.spec.listeners, each.metadata.namespace))

    def named(context: Context, given: kube.Secret) -> kube.Secret | None:
        key = given.metadata.key
        is_named = bool(context.lookup(by_gateway, key)) or bool(context.lookup(by_set, key))
        return given if is_named else None

    return graph.derive(
        "key pairs",
        graph.derive("secrets that are named", sources.secrets, named),
        lambda _, each: read(each),
    )


def _secrets_of_gateway(given: gateway.Gateway) -> set[str]:
    found = _secrets_of(given.spec.listeners, given.metadata.namespace)
    shown = given.spec.tls.backend.client_certificate_ref if given.spec.tls is not None else None
    if shown is not None:
        found.add(f"{shown.namespace or given.metadata.namespace}/{shown.name}")
    return found


def _secrets_of(listeners: Iterable[gateway.Listener], namespace: str) -> set[str]:
    references = (ref for each in listeners if each.tls is not None for ref in each.tls.certificate_refs)
    return {f"{each.namespace or namespace}/{each.name}" for each in references}


def _count(key: str, attached: Iterable[CompiledRoute]) -> dict[str, _Counts]:
    """Of the gateway `key`, by `_place`; a route counts once on a listener."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for route in attached:
        for each in {each.listener for each in route.listeners if each.gateway == key}:
            found[_place(key, each.rpartition("/")[0])][each] += 1
    return {place: _Counts(dict(each)) for place, each in found.items()}


def _place(of_gateway: str, of_set: str = "") -> str:
    """A Gateway's own listeners, or those of one of its ListenerSets."""
    return f"{of_gateway} {of_set}"


def _text_of(status: Status) -> str:
    return str(status.version.origin)


def _attached(context: Context, indices: Sequence[Index[CompiledRoute]], key: str) -> Iterator[CompiledRoute]:
    for index in indices:
        yield from context.lookup(index, key)


def _gateways_of(route: CompiledRoute) -> list[str]:
    return list(dict.fromkeys(each.gateway for each in route.listeners))
