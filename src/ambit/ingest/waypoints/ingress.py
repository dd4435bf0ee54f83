"""Services that gateways call through their waypoints: the label `istio.io/ingress-use-waypoint` of a Service or
ServiceEntry, else of its namespace."""

import msgspec

from ambit.core.names import INGRESS_USE_WAYPOINT_LABEL
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.model.service import Service
from ambit.objects import kube, networking


class Ingress:
    """Who wishes so."""

    def __init__(
        self,
        namespaces: Collection[kube.Namespace],
        services: Collection[kube.Service],
        entries: Collection[networking.ServiceEntry],
    ) -> None:
        self._namespaces = namespaces
        self._services = services
        self._entries = entries

    def service(self, context: Context, given: Service) -> Service:
        """The service with its own or its namespace's wish; without a waypoint there is nothing to wish."""
        wish = self.wish(context, given) if given.waypoint is not None else ""
        return msgspec.structs.replace(given, ingress_use_waypoint=wish == "true") if wish else given

    def wish(self, context: Context, given: Service) -> str:
        """The label's value at a service, else at its namespace; empty where there is none."""
        key = f"{given.namespace}/{given.name}"
        found: kube.Service | networking.ServiceEntry | None
        found = context.get(self._services, key) if given.is_kubernetes else context.get(self._entries, key)
        namespace = context.get(self._namespaces, given.namespace)
        for each in (found, namespace):
            wish = each.metadata.labels.get(INGRESS_USE_WAYPOINT_LABEL, "") if each is not None else ""
            if wish:
                return wish
        return ""
