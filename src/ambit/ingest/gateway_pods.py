"""Whom policies without `targetRefs` choose among the gateways at the edge: by labels of their pods, by their
namespace, or all of the mesh (istiod: `WorkloadPolicyMatcher`; waypoints are not chosen in this way)."""

from collections.abc import Mapping

import msgspec

from ambit.core.names import GATEWAY_CLASS_NAMES
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.edge import is_edge_class, objects_name
from ambit.ingest.gateway.pod_labels import labels_of_pods
from ambit.ingest.selection import label_entries, selector_entry, selects
from ambit.model.jwt import Target
from ambit.model.proxy import ProxyKind
from ambit.objects.gateway import Gateway, GatewayClass


class _Pods(msgspec.Struct, frozen=True):
    """The part of a Gateway at the edge that policies depend on."""

    key: str
    of_class: str
    labels: dict[str, str]

    @property
    def target(self) -> Target:
        namespace, _, name = self.key.partition("/")
        return Target("Gateway", namespace, name)


class GatewayPods:
    """Gateways of classes at the edge, accepted or not: one that is accepted later has its policies at once."""

    def __init__(
        self,
        graph: Graph,
        gateways: Collection[Gateway],
        classes: Collection[GatewayClass],
        root_namespace: str,
    ) -> None:
        self._classes = classes
        self._root = root_namespace
        self._pods: Collection[_Pods] = graph.derive("pods of gateways", gateways, self._of)
        self._by_entry = self._pods.index(self._entries)
        self._by_class = self._pods.index(lambda each: [each.of_class])

    def chosen(self, context: Context, namespace: str, selector: Mapping[str, str]) -> tuple[Target, ...]:
        """Those that a policy of this namespace is for; an empty selector chooses all of the namespace, in the root
        namespace all there are."""
        entry = selector_entry(namespace, selector) if selector else namespace
        found = context.lookup(self._by_entry, entry)
        return tuple(sorted(each.target for each in found if selects(selector, each.labels)))

    def of_class(self, context: Context, name: str) -> tuple[Target, ...]:
        """Those of a class that is not one of the two which policies know by name (`ambit.plan.targets`)."""
        if name in GATEWAY_CLASS_NAMES:
            return ()
        return tuple(sorted(each.target for each in context.lookup(self._by_class, name)))

    def is_edge(self, context: Context, target: Target) -> bool:
        """Whether it is, or names, gateways at the edge only."""
        if target.kind == "GatewayClass":
            return target.name in GATEWAY_CLASS_NAMES
        return (
            target.kind == "Gateway"
            and context.get(self._pods, f"{target.namespace}/{target.name}") is not None
        )

    def _of(self, context: Context, given: Gateway) -> _Pods | None:
        name = given.spec.gateway_class_name
        if not is_edge_class(name, context.get(self._classes, name)):
            return None
        account = objects_name(given.metadata.name, name)
        return _Pods(given.metadata.key, name, labels_of_pods(given, ProxyKind.GATEWAY, account))

    def _entries(self, pods: _Pods) -> list[str]:
        scopes = dict.fromkeys((pods.key.partition("/")[0], self._root))
        return [entry for scope in scopes for entry in (scope, *label_entries(scope, pods.labels))]
