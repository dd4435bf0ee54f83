"""Kubernetes Services as mesh services (istiod: `ambient/services.go`).

- Hostname `<name>.<namespace>.svc.<cluster domain>`; a headless service has no address; ExternalName is
  no service.
- Only TCP ports: nothing else is captured. An unlisted port of a virtual address is refused by the nodes.
- A named target port is 0 here; each endpoint says which number it has.
- Which endpoints are preferred: `ambit.ingest.preference`; which waypoint takes what is sent to it: given.
- `sessionAffinity: ClientIP` is ambit's own; istiod has no word for it.
"""

import ipaddress

from ambit.ingest.preference import DISTRIBUTION_ANNOTATION, preference
from ambit.ingest.protocols import protocol_named, protocol_of_port
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targets import ServiceTarget, TargetPort
from ambit.model.service import (
    AppProtocol,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    Service,
    VirtualAddress,
)
from ambit.model.workload import GatewayAddress, Port
from ambit.objects import kube


def service(
    given: kube.Service,
    namespace: kube.Namespace | None,
    waypoint: GatewayAddress | None,
    settings: MeshSettings,
) -> Service | None:
    """The mesh service, or None for one without endpoints of its own (ExternalName)."""
    if given.spec.type == "ExternalName":
        return None
    meta = given.metadata
    ports = _tcp_ports(given)
    return Service(
        name=meta.name,
        namespace=meta.namespace,
        hostname=settings.hostname(meta.name, meta.namespace),
        addresses=tuple(VirtualAddress(settings.network, ipaddress.ip_address(ip)) for ip in given.addresses),
        ports=tuple(Port(port.service, port.target if isinstance(port.target, int) else 0) for port in ports),
        app_protocols={
            port.port: protocol
            for port in given.spec.ports or ()
            if port.protocol == "TCP" and (protocol := _app_protocol(port)) is not AppProtocol.UNKNOWN
        },
        waypoint=waypoint,
        load_balancing=_load_balancing(given, namespace),
        ip_families=_families(given.spec.ip_families),
        canonical=True,
        session_affinity=given.spec.session_affinity == "ClientIP",
    )


def service_target(given: kube.Service, settings: MeshSettings) -> ServiceTarget | None:
    """How pods are matched to it; None for ExternalName."""
    if given.spec.type == "ExternalName":
        return None
    meta = given.metadata
    targets = _tcp_ports(given)
    return ServiceTarget(
        key=f"{meta.namespace}/{settings.hostname(meta.name, meta.namespace)}",
        namespace=meta.namespace,
        name=meta.name,
        selector=given.spec.selector or {},
        targets=targets,
        ports=tuple(Port(each.service, each.target) for each in targets if isinstance(each.target, int)),
        named=any(isinstance(each.target, str) for each in targets),
    )


def _tcp_ports(given: kube.Service) -> tuple[TargetPort, ...]:
    return tuple(
        TargetPort(port.name, port.port, _target(port))
        for port in given.spec.ports or ()
        if port.protocol == "TCP"
    )


def _target(port: kube.ServicePort) -> int | str:
    """An absent target port is the port itself; digits are a number (Kubernetes IntOrString)."""
    target = port.target_port
    if isinstance(target, str) and target.isdigit():
        target = int(target)
    return target or port.port


def _app_protocol(port: kube.ServicePort) -> AppProtocol:
    return protocol_named(port.app_protocol) if port.app_protocol else protocol_of_port(port.name)


def _families(given: tuple[str, ...]) -> IpFamilies:
    match sorted(given):
        case ["IPv4"]:
            return IpFamilies.IPV4_ONLY
        case ["IPv6"]:
            return IpFamilies.IPV6_ONLY
        case ["IPv4", "IPv6"]:
            return IpFamilies.DUAL
        case _:
            return IpFamilies.AUTOMATIC


def _load_balancing(given: kube.Service, namespace: kube.Namespace | None) -> LoadBalancing | None:
    spec = given.spec
    return preference(
        (
            spec.traffic_distribution,
            given.metadata.annotations.get(DISTRIBUTION_ANNOTATION, ""),
            namespace.metadata.annotations.get(DISTRIBUTION_ANNOTATION, "") if namespace else "",
        ),
        HealthPolicy.ALLOW_ALL if spec.publish_not_ready_addresses else HealthPolicy.ONLY_HEALTHY,
        only_this_node=spec.internal_traffic_policy == "Local",
    )
