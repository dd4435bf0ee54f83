"""The way to a waypoint: a tunnel to it for the address as it was dialled."""

from ambit.core.address import host_port
from ambit.envoy import clusters, names
from ambit.envoy.words import AnyMessage
from ambit.model.service import Service, WeightedWaypoint
from ambit.model.view import MeshView
from ambit.model.workload import GatewayAddress
from ambit.plan import gateways, pins
from ambit.plan.endpoints import Choice
from ambit.plan.node import networks, ways
from ambit.plan.node.ways import Balanced
from ambit.plan.values import LocalPod, NodeSettings


def answer(
    name: str,
    asked: names.Destination,
    waypoints: tuple[WeightedWaypoint, ...],
    service: Service | None,
    tags: dict[str, str],
    view: MeshView,
    settings: NodeSettings,
) -> Balanced | AnyMessage:
    """To one of the waypoints of what was asked for (`service`, or a workload when None): a tunnel for the address
    as it was dialled. Without any that can be used the connection is refused, it never goes on without."""
    found = gateways.parts(waypoints, asked.address.version, view, settings)
    endpoints = [
        each
        for stand, weight in found
        if (each := _endpoint(asked, service, stand, weight, view, settings)) is not None
    ]
    if endpoints:
        return Balanced(tuple(endpoints), tags)
    reasons = dict.fromkeys(_reason(each.gateway) for each in waypoints)
    return ways.refused(name, "; ".join(reasons) or "waypoint without a place is not ready", tags)


def _endpoint(
    asked: names.Destination,
    service: Service | None,
    stand: gateways.Stand,
    weight: int,
    view: MeshView,
    settings: NodeSettings,
) -> clusters.Endpoint | None:
    choice = stand.choice
    if isinstance(choice, Choice):
        return clusters.Endpoint(
            listener=names.CONNECT_ORIGINATE,
            hop=(choice.address, choice.port),
            cluster=names.tunnel(choice.workload.identity, pins.with_names(stand.service, view)),
            authority=host_port(asked.address, asked.port),
            weight=weight,
            tags=ways.tags_of(choice, ways.TUNNEL),
        )
    if service is None:
        return None
    waypoint = view.service(stand.service)
    return networks.endpoint((asked.address, asked.port), service, choice, waypoint, settings, weight)


def _reason(gateway: GatewayAddress) -> str:
    """Why nothing goes on by the waypoint at this place."""
    found = gateway.refusal
    if found is None:
        place = f"{gateway.namespace}/{gateway.hostname}" if gateway.hostname else str(gateway.address)
        return f"waypoint {place} is not ready"
    meant, why = found
    return f"waypoint {meant} is {why}" if meant else f"{why} that no waypoint enforces"


def stands_for(source: LocalPod, service: Service, view: MeshView, settings: NodeSettings) -> bool:
    """Whether the caller is a waypoint of the service, whose connections go on to endpoints."""
    return any(is_waypoint(source, each.gateway, view, settings) for each in service.waypoints)


def is_waypoint(source: LocalPod, gateway: GatewayAddress, view: MeshView, settings: NodeSettings) -> bool:
    """Whether the caller is itself one of the gateway's workloads."""
    return any(
        isinstance(stand.choice, Choice)
        and settings.trust_domains.are_same(stand.choice.workload.identity, source.identity)
        and stand.choice.address in source.addresses
        for version in (4, 6)
        for stand in gateways.waypoint(gateway, version, view, settings)
    )
