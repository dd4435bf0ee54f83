"""What a node proxy's plan is made of: the pods of the node, the node's settings, finished resources."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Protocol

import msgspec
from google.protobuf.any_pb2 import Any

from ambit.core import names as core_names
from ambit.core.address import Address, Network
from ambit.core.identity import Identity, TrustDomains
from ambit.envoy import names
from ambit.model.view import MeshView
from ambit.model.workload import Locality, Workload

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"


class LocalPod(msgspec.Struct, frozen=True):
    """An enrolled pod of this node. `netns` is the path of its pinned namespace, unique to the sandbox;
    `workload` is its record in the workload API once that is known (policy needs it); `generations` of its
    destinations' names, the last one for new connections; `transparent`: its traffic is captured without NAT;
    `within`: what enters over its virtual interfaces is its own."""

    uid: str
    namespace: str
    name: str
    sandbox: str
    identity: Identity
    addresses: tuple[Address, ...]
    netns: str
    workload: Workload | None = None
    generations: tuple[int, ...] = (0,)
    transparent: bool = False
    within: bool = False

    @property
    def key(self) -> str:
        """POD in `ambit.envoy.names`."""
        return names.pod_key(self.namespace, self.name, self.sandbox)


class LocalPods:
    """The pods of a node, by key and by address; immutable once made. `former` are found by key only. `unread` has
    ports, by key of their pod, whose requests are to be read, and may not be yet, `untold` those that are to be read
    only to be told of."""

    def __init__(
        self,
        pods: Iterable[LocalPod] = (),
        former: Iterable[LocalPod] = (),
        unread: Mapping[str, Collection[int]] = MappingProxyType({}),
        untold: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> None:
        self._unread = unread
        self._untold = untold
        self._by_key = {pod.key: pod for pod in pods}
        self._former = {pod.key: pod for pod in former}
        self._by_address = {address: pod for pod in self._by_key.values() for address in pod.addresses}

    def by_key(self, key: str) -> LocalPod | None:
        return self._by_key.get(key) or self._former.get(key)

    def by_address(self, address: Address) -> LocalPod | None:
        return self._by_address.get(address)

    def is_unread(self, pod: LocalPod, port: int) -> bool:
        """Whether what comes to this port is to be read and may not be yet."""
        return port in self._unread.get(pod.key, ())

    def is_untold(self, pod: LocalPod, port: int) -> bool:
        """Whether what comes to this port is to be read to be told of, and nobody may be there yet who does."""
        return port in self._untold.get(pod.key, ())

    def __iter__(self) -> Iterator[LocalPod]:
        return iter(self._by_key.values())


class NodeSettings(msgspec.Struct, frozen=True):
    """What holds for a whole node. `same_node_tls` sends traffic between two pods of the node through a
    tunnel as well; `max_connections` bounds accepted connections of the whole proxy. Addresses in `cluster_ranges` are
    pods' and Services' of this cluster only: one that nothing in the mesh view has is refused."""

    node: str
    network: str = ""
    trust_domain: str = core_names.DEFAULT_TRUST_DOMAIN
    cluster_id: str = core_names.DEFAULT_CLUSTER_ID
    region: str = ""
    zone: str = ""
    subzone: str = ""
    same_node_tls: bool = False
    max_connections: int = 50_000
    trust_domain_aliases: tuple[str, ...] = ()
    cluster_ranges: tuple[Network, ...] = ()

    @property
    def trust_domains(self) -> TrustDomains:
        return TrustDomains(self.trust_domain, self.trust_domain_aliases)


def is_of(pod: LocalPod, workload: Workload, settings: NodeSettings) -> bool:
    """Whether a record of the workload API says the same about who the pod is as its node does."""
    return (pod.namespace, pod.name) == (
        workload.namespace,
        workload.name,
    ) and settings.trust_domains.are_same(pod.identity, workload.identity)


class PlannedResource(msgspec.Struct, frozen=True):
    """One resource for Envoy. `version` is a hash of the content; `body` is a serialised
    `google.protobuf.Any`; an `on_demand` resource is sent only to who asks for its name, never with a
    wildcard."""

    type_url: str
    name: str
    version: str
    body: bytes
    on_demand: bool = False


class Message(Protocol):
    """A protobuf message, as far as we use it."""

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...  # noqa: N802 - protobuf's name


def planned(type_url: str, name: str, message: Message, *, on_demand: bool = False) -> PlannedResource:
    """A finished resource from a message. Equal messages give equal versions."""
    value = message.SerializeToString(deterministic=True)
    body = Any(type_url=type_url, value=value).SerializeToString()
    version = hashlib.blake2b(value, digest_size=8).hexdigest()
    return PlannedResource(type_url, name, version, body, on_demand)


def workload_of(pod: LocalPod, view: MeshView, settings: NodeSettings) -> Workload | None:
    """The pod's record in the workload API, if it is there and says the same about who the pod is."""
    if pod.workload is not None:
        return pod.workload
    for address in pod.addresses:
        found = view.workload_by_address(settings.network, address)
        if found is not None and is_of(pod, found, settings):
            return found
    return None


def place_of(pod: LocalPod, view: MeshView, settings: NodeSettings) -> NodeSettings:
    """The settings with the place of the pod in that of its node, where its record in the workload API is known."""
    workload = workload_of(pod, view, settings)
    return settings if workload is None else at(workload.locality, settings)


def at(place: Locality, settings: NodeSettings) -> NodeSettings:
    return msgspec.structs.replace(settings, region=place.region, zone=place.zone, subzone=place.subzone)
