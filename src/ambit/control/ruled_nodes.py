"""How far the nodes are that enforce policies for requests themselves, at the pods of services without a proxy between.
No I/O.

Rules travel with their service, so a node has a policy when it has acknowledged the service as it was published last.
Nodes count that are connected here and have pods of the service.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator

from ambit.control.answers import Answer
from ambit.control.view import LiveView
from ambit.core.finding import ObjectRef
from ambit.ingest.mesh import MeshDelta
from ambit.ingest.policy_statuses import KIND as POLICY_KIND
from ambit.model.service import Service

Find = Callable[[str, int, Collection[str]], Iterator[Answer]]


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

    def compiled(self, delta: MeshDelta, revision: int) -> None:
        """A batch was published; nodes that have all of it have acknowledged this revision of addresses."""
        for key, service in delta.services.upserts.items():
            origins = _origins(service)
            self._note(key, origins)
            if origins:
                self._revisions[key] = revision
        for key in delta.services.removals:
            self._note(key, frozenset())

    def answers(self, origin: ObjectRef) -> Iterator[Answer]:
        """Of each node that enforces this object's policy; several, when it does for several services."""
        for key in sorted(self._services.get(origin, ())):
            service = self._view.service(key)
            pods = self._view.endpoints(service) if service is not None else ()
            if nodes := {each.node for each in pods if each.node}:
                yield from self._find(key, self._revisions[key], nodes)

    def have_answered(self, origin: ObjectRef) -> bool:
        """Whether there are such nodes, and none of them is behind."""
        found = list(self.answers(origin))
        return bool(found) and not any(each.behind for each in found)

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
