"""The few fields of Pod and Namespace objects that the agent reads, and what they decide."""

import ipaddress
from collections.abc import Collection, Iterator

import msgspec

from ambit.core import enrolment
from ambit.core.address import Address
from ambit.core.identity import Identity
from ambit.core.names import (
    BYPASS_INBOUND_ANNOTATION,
    DNS_CAPTURE_ANNOTATION,
    NOT_CAPTURED_ANNOTATION,
    REDIRECTION_ANNOTATION,
    REDIRECTION_ENABLED,
)

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
REROUTE_ANNOTATION = "istio.io/reroute-virtual-interfaces"
FURTHER_NETWORKS = ("k8s.v1.cni.cncf.io/networks", REROUTE_ANNOTATION)
"""Annotations of pods with more than one interface: Multus's, and Istio's for what runs virtual machines."""
_OVER_NETWORKS = frozenset({"ALL", "NET_ADMIN", "SYS_ADMIN"})
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


class _Port(msgspec.Struct, frozen=True, rename="camel"):
    container_port: int
    name: str = ""


class _Action(msgspec.Struct, frozen=True):
    port: int | str
    host: str = ""


class _Handler(msgspec.Struct, frozen=True, rename={"http_get": "httpGet", "tcp_socket": "tcpSocket"}):
    http_get: _Action | None = None
    tcp_socket: _Action | None = None
    grpc: _Action | None = None


class _Lifecycle(msgspec.Struct, frozen=True, rename="camel"):
    post_start: _Handler | None = None
    pre_stop: _Handler | None = None


class _Capabilities(msgspec.Struct, frozen=True):
    add: tuple[str, ...] = ()


class _SecurityContext(msgspec.Struct, frozen=True):
    privileged: bool = False
    capabilities: _Capabilities | None = None

    @property
    def changes_networks(self) -> bool:
        added = self.capabilities.add if self.capabilities is not None else ()
        return self.privileged or not _OVER_NETWORKS.isdisjoint(each.removeprefix("CAP_") for each in added)


class _Container(msgspec.Struct, frozen=True, rename="camel"):
    security_context: _SecurityContext | None = None
    ports: tuple[_Port, ...] = ()
    startup_probe: _Handler | None = None
    liveness_probe: _Handler | None = None
    readiness_probe: _Handler | None = None
    lifecycle: _Lifecycle = _Lifecycle()

    def probed(self) -> Iterator[int]:
        """Ports of the pod's own address that the kubelet opens."""
        hooks = self.lifecycle.post_start, self.lifecycle.pre_stop
        for handler in (self.startup_probe, self.liveness_probe, self.readiness_probe, *hooks):
            for action in (handler.http_get, handler.tcp_socket, handler.grpc) if handler is not None else ():
                if action is not None and not action.host:
                    yield from self._numbers(action.port)

    def _numbers(self, port: int | str) -> Iterator[int]:
        if isinstance(port, int) or port.isdecimal():
            yield int(port)
        else:
            yield from (each.container_port for each in self.ports if each.name == port)


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    containers: tuple[_Container, ...] = ()
    init_containers: tuple[_Container, ...] = ()
    host_network: bool = False
    service_account_name: str = "default"
    dns_policy: str = "ClusterFirst"
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
        return self.said == (REDIRECTION_ENABLED, "")

    @property
    def said(self) -> tuple[str, str]:
        """What its annotations say of its capture: the redirection, and why it is not captured."""
        found = self.metadata.annotations
        return found.get(REDIRECTION_ANNOTATION, ""), found.get(NOT_CAPTURED_ANNOTATION, "")

    @property
    def static(self) -> bool:
        """Whether this only mirrors a pod that the kubelet has from a file: its uid here is not that on the node."""
        return MIRROR_ANNOTATION in self.metadata.annotations

    @property
    def dns_wish(self) -> str:
        """What the pod says of the capture of its DNS questions: `true`, `false`, or nothing."""
        return self.metadata.annotations.get(DNS_CAPTURE_ANNOTATION, "").lower()

    @property
    def captures_inbound(self) -> bool:
        return self.metadata.annotations.get(BYPASS_INBOUND_ANNOTATION, "false").lower() != "true"

    @property
    def virtual_interfaces(self) -> tuple[str, ...]:
        """Interfaces of the pod whose TCP counts as sent by the pod, as its annotation names them."""
        named = self.metadata.annotations.get(REROUTE_ANNOTATION, "").split(",")
        return tuple(sorted({each.strip() for each in named} - {""}))

    @property
    def own_network(self) -> str:
        """Why the pod's network may be other than the node made it; empty when it is not."""
        for name in FURTHER_NETWORKS:
            if name in self.metadata.annotations:
                return f"it has the annotation {name}"
        containers = (*self.spec.init_containers, *self.spec.containers)
        if any(
            each.security_context is not None and each.security_context.changes_networks
            for each in containers
        ):
            return "it may change its own network"
        return ""

    @property
    def probe_ports(self) -> tuple[int, ...]:
        """Ports that the kubelet's probes and hooks open, in order."""
        containers = (*self.spec.init_containers, *self.spec.containers)
        return tuple(sorted({port for each in containers for port in each.probed()}))

    def identity(self, trust_domain: str) -> Identity:
        account = self.spec.service_account_name or "default"
        return Identity(trust_domain, self.metadata.namespace, account)


class Namespace(msgspec.Struct, frozen=True):
    metadata: _Metadata


pod_decoder = msgspec.json.Decoder(Pod)
namespace_decoder = msgspec.json.Decoder(Namespace)


def wanted(pod: Pod, namespace: Namespace | None, excluded: Collection[str] = ()) -> bool:
    """Whether the pod and its namespace's labels ask for capture and nothing is against it. Unknown namespaces ask for
    nothing; those that are `excluded` are never captured."""
    return _asks(pod, namespace) and not _objection(pod, excluded)


def refusal(pod: Pod, namespace: Namespace | None, excluded: Collection[str] = ()) -> str:
    """Why a pod that asks for capture is not to be captured; empty for all others."""
    return _objection(pod, excluded) if _asks(pod, namespace) else ""


def _asks(pod: Pod, namespace: Namespace | None) -> bool:
    return enrolment.asks(namespace.metadata.labels if namespace is not None else {}, pod.metadata.labels)


def _objection(pod: Pod, excluded: Collection[str]) -> str:
    return enrolment.objection(
        pod.metadata.namespace,
        pod.metadata.annotations,
        host_network=pod.spec.host_network,
        excluded=excluded,
    )
