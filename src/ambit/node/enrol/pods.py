"""The few fields of Pod and Namespace objects that the agent reads, and what they decide."""

import ipaddress

import msgspec

from ambit.core.address import Address
from ambit.core.enrolment import is_enrolled
from ambit.core.identity import Identity
from ambit.core.names import DNS_CAPTURE_ANNOTATION, REDIRECTION_ANNOTATION, REDIRECTION_ENABLED

BYPASS_INBOUND_ANNOTATION = "ambient.istio.io/bypass-inbound-capture"
_FINISHED = frozenset({"Succeeded", "Failed"})


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None


class _DnsConfig(msgspec.Struct, frozen=True):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    host_network: bool = False
    service_account_name: str = "default"
    dns_config: _DnsConfig = _DnsConfig()


class _PodIp(msgspec.Struct, frozen=True):
    ip: str = ""


class _Status(msgspec.Struct, frozen=True, rename={"pod_ips": "podIPs"}):
    phase: str = "Pending"
    pod_ips: tuple[_PodIp, ...] = ()


class Pod(msgspec.Struct, frozen=True):
    """A pod as the API shows it."""

    metadata: _Metadata
    spec: _Spec = _Spec()
    status: _Status = _Status()

    @property
    def key(self) -> tuple[str, str]:
        return self.metadata.namespace, self.metadata.name

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def addresses(self) -> tuple[Address, ...]:
        return tuple(ipaddress.ip_address(each.ip) for each in self.status.pod_ips if each.ip)

    @property
    def terminating(self) -> bool:
        return self.metadata.deletion_timestamp is not None or self.status.phase in _FINISHED

    @property
    def running(self) -> bool:
        return self.status.phase == "Running"

    @property
    def annotated(self) -> bool:
        return self.metadata.annotations.get(REDIRECTION_ANNOTATION) == REDIRECTION_ENABLED

    @property
    def captures_dns(self) -> bool:
        return self.metadata.annotations.get(DNS_CAPTURE_ANNOTATION, "true").lower() != "false"

    @property
    def captures_inbound(self) -> bool:
        return self.metadata.annotations.get(BYPASS_INBOUND_ANNOTATION, "false").lower() != "true"

    def identity(self, trust_domain: str) -> Identity:
        account = self.spec.service_account_name or "default"
        return Identity(trust_domain, self.metadata.namespace, account)


class Namespace(msgspec.Struct, frozen=True):
    metadata: _Metadata


pod_decoder = msgspec.json.Decoder(Pod)
namespace_decoder = msgspec.json.Decoder(Namespace)


def wanted(pod: Pod, namespace: Namespace | None) -> bool:
    """Whether the pod's labels and its namespace's ask for capture. Unknown namespaces ask for nothing."""
    return is_enrolled(
        namespace.metadata.labels if namespace is not None else {},
        pod.metadata.labels,
        host_network=pod.spec.host_network,
    )
