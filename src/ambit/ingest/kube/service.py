"""Kubernetes Services as mesh services (istiod: `ambient/services.go`).

- Hostname `<name>.<namespace>.svc.<cluster domain>`; a headless service has no address; ExternalName is
  no service.
- Only TCP ports: nothing else is captured. An unlisted port of a virtual address is refused by the nodes.
- A named target port is 0 here; each endpoint says which number it has.
- `internalTrafficPolicy: Local` is strict node locality; `trafficDistribution` (field, annotation
  `networking.istio.io/traffic-distribution`, or the namespace's annotation) is a preference with
  failover.
"""

import ipaddress

import msgspec

from ambit.ingest.settings import MeshSettings
from ambit.model.service import (
    AppProtocol,
    BalancingMode,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    Scope,
    Service,
    VirtualAddress,
)
from ambit.model.workload import Port
from ambit.objects import kube

DISTRIBUTION_ANNOTATION = "networking.istio.io/traffic-distribution"

_CLOSE = (Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE)
_PREFERENCES: dict[str, tuple[Scope, ...]] = {
    "PreferClose": _CLOSE,
    "PreferSameZone": _CLOSE,
    "PreferSameNode": (*_CLOSE, Scope.NODE),
    "PreferSameRegion": (Scope.NETWORK, Scope.REGION),
    "PreferSameNetwork": (Scope.NETWORK,),
}

_APP_PROTOCOLS: dict[str, AppProtocol] = {
    "http": AppProtocol.HTTP11,
    "http1": AppProtocol.HTTP11,
    "kubernetes.io/ws": AppProtocol.HTTP11,
    "http2": AppProtocol.HTTP2,
    "kubernetes.io/h2c": AppProtocol.HTTP2,
    "grpc": AppProtocol.GRPC,
    "grpc-web": AppProtocol.GRPC,
    "tcp": AppProtocol.TCP,
    "mongo": AppProtocol.TCP,
    "mysql": AppProtocol.TCP,
    "redis": AppProtocol.TCP,
    "tls": AppProtocol.TLS,
    "https": AppProtocol.TLS,
    "kubernetes.io/wss": AppProtocol.TLS,
}


class TargetPort(msgspec.Struct, frozen=True):
    """A service port and where it leads on an endpoint: a number, or the name of a container port."""

    name: str
    service: int
    target: int | str


class ServiceTarget(msgspec.Struct, frozen=True):
    """The part of a Service that decides which pods serve it, and on which ports.

    `ports` is complete unless some `named` ones must be resolved on each pod.
    """

    key: str
    namespace: str
    name: str
    selector: dict[str, str]
    targets: tuple[TargetPort, ...]
    ports: tuple[Port, ...]
    named: bool


def hostname(name: str, namespace: str, domain: str) -> str:
    return f"{name}.{namespace}.svc.{domain}"


def service(given: kube.Service, namespace: kube.Namespace | None, settings: MeshSettings) -> Service | None:
    """The mesh service, or None for one without endpoints of its own (ExternalName)."""
    if given.spec.type == "ExternalName":
        return None
    meta = given.metadata
    ports = _tcp_ports(given)
    return Service(
        name=meta.name,
        namespace=meta.namespace,
        hostname=hostname(meta.name, meta.namespace, settings.cluster_domain),
        addresses=tuple(VirtualAddress(settings.network, ipaddress.ip_address(ip)) for ip in given.addresses),
        ports=tuple(Port(port.service, port.target if isinstance(port.target, int) else 0) for port in ports),
        app_protocols={
            port.port: protocol
            for port in given.spec.ports or ()
            if port.protocol == "TCP" and (protocol := _app_protocol(port)) is not AppProtocol.UNKNOWN
        },
        load_balancing=_load_balancing(given, namespace),
        ip_families=_families(given.spec.ip_families),
        canonical=True,
    )


def service_target(given: kube.Service, settings: MeshSettings) -> ServiceTarget | None:
    """How pods are matched to it; None for ExternalName."""
    if given.spec.type == "ExternalName":
        return None
    meta = given.metadata
    targets = _tcp_ports(given)
    return ServiceTarget(
        key=f"{meta.namespace}/{hostname(meta.name, meta.namespace, settings.cluster_domain)}",
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
    """`appProtocol`, else the port name up to its first dash (Istio protocol selection)."""
    if port.app_protocol:
        return _APP_PROTOCOLS.get(port.app_protocol.lower(), AppProtocol.UNKNOWN)
    name = port.name.lower()
    if name.startswith("grpc-web"):
        return AppProtocol.GRPC
    return _APP_PROTOCOLS.get(name.partition("-")[0], AppProtocol.UNKNOWN)


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
    """Strict node locality beats preferences: it is about correctness, they are about cost."""
    spec = given.spec
    health = HealthPolicy.ALLOW_ALL if spec.publish_not_ready_addresses else HealthPolicy.ONLY_HEALTHY
    if spec.internal_traffic_policy == "Local":
        return LoadBalancing((Scope.NODE,), BalancingMode.STRICT, health)
    distribution = (
        given.metadata.annotations.get(DISTRIBUTION_ANNOTATION)
        or spec.traffic_distribution
        or (namespace.metadata.annotations.get(DISTRIBUTION_ANNOTATION, "") if namespace else "")
    )
    preference = _PREFERENCES.get(distribution)
    if preference is not None:
        return LoadBalancing(preference, BalancingMode.FAILOVER, health)
    if health is HealthPolicy.ALLOW_ALL:
        return LoadBalancing(health_policy=health)
    return None
