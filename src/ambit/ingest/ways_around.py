"""Ways to a service that go around the policies which protect it at its waypoint, as findings on the service.

Nodes take what is for such a service from its waypoint only (`ambit.ingest.only_by_waypoint`). What remains:

1. the written exception, `ambit.io/fail-open`;
2. pods that are not in the mesh, at which no node can refuse anybody;
3. another service of the same pods and port that may call them, and that not the same policies are for.

Endpoints of ServiceEntries are outside of the mesh, where nobody ever refuses anybody: nothing is said of them.
"""

from collections.abc import Iterable, Iterator

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.only_by_waypoint import LetsPast, OnlyByWaypoint, gateways_of
from ambit.model.service import Service
from ambit.model.workload import TunnelProtocol, Workload, WorkloadStatus

_CODE = "AMB0410"
_NAMED = 3


class WaysAround:
    """`findings` are by the text of the service and `(ways around)`. `workloads` are those of all kinds."""

    def __init__(
        self,
        graph: Graph,
        only: OnlyByWaypoint,
        services: Collection[Service],
        workloads: Collection[Workload],
        lets_past: LetsPast,
    ) -> None:
        self._only = only
        self._services = services
        self._lets_past = lets_past
        self._behind = workloads.index(lambda each: list(each.services))
        self.findings: Collection[tuple[Finding, ...]] = graph.derive(
            "ways around waypoints",
            services,
            lambda context, given: tuple(self._of(context, given)) or None,
            key=lambda found: f"{found[0].origin} (ways around)",
        )

    def _of(self, context: Context, given: Service) -> Iterator[Finding]:
        if not given.is_kubernetes:
            return
        policies = self._only.policies(context, given)
        if not policies:
            return
        origin = ObjectRef("Service", given.namespace, given.name)
        if self._lets_past(context, given):
            text = f"ambit.io/fail-open lets connections past the policy {_listed(sorted(policies))}"
            yield Finding(_CODE, Level.WARNING, origin, "metadata.labels", text)
        elif given.waypoint is not None:
            yield from self._at_pods(context, given, policies, origin)

    def _at_pods(
        self, context: Context, given: Service, policies: frozenset[str], origin: ObjectRef
    ) -> Iterator[Finding]:
        behind = [
            each
            for each in context.lookup(self._behind, given.key)
            if each.status is not WorkloadStatus.UNHEALTHY
        ]
        outside = sorted(
            f"{each.namespace}/{each.name}" for each in behind if each.tunnel is not TunnelProtocol.HBONE
        )
        if outside:
            text = f"pods {_listed(outside)} are not in the mesh, so whoever calls them is asked by no policy"
            yield Finding(_CODE, Level.WARNING, origin, "spec.selector", text)
        for other in self._siblings(context, given, behind):
            missing = policies - self._only.policies(context, other)
            if missing and self._may_call(context, given, other):
                text = (
                    f"{other.namespace}/{other.name} leads to the same pods by a waypoint, and the policy "
                    f"{_listed(sorted(missing))} is not for it"
                )
                yield Finding(_CODE, Level.WARNING, origin, "spec.selector", text)

    def _siblings(self, context: Context, given: Service, behind: Iterable[Workload]) -> list[Service]:
        """Bound services that lead to a port of the same pods."""
        keys: set[str] = set()
        for workload in behind:
            own = {port.target for port in workload.services[given.key]}
            keys |= {key for key, ports in workload.services.items() if own & {port.target for port in ports}}
        found = (context.get(self._services, key) for key in sorted(keys - {given.key}))
        return [each for each in found if each is not None and each.waypoint is not None]

    def _may_call(self, context: Context, given: Service, other: Service) -> bool:
        """Whether the waypoint of another service is let in by pods of this one."""
        return not set(gateways_of(other)).isdisjoint(gateways_of(given)) or (
            bool(self._only.policies(context, other)) and not self._lets_past(context, other)
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
