"""Which workloads stand for a `GatewayAddress`: those of a waypoint, or of a gateway to another network.

By host name it is a service that has the port; by address a service or a workload that has it (ztunnel
`state.rs::fetch_waypoint`, `fetch_network_gateway`). One that nobody here knows has no workloads, and what must go
through it is refused: nothing ever goes round it.
"""

from fractions import Fraction
from math import lcm

import msgspec

from ambit.model.service import Service, WeightedWaypoint
from ambit.model.view import MeshView
from ambit.model.workload import GatewayAddress
from ambit.plan.endpoints import Choice, RemoteChoice, Sought, all_choices
from ambit.plan.values import NodeSettings

_MOST = 1 << 16
"""Of all parts together; Envoy takes no more than 32 bits."""


class Stand(msgspec.Struct, frozen=True):
    """One workload of a gateway. `service`: the one that it was found by, whose names its server may prove as well."""

    choice: Choice | RemoteChoice
    service: str = ""


def waypoint(
    gateway: GatewayAddress, family: int, view: MeshView, settings: NodeSettings
) -> tuple[Stand, ...]:
    """Those of a waypoint, perhaps in other networks; `family` (4 or 6) is preferred among addresses."""
    return _stands(gateway, family, view, settings, Sought.WAYPOINT)


def network_gateway(
    gateway: GatewayAddress, family: int, view: MeshView, settings: NodeSettings
) -> tuple[tuple[Choice, str], ...]:
    """Those of another network's gateway that can be dialled from here, each with its `Stand.service`."""
    found = _stands(gateway, family, view, settings, Sought.GATEWAY)
    return tuple((each.choice, each.service) for each in found if isinstance(each.choice, Choice))


def parts(
    waypoints: tuple[WeightedWaypoint, ...], family: int, view: MeshView, settings: NodeSettings
) -> tuple[tuple[Stand, int], ...]:
    """Every workload of these waypoints with its part of the connections: a waypoint's weight is shared by its
    workloads' capacities. One without workloads leaves its part to the others."""
    found: list[tuple[Stand, Fraction]] = []
    for each in waypoints:
        stands = waypoint(each.gateway, family, view, settings)
        all_of_it = sum(stand.choice.workload.capacity for stand in stands)
        found += [
            (stand, Fraction(each.weight * stand.choice.workload.capacity, all_of_it)) for stand in stands
        ]
    return tuple(zip((stand for stand, _ in found), whole([part for _, part in found]), strict=True))


def whole(fractions: list[Fraction]) -> list[int]:
    """Whole numbers in the same proportion; rounded where that takes too large ones."""
    if not fractions:
        return []
    factor = Fraction(lcm(*(each.denominator for each in fractions)))
    if sum(fractions) * factor > _MOST:
        factor = Fraction(_MOST) / sum(fractions)
    return [max(1, round(each * factor)) for each in fractions]


def _stands(
    gateway: GatewayAddress, family: int, view: MeshView, settings: NodeSettings, sought: Sought
) -> tuple[Stand, ...]:
    service: Service | None = None
    if gateway.hostname:
        service = view.service(f"{gateway.namespace}/{gateway.hostname}")
    elif gateway.address is not None:
        service = view.service_by_address(gateway.network, gateway.address)
        workload = None if service else view.workload_by_address(gateway.network, gateway.address)
        if workload is not None:
            remote = workload.network != settings.network and sought is not Sought.GATEWAY
            if not remote:
                return (Stand(Choice(workload, gateway.address, gateway.port)),)
            through = workload.network_gateway
            return (Stand(RemoteChoice(workload, through)),) if through else ()
    if service is None:
        return ()
    found = all_choices(service, gateway.port, family, view, settings, sought)
    return tuple(Stand(each, service.key) for each in found if isinstance(each, Choice | RemoteChoice))
