"""The mesh view with a memory of what was read: a change recomputes exactly the answers that depend on it.

Properties: an answer that read a key is found by every change that touches this key; forgetting an answer
leaves nothing behind.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ambit.core.address import Address, Network
from ambit.model.policy import Authorization
from ambit.model.service import Service
from ambit.model.view import MeshView
from ambit.model.workload import Workload
from ambit.node.state import keys
from ambit.plan.values import LocalPod, LocalPods


class Answer(NamedTuple):
    """A pod's resources (`pod` and its key) or an on-demand cluster (`cluster` and its name)."""

    kind: str
    name: str


class TrackedView:
    """A `MeshView` that records the keys of its lookups in `read`, and whether a service with inline routes was
    found by its address."""

    def __init__(self, view: MeshView) -> None:
        self._view = view
        self.read: set[str] = set()
        self.has_inline = False

    def workload(self, uid: str) -> Workload | None:
        self.read.add(keys.resource(uid))
        return self._view.workload(uid)

    def workload_by_address(self, network: str, address: Address) -> Workload | None:
        self.read.add(keys.address_of(network, address))
        return self._view.workload_by_address(network, address)

    def service(self, key: str) -> Service | None:
        self.read.add(keys.resource(key))
        return self._view.service(key)

    def service_by_address(
        self, network: str, address: Address, *, client_namespace: str = ""
    ) -> Service | None:
        self.read |= {keys.address_of(network, address), keys.RANGES}
        found = self._view.service_by_address(network, address, client_namespace=client_namespace)
        if found is not None:
            self.read.add(keys.resource(found.key))
            self.has_inline = self.has_inline or found.inline is not None
        return found

    def has_address(self, network: str, address: Address) -> bool:
        self.read.add(keys.address_of(network, address))
        return self._view.has_address(network, address)

    def endpoints(self, service: Service) -> Sequence[Workload]:
        self.read.add(keys.endpoints(service.key))
        return self._view.endpoints(service)

    def policies_for(self, workload: Workload) -> tuple[tuple[Authorization, ...], tuple[str, ...]]:
        self.read |= {"p:*", f"p:{workload.namespace}", keys.resource(workload.uid)}
        self.read |= {keys.policy(name) for name in workload.policies}
        return self._view.policies_for(workload)

    def outer_networks(self, network: str) -> tuple[Network, ...]:
        self.read.add(keys.OUTER)
        return self._view.outer_networks(network)


class TrackedPods(LocalPods):
    """The node's pods; lookups are recorded in `read`."""

    def __init__(
        self,
        pods: Iterable[LocalPod],
        unread: Mapping[str, Collection[int]] = MappingProxyType({}),
        untold: Mapping[str, Collection[int]] = MappingProxyType({}),
    ) -> None:
        super().__init__(pods, unread=unread, untold=untold)
        self.read: set[str] = set()

    def by_key(self, key: str) -> LocalPod | None:
        self.read.add(f"k:{key}")
        return super().by_key(key)

    def by_address(self, address: Address) -> LocalPod | None:
        self.read.add(f"l:{address}")
        return super().by_address(address)


def pod_keys(pod: LocalPod) -> frozenset[str]:
    """Keys of every lookup that finds this pod among the node's."""
    return frozenset({f"k:{pod.key}", *(f"l:{address}" for address in pod.addresses)})


class Dependencies:
    """Which answer read which keys."""

    def __init__(self) -> None:
        self._reads: dict[Answer, frozenset[str]] = {}
        self._readers: dict[str, set[Answer]] = {}

    def record(self, answer: Answer, read: Iterable[str]) -> None:
        """Replaces what was recorded for it."""
        self.forget(answer)
        self._reads[answer] = frozenset(read)
        for key in self._reads[answer]:
            self._readers.setdefault(key, set()).add(answer)

    def forget(self, answer: Answer) -> None:
        for key in self._reads.pop(answer, ()):
            readers = self._readers[key]
            readers.discard(answer)
            if not readers:
                del self._readers[key]

    def on(self, touched: Iterable[str]) -> set[Answer]:
        """Answers that read any of these keys."""
        found: set[Answer] = set()
        for key in touched:
            found |= self._readers.get(key, set())
        return found

    def __iter__(self) -> Iterator[Answer]:
        """All answers, in order; recording while iterating is fine."""
        return iter(sorted(self._reads))

    def __len__(self) -> int:
        return len(self._reads)
