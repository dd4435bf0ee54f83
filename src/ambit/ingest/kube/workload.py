"""Pods as mesh workloads (istiod: `ambient/workloads.go`; wire meaning: `istio.workload.Workload`).

- A pod is a workload from the moment it has an address of its own (`ambit.ingest.pod_addresses`) until its
  containers have ended. While it terminates it keeps its record, because its open and outgoing connections
  are still its own, but counts as unhealthy: nobody is sent to it any more.
- HBONE is published only while the redirection annotation says enabled, or when the pod says that it
  speaks HBONE itself (label `networking.istio.io/tunnel: http`). A pod in its node's network namespace
  never has it.
- Services select pods by labels, in their own namespace; a service without selector lists pods in
  EndpointSlices.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping

from ambit.core.identity import Identity
from ambit.core.names import (
    CANONICAL_NAME_LABEL,
    CANONICAL_REVISION_LABEL,
    REDIRECTION_ANNOTATION,
    REDIRECTION_ENABLED,
    TUNNEL_LABEL,
)
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targets import ServiceTarget
from ambit.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    Locality,
    NetworkMode,
    Port,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadType,
)
from ambit.objects import kube
from ambit.objects.meta import ObjectMeta

REGION_LABEL = "topology.kubernetes.io/region"
ZONE_LABEL = "topology.kubernetes.io/zone"
SUBZONE_LABEL = "topology.istio.io/subzone"
LOCALITY_LABELS = ("topology.istio.io/locality", "istio-locality")
"""Of a pod, the strongest first: `REGION.ZONE.SUBZONE`, the last ones may be missing (istiod: `GetLocalityLabel`)."""
TEMPLATE_HASH_LABEL = "pod-template-hash"

_NOWHERE = Locality()
_CRON_JOB_RUN = re.compile(r"(?P<name>.+)-\d{8,10}")
"""A Job made by a CronJob is called after it and its scheduled minute."""


def workload_uid(cluster_id: str, namespace: str, name: str) -> str:
    """istiod's name of a pod's workload."""
    return f"{cluster_id}//Pod/{namespace}/{name}"


def locality(node: kube.Node) -> Locality | None:
    """Where a node is; None when its labels do not say."""
    labels = node.metadata.labels
    found = Locality(labels.get(REGION_LABEL, ""), labels.get(ZONE_LABEL, ""), labels.get(SUBZONE_LABEL, ""))
    return None if found == _NOWHERE else found


def own_locality(labels: Mapping[str, str]) -> Locality | None:
    """Where a pod says that it is, whatever its node's labels say; None when it does not."""
    said = next((labels[each] for each in LOCALITY_LABELS if labels.get(each)), "")
    region, zone, subzone, *_ = *said.split("."), "", "", ""
    return Locality(region, zone, subzone) if said else None


def workload(
    pod: kube.Pod,
    addresses: Iterable[str],
    targets: Iterable[ServiceTarget],
    where: Locality | None,
    policies: tuple[str, ...],
    waypoint: GatewayAddress | None,
    settings: MeshSettings,
    handed: ApplicationTunnel | None = None,
) -> Workload:
    """The workload of a pod that has not ended; `addresses` are its own, `targets` the services that choose it, and
    `handed` is how it is given what comes in tunnels, when it is a waypoint."""
    meta = pod.metadata
    labels = meta.labels
    name, kind = owner(meta)
    native = labels.get(TUNNEL_LABEL) == "http"
    hbone = not pod.spec.host_network and (
        native or meta.annotations.get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED
    )
    serving = pod.ready and not pod.terminating
    return Workload(
        uid=workload_uid(settings.cluster_id, meta.namespace, meta.name),
        name=meta.name,
        namespace=meta.namespace,
        identity=Identity(settings.trust_domain, meta.namespace, pod.service_account),
        addresses=tuple(ipaddress.ip_address(ip) for ip in addresses),
        network=settings.network_of(labels),
        tunnel=TunnelProtocol.HBONE if hbone else TunnelProtocol.NONE,
        waypoint=waypoint,
        node=pod.spec.node_name,
        canonical_name=canonical_name(labels, name),
        canonical_revision=canonical_revision(labels),
        workload_type=kind,
        workload_name=name,
        native_tunnel=native and hbone,
        policies=policies,
        status=WorkloadStatus.HEALTHY if serving else WorkloadStatus.UNHEALTHY,
        cluster_id=settings.cluster_id,
        services=_services(pod, targets),
        locality=own_locality(labels) or where or _NOWHERE,
        network_mode=NetworkMode.HOST_NETWORK if pod.spec.host_network else NetworkMode.STANDARD,
        application_tunnel=handed if hbone and not native else None,
    )


def owner(meta: ObjectMeta) -> tuple[str, WorkloadType]:
    """Name and type of what a user created for this pod to exist: the Deployment, not its ReplicaSet."""
    controller = next((each for each in meta.owner_references if each.controller), None)
    if controller is None:
        return meta.name, WorkloadType.POD
    match controller.kind:
        case "ReplicaSet":
            suffix = "-" + meta.labels.get(TEMPLATE_HASH_LABEL, "")
            if suffix != "-" and controller.name.endswith(suffix):
                return controller.name.removesuffix(suffix), WorkloadType.DEPLOYMENT
            return controller.name, WorkloadType.POD
        case "Job":
            run = _CRON_JOB_RUN.fullmatch(controller.name)
            return (run["name"], WorkloadType.CRONJOB) if run else (controller.name, WorkloadType.JOB)
        case _:
            return controller.name, WorkloadType.POD


def canonical_name(labels: Mapping[str, str], workload_name: str) -> str:
    """Istio's canonical service: explicit label, then the two usual ones, then the workload."""
    return (
        labels.get(CANONICAL_NAME_LABEL)
        or labels.get("app.kubernetes.io/name")
        or labels.get("app")
        or workload_name
    )


def canonical_revision(labels: Mapping[str, str]) -> str:
    return (
        labels.get(CANONICAL_REVISION_LABEL)
        or labels.get("app.kubernetes.io/version")
        or labels.get("version")
        or "latest"
    )


def _services(pod: kube.Pod, targets: Iterable[ServiceTarget]) -> dict[str, tuple[Port, ...]]:
    return {target.key: ports_on(pod, target) if target.named else target.ports for target in targets}


def ports_on(pod: kube.Pod, target: ServiceTarget) -> tuple[Port, ...]:
    """A service's ports on one pod. A named target port that the pod does not have is left out."""
    names = {
        port.name: port.container_port
        for container in (*_sidecars(pod), *reversed(pod.spec.containers))
        for port in reversed(container.ports)
        if port.name and port.protocol == "TCP"
    }
    found = []
    for each in target.targets:
        number = each.target if isinstance(each.target, int) else names.get(each.target)
        if number is not None:
            found.append(Port(each.service, number))
    return tuple(found)


def _sidecars(pod: kube.Pod) -> Iterable[kube.Container]:
    """Init containers that keep running; ordinary containers go before them (Kubernetes `FindPort`)."""
    return (each for each in reversed(pod.spec.init_containers) if each.restart_policy == "Always")
