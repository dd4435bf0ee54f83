"""How far the nodes are that enforce policies for requests themselves, at the pods of services without a proxy between.
No I/O.

Rules travel with their service, so a node has a policy when it has acknowledged the service as it was published last.
Nodes count that are connected here and have pods of the service.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet

from ambit.control.answers import Answer
from ambit.control.view import LiveView
from ambit.core.finding import ObjectRef
from ambit.ingest.mesh import MeshDelta
from ambit.ingest.statuses.policy_statuses import KIND as POLICY_KIND
from ambit.model.service import Service

Find = Callable[[str, int, AbstractSet[str]], Iterator[Answer]]


class RuledNodes:
    """`find` has what these nodes have said of the service of this key, published with this revision."""

    def __init__(self, view: LiveView, find: Find) -> None:
        self._view = view
        self._find = find
        self._revisions: dict[str, int] = {}
        """By key of the service."""
        self._origins: dict[str, frozenset[ObjectRef]] = {}
        self._services: dict[ObjectRef, set[str]] = defaultdict(set)
        """By what their rules come from."""
        self._nodes: dict[str, frozenset[str]] = {}
        """With pods of a service, by its key, since the mesh changed last."""
        self._awaited: dict[ObjectRef, str] = {}
        """A node without whose answer all that enforce the policy cannot have answered, since the mesh changed last."""

    def compiled(self, delta: MeshDelta, revision: int) -> None:
        """A batch was published; nodes that have all of it have acknowledged this revision of addresses."""
        for key, service in delta.services.upserts.items():
            origins = _origins(service)
            self._note(key, origins)
            if origins:
                self._revisions[key] = revision
        for key in delta.services.removals:
            self._note(key, frozenset())
        self._nodes.clear()
        self._awaited.clear()

    def answers(self, origin: ObjectRef) -> Iterator[Answer]:
        """Of each node that enforces this object's policy; several, when it does for several services."""
        for key in sorted(self._services.get(origin, ())):
            if nodes := self._with_pods(key):
                yield from self._find(key, self._revisions[key], nodes)

    def answered(self, node: str, policies: Iterable[ObjectRef]) -> list[ObjectRef]:
        """Those of these policies that nobody is behind with, now that this node has answered or is gone. Called at
        every answer, so it asks about a policy only where that node may be the last one."""
        return [
            each for each in policies if self._awaited.get(each, node) == node and self._is_last(node, each)
        ]

    def _is_last(self, node: str, origin: ObjectRef) -> bool:
        if not any(node in self._with_pods(key) for key in self._services.get(origin, ())):
            return False
        self._awaited.pop(origin, None)
        is_anybody = False
        for each in self.answers(origin):
            if each.behind:
                self._awaited[origin] = each.node
                return False
            is_anybody = True
        return is_anybody

    def _with_pods(self, key: str) -> frozenset[str]:
        nodes = self._nodes.get(key)
        if nodes is None:
            service = self._view.service(key)
            pods = self._view.endpoints(service) if service is not None else ()
            nodes = self._nodes[key] = frozenset(each.node for each in pods if each.node)
        return nodes

    def _note(self, key: str, origins: frozenset[ObjectRef]) -> None:
        for each in self._origins.pop(key, frozenset()) - origins:
            self._services[each].discard(key)
            if not self._services[each]:
                del self._services[each]
        for each in origins:
            self._services[each].add(key)
        if origins:
            self._origins[key] = origins
        else:
            self._revisions.pop(key, None)


def _origins(service: Service) -> frozenset[ObjectRef]:
    rules = service.rules
    if rules is None:
        return frozenset()
    policies = (ObjectRef(POLICY_KIND, each.namespace, each.name) for each in rules.policies)
    return frozenset((*policies, *(each.origin for each in rules.tokens)))
