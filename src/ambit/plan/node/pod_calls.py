"""Services that a node calls in the name of one of its pods: whom it asks about requests to the pod, and whom it tells
of requests of the pod.

They are reached as the pod would reach them: within the node, by tunnels as the pod, through their own waypoint if they
have one, plainly outside of the mesh, with TLS where a BackendTLSPolicy says so. But not whatever another namespace has
put behind its service: the pod did not choose to call that, and would lend its identity.
"""

from collections.abc import Iterator, Mapping

import msgspec

from ambit.core.identity import Identity
from ambit.envoy import calls, clusters, names, waypoint_services
from ambit.envoy.backend_tls import Spoken
from ambit.envoy.logs import access_log
from ambit.envoy.waypoint_services import Speaks
from ambit.model.service import Service
from ambit.model.view import MeshView
from ambit.plan import announcement, backends
from ambit.plan.backends import Provider
from ambit.plan.endpoints import preferred_address
from ambit.plan.node import destinations
from ambit.plan.node.ways import DIRECT, Balanced
from ambit.plan.values import (
    CLUSTER,
    LISTENER,
    LocalPod,
    LocalPods,
    NodeSettings,
    PlannedResource,
    planned,
    workload_of,
)


def resources(
    pod: LocalPod, called: Mapping[str, Provider], view: MeshView, pods: LocalPods, settings: NodeSettings
) -> Iterator[PlannedResource]:
    """Clusters of these names, by which providers are called, and what they lead to. One without endpoints, to which
    every call fails, where there is no such service, no way to it, or no server that can be trusted."""
    for name, provider in sorted(called.items()):
        service = view.service(provider.service)
        tls = service.backend_tls.get(provider.port) if service is not None else None
        if service is None or (tls is not None and not tls.trusts):
            yield planned(CLUSTER, name, clusters.refused(name, {}))
            continue
        way, caller = names.way_of(name), _caller(pod)
        endpoints = _endpoints(pod, caller, service, provider.port, view, pods, settings)
        tags = {access_log.SERVICE: service.key}
        spoken = Spoken(tls) if tls is not None else None
        yield planned(CLUSTER, way, waypoint_services.cluster_with(way, endpoints, Speaks.BYTES, tags))
        yield planned(CLUSTER, name, calls.cluster(name, backends.speaks(provider, service), spoken))
        yield planned(LISTENER, name, calls.listener(name, caller=caller, way=way))


def _caller(pod: LocalPod) -> calls.Caller:
    address = preferred_address(pod.addresses, backends.FAMILIES[0])
    assert address is not None, "a pod has an address"
    return calls.Caller(pod.key, pod.netns, address, pod.identity)


def _endpoints(
    pod: LocalPod,
    caller: calls.Caller,
    service: Service,
    port: int,
    view: MeshView,
    pods: LocalPods,
    settings: NodeSettings,
) -> tuple[clusters.Endpoint, ...]:
    place = preferred_address(service.single_addresses, caller.address.version)
    if place is None and service.has_waypoint:
        return ()  # which would not know what is asked for
    asked = names.Destination(pod.key, place or caller.address, port)
    found = destinations.backend("", pod, asked, service, view, pods, settings)
    if not isinstance(found, Balanced):
        return ()
    said = announcement.tags(workload_of(pod, view, settings), service.key)
    if service.has_waypoint or service.namespace == pod.namespace:
        return found.announcing(said)
    own_only = (_of_namespace(each, service.namespace) for each in found.announcing(said))
    return tuple(each for each in own_only if each is not None)


def _of_namespace(endpoint: clusters.Endpoint, namespace: str) -> clusters.Endpoint | None:
    """The endpoint, if it is this namespace's or is told nobody's identity. Its server proves its own, no other that
    the service names."""
    if endpoint.tags.get(access_log.ROUTE) == DIRECT:
        return endpoint
    try:
        identity = Identity.parse(endpoint.tags.get(access_log.IDENTITY, ""))
    except ValueError:
        return None
    if identity.namespace != namespace:
        return None
    if endpoint.listener != names.CONNECT_ORIGINATE:
        return endpoint
    return msgspec.structs.replace(endpoint, cluster=names.tunnel(identity))
