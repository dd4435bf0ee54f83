"""The way to one endpoint of a service.

Every endpoint leads through an internal listener to the cluster for that one workload.
"""

from ambit.envoy import clusters, names
from ambit.envoy.logs import access_log
from ambit.model.service import Service
from ambit.model.view import MeshView, holder
from ambit.model.workload import TunnelProtocol, Workload
from ambit.plan import pins
from ambit.plan.endpoints import AnyChoice, Choice, NamedChoice, RemoteChoice
from ambit.plan.node import networks, same_node, ways
from ambit.plan.values import LocalPod, LocalPods, NodeSettings


def endpoint(
    source: LocalPod,
    asked: names.Destination,
    choice: AnyChoice,
    service: Service,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> clusters.Endpoint | None:
    """The way to one endpoint of a service; None when there is none for this connection."""
    if isinstance(choice, NamedChoice):
        return _named(source, asked, choice)
    if isinstance(choice, RemoteChoice):
        place = (asked.address, asked.port)
        return networks.endpoint(place, service, choice, service, settings, choice.workload.capacity)
    if _is_tunnelled(choice.workload, settings):
        return ways.tunnel(choice, names.tunnel(choice.workload.identity, pins.with_names(service.key, view)))
    if _is_dialled(choice, source, asked.address.version, view, pods, settings):
        return _dialled(source, asked, choice, view, pods, settings)
    return None


def _is_tunnelled(workload: Workload, settings: NodeSettings) -> bool:
    """Endpoints on this node go on to their own address, which decides between same node and plain; but not those whose
    address has a waypoint, which is not for who asked for a service, nor those that are told of the tunnel."""
    is_special = workload.waypoint is not None or workload.application_tunnel is not None
    elsewhere = workload.node != settings.node or settings.same_node_tls or is_special
    return workload.tunnel == TunnelProtocol.HBONE and elsewhere


def _is_dialled(
    choice: Choice,
    source: LocalPod,
    family: int,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> bool:
    """Whether an endpoint without a tunnel can be reached by a connection of this family. On the node it is made
    from the client's address; elsewhere from any address that the pod has of the endpoint's family. One whose address
    is a service's is left out: going on to it could come back here, without end."""
    version = choice.address.version
    if version != family and (
        pods.by_address(choice.address) is not None
        or all(address.version != version for address in source.addresses)
    ):
        return False
    found = holder(view, settings.network, choice.address, client_namespace=source.namespace)
    return not isinstance(found, Service) or found.lets_pass


def _named(source: LocalPod, asked: names.Destination, choice: NamedChoice) -> clusters.Endpoint:
    workload = choice.workload
    target = f"{workload.hostname}:{choice.port}"
    return clusters.Endpoint(
        listener=names.OUTSIDE_ORIGINATE,
        hop=(asked.address, asked.port),
        cluster=names.resolved(source.key, workload.hostname, choice.port, asked.generation),
        authority=target,
        weight=workload.capacity,
        tags={access_log.ROUTE: ways.DIRECT, access_log.WORKLOAD: workload.uid, access_log.TARGET: target},
    )


def _dialled(
    source: LocalPod,
    asked: names.Destination,
    choice: Choice,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> clusters.Endpoint:
    workload = choice.workload
    cluster = names.destination(source.key, choice.address, choice.port, asked.generation)
    if workload.waypoint is not None:
        # Asked for by its own address it would be reached through the waypoint.
        cluster = names.PASSTHROUGH
    local = pods.by_address(choice.address)
    # The pod's own answer decides; the tags say so here because this connection's log cannot see it.
    inside = same_node.tags_of(source, choice, local, view, settings) if local is not None else {}
    return clusters.Endpoint(
        listener=names.DIRECT_ORIGINATE
        if choice.address.version == asked.address.version
        else names.OUTSIDE_ORIGINATE,
        hop=(choice.address, choice.port),
        cluster=cluster,
        weight=workload.capacity,
        tags={**ways.tags_of(choice, ways.DIRECT), **inside},
    )
