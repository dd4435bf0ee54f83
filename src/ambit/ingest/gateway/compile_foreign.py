"""The part of the graph about waypoints that are somebody else's: gateways, with the Services and pods that carry
their label (`ambit.ingest.gateway.foreign`)."""

from collections.abc import Mapping

from ambit.core.names import GATEWAY_NAME_LABEL
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.edge import gateway_of, is_edge_class
from ambit.ingest.gateway.foreign import Foreign, foreign_waypoint
from ambit.ingest.gateway.gateways import waypoint_kind
from ambit.ingest.settings import MeshSettings
from ambit.model.workload import ApplicationTunnel, GatewayAddress
from ambit.objects import gateway, kube


class ForeignWaypoints:
    """By their Gateways, and by where they are."""

    def __init__(
        self,
        graph: Graph,
        gateways: Collection[gateway.Gateway],
        classes: Collection[gateway.GatewayClass],
        services: Collection[kube.Service],
        pods: Collection[kube.Pod],
        settings: MeshSettings,
    ) -> None:
        self._classes = classes
        self._services = services.index(_labelled)
        self._pods = pods.index(gateway_of)
        self._settings = settings
        self._found: Collection[Foreign] = graph.derive("waypoints of others", gateways, self._of)
        self._by_place = self._found.index(_place)

    def at(self, context: Context, waypoint: GatewayAddress | None) -> Foreign | None:
        """The one at this address."""
        if waypoint is None:
            return None
        found = context.lookup(self._by_place, f"{waypoint.namespace}/{waypoint.hostname}")
        return found[0] if found else None

    def named(self, context: Context, key: str) -> Foreign | None:
        """The one of this Gateway."""
        return context.get(self._found, key)

    def handed(self, context: Context, namespace: str, labels: Mapping[str, str]) -> ApplicationTunnel | None:
        """How a pod with these labels is given what comes in tunnels."""
        name = labels.get(GATEWAY_NAME_LABEL)
        found = self.named(context, f"{namespace}/{name}") if name else None
        return found.tunnel if found is not None else None

    def _of(self, context: Context, given: gateway.Gateway) -> Foreign | None:
        name = given.spec.gateway_class_name
        of_class = context.get(self._classes, name)
        if waypoint_kind(name, of_class) is not None or is_edge_class(name, of_class):
            return None
        key = given.metadata.key
        services, pods = context.lookup(self._services, key), context.lookup(self._pods, key)
        return foreign_waypoint(given, of_class, services, pods, self._settings)


def _labelled(given: kube.Service) -> list[str]:
    name = given.metadata.labels.get(GATEWAY_NAME_LABEL, "")
    return [f"{given.metadata.namespace}/{name}"] if name else []


def _place(given: Foreign) -> list[str]:
    return [f"{given.key.partition('/')[0]}/{given.hostname}"] if given.hostname else []
