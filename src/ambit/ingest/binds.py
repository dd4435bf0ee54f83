"""What any part of the graph asks about waypoints; the Gateway API's part answers."""

from collections.abc import Callable, Mapping

import msgspec

from ambit.graph.engine import Context
from ambit.model.workload import ApplicationTunnel, GatewayAddress

Bind = Callable[[Context, str, Mapping[str, str]], GatewayAddress | None]
"""The waypoint of an object of a namespace with these labels; reads through the context."""

Handed = Callable[[Context, str, Mapping[str, str]], ApplicationTunnel | None]
"""How a pod of a namespace with these labels is handed what comes in tunnels, as a waypoint; reads likewise."""


class Binds(msgspec.Struct, frozen=True):
    """A waypoint takes what is sent to services (Kubernetes' or a ServiceEntry's), to workloads, or both."""

    service: Bind
    entry: Bind
    workload: Bind
    handed: Handed
