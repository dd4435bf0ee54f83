"""Which of the addresses in its status are a pod's: who may write `pods/status` could name those of others.

Rules (each has a test of the same number):

1. Pods in their node's network all have the node's addresses.
2. Of several pods that say they have one address of a network one has it: one whose node exists, before those whose
   range of addresses (`podCIDRs` of their node) is another, before those that terminate (their address may be given
   away already), before younger ones.
3. An address of a Service, or of another node, is a pod's only when it is of its node's range.

A pod's own node would know best, but nobody asks it: what it says goes by the same status. Of a pod that terminates no
finding tells: its address may be another's already.
"""

import ipaddress

import msgspec

from ambit.core.address import Network
from ambit.core.finding import Finding, Level, ObjectRef
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.owners import Owners, normal
from ambit.ingest.settings import MeshSettings
from ambit.objects.kube import Node, Pod


class _Place(msgspec.Struct, frozen=True):
    """Addresses that are given to pods of a node."""

    ranges: tuple[Network, ...] = ()

    def has(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(each.version == address.version and address in each for each in self.ranges)


class _Owned(msgspec.Struct, frozen=True):
    """Of the addresses in a pod's status its own, and those that it lost, with whom they belong to."""

    origin: ObjectRef
    own: tuple[str, ...]
    lost: tuple[tuple[str, ObjectRef], ...] = ()


class PodAddresses:
    """`findings` are about pods that lost an address, by the text of the pod and `(addresses)`."""

    def __init__(
        self,
        graph: Graph,
        pods: Collection[Pod],
        nodes: Collection[Node],
        owners: Owners,
        settings: MeshSettings,
    ) -> None:
        self._owners = owners
        self._settings = settings
        self._places = graph.derive("ranges of nodes", nodes, lambda _, node: _place(node))
        self._nodes_at = nodes.index(
            lambda node: (normal(each.address) for each in node.status.addresses or ())
        )
        self._owned: Collection[_Owned] = graph.derive("own addresses of pods", pods, self._owned_by)
        self.findings: Collection[tuple[Finding, ...]] = graph.derive(
            "addresses that pods lost",
            self._owned,
            lambda _, given: tuple(_finding(given.origin, *each) for each in given.lost) or None,
            key=lambda found: f"{found[0].origin} (addresses)",
        )

    def of(self, context: Context, pod: Pod) -> tuple[str, ...]:
        """Those that are its own, as its status writes them, the primary one first."""
        found = context.get(self._owned, pod.metadata.key)
        return found.own if found is not None else ()

    def _owned_by(self, context: Context, pod: Pod) -> _Owned | None:
        if pod.finished or not pod.addresses:
            return None
        origin = pod.metadata.reference("Pod")
        if pod.spec.host_network:
            return _Owned(origin, pod.addresses)
        others = {each: self._other(context, pod, normal(each)) for each in pod.addresses}
        lost = tuple((address, other) for address, other in others.items() if other is not None)
        own = tuple(each for each in pod.addresses if others[each] is None)
        return _Owned(origin, own, () if pod.terminating else lost)

    def _other(self, context: Context, pod: Pod, address: str) -> ObjectRef | None:
        """Whose an address is that a pod says it has; None for its own."""
        if not self._is_of_its_node(context, pod, address):
            for node in context.lookup(self._nodes_at, address):
                if node.metadata.name != pod.spec.node_name:
                    return node.metadata.reference("Node")
            for service in self._owners.services_at(context, address):
                return service.metadata.reference("Service")
        network = self._settings.network_of(pod.metadata.labels)
        rivals = [
            each
            for each in self._owners.pods_at(context, address)
            if not each.spec.host_network and self._settings.network_of(each.metadata.labels) == network
        ]
        first = min(rivals, key=lambda each: self._rank(context, each, address), default=pod)
        return None if first.metadata.key == pod.metadata.key else first.metadata.reference("Pod")

    def _rank(
        self, context: Context, pod: Pod, address: str
    ) -> tuple[bool, bool, bool, tuple[str, str, str]]:
        """The smallest has the address."""
        return (
            context.get(self._places, pod.spec.node_name) is None,
            not self._is_of_its_node(context, pod, address),
            pod.terminating,
            pod.metadata.age,
        )

    def _is_of_its_node(self, context: Context, pod: Pod, address: str) -> bool:
        place = context.get(self._places, pod.spec.node_name)
        return place is not None and place.has(address)


def _finding(origin: ObjectRef, address: str, other: ObjectRef) -> Finding:
    text = f"{address} is the address of {other}: nobody is sent there for this pod, nor is it known to call from there"
    return Finding("AMB0308", Level.WARNING, origin, "status.podIPs", text)


def _place(node: Node) -> _Place:
    found = []
    for text in node.spec.pod_cidrs:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue
    return _Place(tuple(found))
