"""Typed projections of core Kubernetes objects (v1, discovery.k8s.io/v1)."""

import msgspec

from ambit.objects.meta import ObjectMeta


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    container_port: int
    name: str = ""
    protocol: str = "TCP"


class Container(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    ports: tuple[ContainerPort, ...] = ()
    restart_policy: str = ""


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    service_account_name: str = ""
    host_network: bool = False
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()


class PodIP(msgspec.Struct, frozen=True):
    ip: str = ""


class PodCondition(msgspec.Struct, frozen=True):
    type: str
    status: str


class PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    conditions: tuple[PodCondition, ...] = ()


class Pod(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)

    @property
    def finished(self) -> bool:
        """Its containers have ended for good; its address may belong to another pod already."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        return self.metadata.deletion_timestamp is not None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Pod IPs as text, the primary one first. One that no node has been given runs nowhere, and has none whatever
        its status says: who may write `pods/status` could take his neighbours' addresses, and no kubelet would put it
        right."""
        if not self.spec.node_name:
            return ()
        several = tuple(each.ip for each in self.status.pod_ips if each.ip)
        return several or ((self.status.pod_ip,) if self.status.pod_ip else ())

    @property
    def service_account(self) -> str:
        return self.spec.service_account_name or "default"


class TlsData(msgspec.Struct, frozen=True):
    """Base64 of PEM."""

    chain: str = msgspec.field(default="", name="tls.crt")
    key: str = msgspec.field(default="", name="tls.key")
    roots: str = msgspec.field(default="", name="ca.crt")
    """Of clients, for listeners that ask them (`gateway.istio.io/tls-terminate-mode`)."""
    revoked: str = msgspec.field(default="", name="ca.crl")


class Secret(msgspec.Struct, frozen=True):
    """As far as it is a certificate with its key."""

    metadata: ObjectMeta
    data: TlsData = TlsData()

    def __repr__(self) -> str:
        return f"Secret({self.metadata.key})"


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str = 0
    app_protocol: str = ""
    node_port: int = 0


class ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    type: str = "ClusterIP"
    selector: dict[str, str] | None = None
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    ports: tuple[ServicePort, ...] | None = None
    ip_families: tuple[str, ...] = ()
    publish_not_ready_addresses: bool = False
    session_affinity: str = ""
    internal_traffic_policy: str = ""
    traffic_distribution: str = ""
    external_name: str = ""
    external_ips: tuple[str, ...] | None = msgspec.field(default=None, name="externalIPs")


class Ingress(msgspec.Struct, frozen=True):
    """Where a load balancer takes connections: an address or a name."""

    ip: str = ""
    hostname: str = ""


class LoadBalancerStatus(msgspec.Struct, frozen=True):
    ingress: tuple[Ingress, ...] | None = None


class ServiceStatus(msgspec.Struct, frozen=True, rename="camel"):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Service(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Cluster IPs as text; empty for a headless service or while none is allocated."""
        given = self.spec.cluster_ips or ((self.spec.cluster_ip,) if self.spec.cluster_ip else ())
        return tuple(ip for ip in given if ip and ip != "None")

    @property
    def outer_addresses(self) -> tuple[str, ...]:
        """Where it is reached from outside: of a load balancer what that has been given, else its cluster IPs."""
        return self._of_load_balancer if self.spec.type == "LoadBalancer" else self.addresses

    @property
    def every_address(self) -> tuple[str, ...]:
        """All at which the cluster answers for it, as text; of a load balancer names, too."""
        return *self.addresses, *(self.spec.external_ips or ()), *self._of_load_balancer

    @property
    def _of_load_balancer(self) -> tuple[str, ...]:
        given = self.status.load_balancer.ingress or ()
        return tuple(each.ip or each.hostname for each in given if each.ip or each.hostname)

    @property
    def headless(self) -> bool:
        return self.spec.cluster_ip == "None" or "None" in self.spec.cluster_ips


class EndpointConditions(msgspec.Struct, frozen=True):
    """An absent `ready` means ready, an absent `terminating` means not (discovery.k8s.io/v1)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetReference(msgspec.Struct, frozen=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    node_name: str = ""
    target_ref: TargetReference | None = None
    zone: str = ""

    @property
    def is_ready(self) -> bool:
        return self.conditions.ready is not False


class EndpointPort(msgspec.Struct, frozen=True):
    name: str = ""
    port: int | None = None
    protocol: str = "TCP"


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    metadata: ObjectMeta
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service(self) -> str:
        """Name of the Service it belongs to, in its own namespace; empty when it has none."""
        return self.metadata.labels.get("kubernetes.io/service-name", "")


class Namespace(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


class NodeAddress(msgspec.Struct, frozen=True):
    """An IP address or a name."""

    address: str = ""


class NodeStatus(msgspec.Struct, frozen=True):
    addresses: tuple[NodeAddress, ...] | None = None


class NodeSpec(msgspec.Struct, frozen=True):
    pod_cidrs: tuple[str, ...] = msgspec.field(default=(), name="podCIDRs")
    """Ranges of its pods' addresses, where the network plugin leaves that to Kubernetes."""


class Node(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class ConfigData(msgspec.Struct, frozen=True, rename="camel"):
    """Certificates; patches (YAML) to what is made of Gateways."""

    roots: str = msgspec.field(default="", name="ca.crt")
    deployment: str = ""
    service: str = ""
    service_account: str = ""
    horizontal_pod_autoscaler: str = ""
    pod_disruption_budget: str = ""


class ConfigMap(msgspec.Struct, frozen=True):
    """As far as it is read."""

    metadata: ObjectMeta
    data: ConfigData | None = None

    @property
    def roots(self) -> str:
        return self.data.roots if self.data is not None else ""
