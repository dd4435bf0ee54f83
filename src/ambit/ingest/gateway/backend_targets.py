"""What policies about backends are for (GEP-713, direct attachment): Services and ServiceEntries of their own
namespace; and of whom their status tells: the Gateways through which these are called."""

from collections.abc import Iterable, Iterator

from ambit.core.names import GATEWAY_CONTROLLER, WAYPOINT_CONTROLLER
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.ingest.gateway.attachment import CompiledRoute
from ambit.model.service import Service
from ambit.model.status import Condition, Parent, ParentStatus, PolicyStatus, Version
from ambit.objects.backend_policies import PolicyTarget, TrafficTarget
from ambit.objects.gateway import GROUP

MOST_ANCESTORS = 16
"""As many as a policy's status can have (GEP-713)."""
_TARGETS = frozenset({("", "Service"), ("networking.istio.io", "ServiceEntry")})


def is_target(given: PolicyTarget | TrafficTarget) -> bool:
    """Whether a policy for this is one for us."""
    return (given.group, given.kind) in _TARGETS


def target_of(given: PolicyTarget | TrafficTarget, namespace: str) -> str:
    """The object that a policy of a namespace is for, as text."""
    return f"{given.kind} {namespace}/{given.name}"


def object_of(given: Service) -> str:
    """The object that a service is made of, as text."""
    kind = "Service" if given.is_kubernetes else "ServiceEntry"
    return f"{kind} {given.namespace}/{given.name}"


class Ancestors:
    """The Gateways through which services are called: their waypoints, and gateways with routes to them."""

    def __init__(self, services: Collection[Service], routes: Iterable[Collection[CompiledRoute]]) -> None:
        self._of_object = services.index(lambda each: [object_of(each)])
        self._called_by = [each.index(_called_at_edge) for each in routes]

    def status(
        self, context: Context, version: Version, targets: Iterable[str], conditions: tuple[Condition, ...]
    ) -> PolicyStatus:
        """What a policy for these targets says, to each Gateway the same."""
        found: dict[tuple[Parent, str], None] = {}
        for target in targets:
            for service in context.lookup(self._of_object, target):
                found.update(dict.fromkeys(self._of(context, service)))
        return PolicyStatus(
            version,
            tuple(
                ParentStatus(parent, conditions, controller)
                for parent, controller in [*found][:MOST_ANCESTORS]
            ),
        )

    def _of(self, context: Context, service: Service) -> Iterator[tuple[Parent, str]]:
        """The Gateways of one service, with their controllers."""
        for each in service.waypoints:
            where = each.gateway
            if where.hostname:
                name = where.hostname.partition(".")[0]
                yield Parent(GROUP, "Gateway", name, where.namespace), WAYPOINT_CONTROLLER
        for index in self._called_by:
            for route in context.lookup(index, service.key):
                for attachment in route.listeners:
                    namespace, _, name = attachment.gateway.partition("/")
                    yield Parent(GROUP, "Gateway", name, namespace), GATEWAY_CONTROLLER


def _called_at_edge(route: CompiledRoute) -> set[str]:
    """Services that a route leads to from listeners of gateways."""
    found: set[str] = set()
    for attachment in route.listeners:
        for each in attachment.entries:
            found.update(backend.service for backend in each.entry.action.backends)
        for stream in attachment.streams:
            found.update(backend.service for backend in stream.backends)
    return found
