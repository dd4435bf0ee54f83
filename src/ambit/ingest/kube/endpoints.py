"""EndpointSlices of Services without a selector: somebody else decides what serves them (istiod:
`ambient/workloads.go`).

An endpoint that names a pod makes that pod serve the service; any other endpoint becomes a workload of
its own, in plain text, such as the API server behind `kubernetes.default`. Slices of services with a
selector say nothing new.
"""

import ipaddress
from collections.abc import Mapping

import msgspec

from ambit.core.identity import Identity
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targets import ServiceTarget
from ambit.model.workload import Locality, NetworkMode, Port, Workload, WorkloadStatus, WorkloadType
from ambit.objects import kube


class Membership(msgspec.Struct, frozen=True):
    """A pod (`<namespace>/<name>`) that a slice puts behind a service."""

    pod: str
    service: str
    ports: tuple[Port, ...]


def memberships(given: kube.EndpointSlice, target: ServiceTarget) -> Mapping[str, Membership]:
    """What a slice says about pods, keyed by slice and pod."""
    ports = _ports(given, target)
    namespace = given.metadata.namespace
    found = {}
    for endpoint in given.endpoints or ():
        reference = endpoint.target_ref
        if reference is not None and reference.kind == "Pod":
            pod = f"{reference.namespace or namespace}/{reference.name}"
            found[f"{given.metadata.key}/{pod}"] = Membership(pod, target.key, ports)
    return found


def workloads(
    given: kube.EndpointSlice, target: ServiceTarget, settings: MeshSettings
) -> Mapping[str, Workload]:
    """Workloads for the endpoints that are no pods, keyed by uid."""
    if given.address_type not in ("IPv4", "IPv6"):
        return {}
    ports = _ports(given, target)
    namespace = given.metadata.namespace
    found = {}
    for endpoint in given.endpoints or ():
        if endpoint.target_ref is not None and endpoint.target_ref.kind == "Pod":
            continue
        for address in endpoint.addresses[:1]:
            uid = f"{settings.cluster_id}/discovery.k8s.io/EndpointSlice/{given.metadata.key}/{address}"
            found[uid] = Workload(
                uid=uid,
                name=given.metadata.name,
                namespace=namespace,
                identity=Identity(settings.trust_domain, namespace, "default"),
                addresses=(ipaddress.ip_address(address),),
                network=settings.network,
                node=endpoint.node_name,
                canonical_name=target.name,
                canonical_revision="latest",
                workload_type=WorkloadType.POD,
                workload_name=given.metadata.name,
                status=WorkloadStatus.HEALTHY if endpoint.is_ready else WorkloadStatus.UNHEALTHY,
                cluster_id=settings.cluster_id,
                services={target.key: ports},
                locality=Locality(zone=endpoint.zone) if endpoint.zone else Locality(),
                network_mode=NetworkMode.HOST_NETWORK,
            )
    return found


def _ports(given: kube.EndpointSlice, target: ServiceTarget) -> tuple[Port, ...]:
    """Service ports by the name they share with the slice's ports."""
    numbers = {
        port.name: port.port
        for port in given.ports or ()
        if port.port is not None and port.protocol in ("TCP", "")
    }
    return tuple(Port(each.service, numbers[each.name]) for each in target.targets if each.name in numbers)
