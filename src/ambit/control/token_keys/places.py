"""Where keys of tokens may be fetched. Pure.

Whoever may write a RequestAuthentication chooses what the control plane dials, which reaches more than the author does.
So it dials public addresses only, and Services by their names: those of the object's own namespace, and of another one
whose ReferenceGrant allows it. It never dials itself, its links, metadata of clouds, or the API server. An option adds
networks (Istio forbids some, `BLOCKED_CIDRS_IN_JWKS_URIS`, and allows the others).
"""

import ipaddress
from collections.abc import Callable

import msgspec

from ambit.control.view import LiveView
from ambit.core.address import Address, Network
from ambit.core.names import CLUSTER_DOMAIN, ROOT_NAMESPACE, SYSTEM_NAMESPACE
from ambit.model.service import Service
from ambit.model.workload import NetworkMode, WorkloadStatus

_METADATA = frozenset(
    ipaddress.ip_address(each)
    for each in ("169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")
)
"""Of AWS, Google and others; Azure; Alibaba; Oracle; AWS."""
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: an IPv4 address is in the last four bytes."""
_API_SERVER = ("default", "kubernetes")
_CONTROL_PLANE = ("istiod", "ambit-control")
"""Services of the control plane."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What is allowed. `networks` are private ones that objects of all namespaces may name, `domain` is the cluster's,
    objects of `root_namespace` may name any Service. `is_granted` returns whether a ReferenceGrant lets
    RequestAuthentications of a namespace refer to the Service with this namespace and name, `is_own` whether an address
    is of this machine or pod."""

    networks: tuple[Network, ...] = ()
    domain: str = CLUSTER_DOMAIN
    root_namespace: str = ROOT_NAMESPACE
    system_namespace: str = SYSTEM_NAMESPACE
    is_granted: Callable[[str, str, str], bool] = lambda *_: False
    is_own: Callable[[Address], bool] = lambda _: False


class Places:
    """Decides by the Services and workloads of `view`."""

    def __init__(self, view: LiveView, limits: Limits) -> None:
        self._view = view
        self._limits = limits
        self._allowed = limits.networks
        self._domain = limits.domain

    def why_not(self, namespace: str, host: str, given: Address) -> str:
        """Why `given`, which is an address of `host`, is not dialled for an object of this namespace; empty when it
        is."""
        address = plain(given)
        if (
            address.is_loopback
            or address.is_link_local
            or address.is_multicast
            or address.is_unspecified
            or address in _METADATA
        ):
            return f"{host} leads to {address}, which is never asked"
        api = self._view.service(self._key(*_API_SERVER))
        if api is not None and address in self._addresses(api):
            return f"{host} leads to the API server, which is never asked"
        if self._limits.is_own(address) or self._is_control_plane(address):
            return f"{host} leads to the control plane, which is never asked"
        service = self._named(host)
        if service is not None and address in self._addresses(service):
            return self._why_not_granted(namespace, service) or self._why_not_service(service)
        if any(address.version == each.version and address in each for each in self._allowed):
            return ""
        if not address.is_global:
            return f"{host} leads to {address}, which is not public"
        if any(address in each.addresses for each in self._view.workloads.values()):
            return f"{host} leads to {address}, which is a workload's: ask a Service by its name"
        return ""

    def discloses(self, namespace: str, host: str, address: Address) -> bool:
        """Whether an object of this namespace may show how the server at this address answers: one of its own
        namespace, and public ones."""
        service = self._named(host)
        if service is not None:
            return namespace in (service.namespace, self._limits.root_namespace)
        return plain(address).is_global

    def dialled(self, host: str, address: Address, port: int) -> tuple[Address, int] | None:
        """Where to connect for an address of `host` that may be asked. For a Service's virtual address that is one of
        its pods: behind the virtual one the cluster puts whatever an EndpointSlice says, also of a pod that it names
        (CVE-2021-25740). None when it has no pod for this port."""
        service = self._named(host)
        if service is None or plain(address) not in service.single_addresses:
            return address, port
        found: list[tuple[bool, str, Address, int]] = [
            (each.status is not WorkloadStatus.HEALTHY, each.uid, own, target.target)
            for each in self._view.endpoints(service)
            for own in each.addresses
            for target in each.services.get(service.key, ())
            if target.service == port and target.target and own.version == plain(address).version
        ]
        return min(found)[2:] if found else None

    def _is_control_plane(self, address: Address) -> bool:
        keys = (self._key(self._limits.system_namespace, name) for name in _CONTROL_PLANE)
        found = [service for key in keys if (service := self._view.service(key)) is not None]
        return any(address in self._addresses(each) for each in found)

    def _why_not_granted(self, namespace: str, service: Service) -> str:
        limits = self._limits
        if namespace in (service.namespace, limits.root_namespace):
            return ""
        if namespace and limits.is_granted(namespace, service.namespace, service.name):
            return ""
        return (
            f"{service.hostname} is of another namespace: a ReferenceGrant in namespace {service.namespace} has to let"
            f" RequestAuthentications (security.istio.io) of namespace {namespace or '?'} refer to the Service"
        )

    def _why_not_service(self, service: Service) -> str:
        """An EndpointSlice puts any address behind a Service, and pods of any namespace (CVE-2021-25740)."""
        strangers = [
            each
            for each in self._view.endpoints(service)
            if not each.is_pod
            or each.namespace != service.namespace
            or each.network_mode is NetworkMode.HOST_NETWORK
        ]
        if strangers:
            return f"{service.hostname} has endpoints that are no pods of its namespace, or are in a node's network"
        return ""

    def _named(self, host: str) -> Service | None:
        """The Kubernetes Service that a name is of."""
        name, _, rest = host.rstrip(".").lower().partition(".")
        namespace, _, end = rest.partition(".")
        if end not in ("", "svc", f"svc.{self._domain}"):
            return None
        service = self._view.service(self._key(namespace, name))
        return service if service is not None and service.is_kubernetes else None

    def _addresses(self, service: Service) -> set[Address]:
        return set(service.single_addresses).union(
            *(each.addresses for each in self._view.endpoints(service))
        )

    def _key(self, namespace: str, name: str) -> str:
        return f"{namespace}/{name}.{namespace}.svc.{self._domain}"


def plain(address: Address) -> Address:
    """The IPv4 address inside of an IPv6 one, where there is one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
