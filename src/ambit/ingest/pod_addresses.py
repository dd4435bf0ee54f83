"""Which of the addresses in its status are a pod's: who may write `pods/status` could name those of others.

Rules (each has a test of the same number):

1. Pods in their node's network all have the node's addresses.
2. Of several pods that say they have one address of a network one has it: one whose node exists, before those whose
   range of addresses (`podCIDRs` of their node) is another, before those that terminate (their address may be given
   away already), before younger ones.
3. An address of a Service, or of another node, is a pod's only when it is of its node's range.

A pod's own node would know best, but nobody asks it: what it says goes by the same status.
"""

import ipaddress

import msgspec

from ambit.core.address import Network
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


class PodAddresses:
    """Answers read through the context, so they are asked again when they change."""

    def __init__(self, graph: Graph, nodes: Collection[Node], owners: Owners, settings: MeshSettings) -> None:
        self._owners = owners
        self._settings = settings
        self._places = graph.derive("ranges of nodes", nodes, lambda _, node: _place(node))
        self._nodes_at = nodes.index(
            lambda node: (normal(each.address) for each in node.status.addresses or ())
        )

    def of(self, context: Context, pod: Pod) -> tuple[str, ...]:
        """Those that are its own, as its status writes them, the primary one first."""
        if pod.spec.host_network:
            return pod.addresses
        return tuple(each for each in pod.addresses if self._has(context, pod, normal(each)))

    def _has(self, context: Context, pod: Pod, address: str) -> bool:
        if not self._is_of_its_node(context, pod, address):
            nodes = context.lookup(self._nodes_at, address)
            others = any(each.metadata.name != pod.spec.node_name for each in nodes)
            if others or self._owners.services_at(context, address):
                return False
        network = self._settings.network_of(pod.metadata.labels)
        rivals = [
            each
            for each in self._owners.pods_at(context, address)
            if not each.spec.host_network and self._settings.network_of(each.metadata.labels) == network
        ]
        first = min(rivals, key=lambda each: self._rank(context, each, address), default=pod)
        return first.metadata.key == pod.metadata.key

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


def _place(node: Node) -> _Place:
    found = []
    for text in node.spec.pod_cidrs:
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            continue
    return _Place(tuple(found))
