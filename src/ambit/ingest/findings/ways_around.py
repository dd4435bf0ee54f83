"""Ways to a service that go around the policies which protect it at its waypoint, as findings on the service.

Nodes take what is for such a service from its waypoint only (`ambit.ingest.waypoints.only_by_waypoint`). What remains:

1. the written exception, `ambit.io/fail-open`;
2. pods where no node refuses anybody: they are not in the mesh, are not captured on the way in
   (`ambient.istio.io/bypass-inbound-capture`), or are of another namespace, where this one forbids nothing;
3. waypoints that may call them and ask not the same policies: the service's second one, and those of services that lead
   to the same pods and port by themselves or by a route.

Endpoints of ServiceEntries are outside of the mesh, where nobody ever refuses anybody: nothing is said of them.
"""

from collections.abc import Iterable, Iterator

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.core.names import BYPASS_INBOUND_ANNOTATION
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.waypoints.only_by_waypoint import LetsPast, OnlyByWaypoint, gateways_of
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress, TunnelProtocol, Workload, WorkloadStatus
from ambit.objects.kube import Pod

_CODE = "AMB0410"
_NAMED = 3


class WaysAround:
    """`findings` are by the text of the service and `(ways around)`. `workloads` are those of all kinds, `tables` what
    waypoints do with what is sent to services."""

    def __init__(
        self,
        graph: Graph,
        only: OnlyByWaypoint,
        services: Collection[Service],
        workloads: Collection[Workload],
        tables: Collection[ServiceRoutes],
        pods: Collection[Pod],
        lets_past: LetsPast,
    ) -> None:
        self._only = only
        self._services = services
        self._pods = pods
        self._lets_past = lets_past
        self._behind = workloads.index(lambda each: list(each.services))
        self._callers = tables.index(_called)
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
            behind = [
                each
                for each in context.lookup(self._behind, given.key)
                if each.status is not WorkloadStatus.UNHEALTHY
            ]
            for text in (
                *self._at_pods(context, given, behind),
                *self._by_waypoints(context, given, policies, behind),
            ):
                yield Finding(_CODE, Level.WARNING, origin, "spec.selector", text)

    def _at_pods(self, context: Context, given: Service, behind: Iterable[Workload]) -> Iterator[str]:
        outside, uncaptured, elsewhere = [], [], []
        for each in behind:
            name = f"{each.namespace}/{each.name}"
            pod = context.get(self._pods, name) if each.is_pod else None
            if each.tunnel is not TunnelProtocol.HBONE:
                outside.append(name)
            elif pod is not None and _is_open(pod):
                uncaptured.append(name)
            elif each.namespace != given.namespace:
                elsewhere.append(name)
        for names, why in (
            (outside, "are not in the mesh"),
            (uncaptured, f"are not captured on the way in ({BYPASS_INBOUND_ANNOTATION})"),
            (elsewhere, f"are not of the namespace {given.namespace}, which forbids nothing there"),
        ):
            if names:
                yield f"pods {_listed(sorted(names))} {why}, so whoever calls them is asked by no policy"

    def _by_waypoints(
        self, context: Context, given: Service, policies: frozenset[str], behind: Iterable[Workload]
    ) -> Iterator[str]:
        beside = self._beside(context, given, behind)
        admitted = set(gateways_of(given))
        for other in beside:
            if self._only.policies(context, other) and not self._lets_past(context, other):
                admitted.update(gateways_of(other))
        ways = [(given, "connections pass through {} as well")]
        ways += [(other, "{other} leads to the same pods by a waypoint") for other in beside]
        ways += [
            (other, "{other} leads to the same pods by a route")
            for other in self._routed(context, given, behind)
            if other not in beside
        ]
        for other, text in ways:
            for waypoint in gateways_of(other):
                missing = policies - self._only.policies_at(context, other, waypoint)
                if missing and waypoint in admitted and self._only.callers(context, waypoint):
                    yield (
                        f"{text.format(_name(waypoint), other=f'{other.namespace}/{other.name}')}, and the policy "
                        f"{_listed(sorted(missing))} is not for it"
                    )
                    break

    def _beside(self, context: Context, given: Service, behind: Iterable[Workload]) -> list[Service]:
        """Other bound services that lead to a port of the same pods."""
        keys = self._of_same_port(given, behind)
        found = (context.get(self._services, key) for key in sorted(keys - {given.key}))
        return [each for each in found if each is not None and each.waypoint is not None]

    def _of_same_port(self, given: Service, behind: Iterable[Workload]) -> set[str]:
        keys = {given.key}
        for workload in behind:
            own = {port.target for port in workload.services[given.key]}
            keys |= {key for key, ports in workload.services.items() if own & {port.target for port in ports}}
        return keys

    def _routed(self, context: Context, given: Service, behind: Iterable[Workload]) -> list[Service]:
        """Other bound services whose routes lead to a port of the same pods."""
        called = self._of_same_port(given, behind)
        keys = {table.service for key in called for table in context.lookup(self._callers, key)}
        found = (context.get(self._services, key) for key in sorted(keys - {given.key}))
        return [each for each in found if each is not None and each.waypoint is not None]


def _is_open(pod: Pod) -> bool:
    """As the node agent reads it."""
    return pod.metadata.annotations.get(BYPASS_INBOUND_ANNOTATION, "").lower() == "true"


def _called(table: ServiceRoutes) -> list[str]:
    """The services that requests, their copies and connections are sent on to."""
    actions = [entry.action for host in table.hosts for entry in host.entries]
    found = {each.service for action in actions for each in action.backends}
    found.update(each.service for action in actions for each in action.mirrors)
    found.update(each.service for stream in table.streams for each in stream.backends)
    return sorted(found)


def _name(waypoint: GatewayAddress) -> str:
    return f"{waypoint.namespace}/{waypoint.hostname.partition('.')[0]}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
