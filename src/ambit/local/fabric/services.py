"""Services and their endpoints as the fabric sees them: small projections.

Their readers act for everybody, so what makes no sense in one object (no address, no port, the other family) is left
out of that object when it is read: `read_service` and `read_slice`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address

import msgspec

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Metadata(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    uid: str = ""
    creation_timestamp: str = msgspec.field(default="", name="creationTimestamp")

    @property
    def age(self) -> tuple[str, str, str]:
        """Sorts the oldest first; between objects of one second by namespace and name."""
        return (self.creation_timestamp or "9999", self.namespace, self.name)


class ServicePort(msgspec.Struct, frozen=True, rename="camel"):
    port: int
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0


class ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    external_ips: tuple[str, ...] = msgspec.field(default=(), name="externalIPs")
    external_name: str = ""
    ports: tuple[ServicePort, ...] | None = None
    load_balancer_class: str = ""
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")
    session_affinity: str = ""
    internal_traffic_policy: str = ""
    publish_not_ready_addresses: bool = False


class Ingress(msgspec.Struct, frozen=True):
    ip: str = ""


class LoadBalancer(msgspec.Struct, frozen=True):
    ingress: tuple[Ingress, ...] | None = None


class ServiceStatus(msgspec.Struct, frozen=True, rename="camel"):
    load_balancer: LoadBalancer = LoadBalancer()


class Service(msgspec.Struct, frozen=True):
    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    @property
    def key(self) -> tuple[str, str]:
        return (self.metadata.namespace, self.metadata.name)

    @property
    def headless(self) -> bool:
        return self.spec.cluster_ip == "None"

    @property
    def cluster_addresses(self) -> tuple[str, ...]:
        """Empty for a headless one, and while none is allocated."""
        given = self.spec.cluster_ips or (self.spec.cluster_ip,)
        return tuple(address for address in given if address and address != "None")

    @property
    def balanced(self) -> bool:
        """Whether our own load balancer serves it."""
        return self.spec.type == "LoadBalancer" and not self.spec.load_balancer_class

    @property
    def balancer_addresses(self) -> tuple[str, ...]:
        return tuple(ingress.ip for ingress in self.status.load_balancer.ingress or () if ingress.ip)


class Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    hostname: str = ""
    node_name: str = ""

    @property
    def is_ready(self) -> bool:
        """An absent condition means ready (discovery.k8s.io/v1)."""
        return self.conditions.ready is not False

    @property
    def is_last_resort(self) -> bool:
        """Terminating but still serving: used when nothing is ready, as kube-proxy does (KEP-1669)."""
        return bool(self.conditions.serving and self.conditions.terminating)


class EndpointPort(msgspec.Struct, frozen=True):
    name: str | None = ""
    port: int | None = None
    protocol: str | None = "TCP"


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    metadata: Metadata
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None

    @property
    def service(self) -> tuple[str, str]:
        """Key of the Service it belongs to."""
        return (self.metadata.namespace, self.metadata.labels.get(SERVICE_NAME_LABEL, ""))

    def target_port(self, port: ServicePort) -> int | None:
        """The number that the port of the Service has on these endpoints."""
        for candidate in self.ports or ():
            if (candidate.name or "") == port.name and (candidate.protocol or "TCP") == port.protocol:
                return candidate.port
        return None


_decode_service = msgspec.json.Decoder(Service).decode
_decode_slice = msgspec.json.Decoder(EndpointSlice).decode


def read_service(body: bytes) -> Service:
    """With those addresses only that are some. Raises msgspec.DecodeError."""
    given = _decode_service(body)
    spec, ingress = given.spec, given.status.load_balancer.ingress or ()
    spec = msgspec.structs.replace(
        spec,
        cluster_ip=spec.cluster_ip if spec.cluster_ip == "None" else next(_addresses([spec.cluster_ip]), ""),
        cluster_ips=tuple(_addresses(spec.cluster_ips)),
        external_ips=tuple(_addresses(spec.external_ips)),
    )
    kept = tuple(each for each in ingress if any(_addresses([each.ip])))
    return msgspec.structs.replace(given, spec=spec, status=ServiceStatus(LoadBalancer(kept)))


def read_slice(body: bytes) -> EndpointSlice:
    """With those endpoints and ports only that something can be sent to. Raises msgspec.DecodeError."""
    given = _decode_slice(body)
    version = {"IPv4": 4, "IPv6": 6}.get(given.address_type)
    endpoints = tuple(
        msgspec.structs.replace(each, addresses=addresses, hostname=_label(each.hostname))
        for each in given.endpoints or ()
        if (addresses := tuple(_addresses(each.addresses, version)))
    )
    ports = tuple(each for each in given.ports or () if each.port is None or 0 < each.port < 65536)
    return msgspec.structs.replace(given, endpoints=endpoints, ports=ports)


def _addresses(texts: Iterable[str], version: int | None = None) -> Iterator[str]:
    for text in texts:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if version in (None, address.version) and not getattr(address, "scope_id", None):
            yield text


def _label(text: str) -> str:
    return text if _LABEL.fullmatch(text) else ""


SlicesByService = Mapping[tuple[str, str], tuple[EndpointSlice, ...]]
