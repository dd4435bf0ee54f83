"""Services with the canaries of their waypoints.

After all that closes a service: one that is closed has no canary either.
"""

import msgspec

from ambit.graph.engine import Context
from ambit.ingest.gateway.canary import WHOLE
from ambit.ingest.gateway.compile import Waypoints
from ambit.ingest.settings import MeshSettings
from ambit.model.service import Service, WeightedWaypoint
from ambit.model.workload import GatewayAddress


class Canaries:
    """What namespaces, Services and ServiceEntries say of them."""

    def __init__(self, waypoints: Waypoints, settings: MeshSettings) -> None:
        self._waypoints = waypoints
        self._settings = settings

    def service(self, context: Context, given: Service) -> Service:
        """The service with both waypoints and their parts; without a canary as it is."""
        primary = given.waypoint
        if primary is None or not self._is_there(context, primary):
            return given
        found = self._waypoints.canary_of(context, given)
        if found is None or found.gateway is None or not found.weight:
            return given
        parts = (
            WeightedWaypoint(primary, WHOLE - found.weight),
            WeightedWaypoint(found.gateway, found.weight),
        )
        return msgspec.structs.replace(given, weighted_waypoints=parts)

    def _is_there(self, context: Context, address: GatewayAddress) -> bool:
        """Else nobody may: its canary has a part of what it has, not all in its place."""
        name = address.hostname.partition(".")[0]
        if address.hostname != self._settings.hostname(name, address.namespace):
            return False
        found = self._waypoints.waypoint(context, f"{address.namespace}/{name}")
        return found is not None and found.proxy is not None
