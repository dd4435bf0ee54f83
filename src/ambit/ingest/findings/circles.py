"""Routes of gateways that lead in a circle, over one gateway or several, as findings on each of them.

Places are ports of gateways. From one to the other leads a route of a listener there with a backend whose endpoints are
the other gateway's pods, with that port; a Service that gateways call through its waypoint stands for the backends of
its own routes. Endpoints that are written as addresses are the gateway's that has them. A gateway itself breaks circles
of its own (`ambit.plan.l7.circles`); those over several may be meant, as hosts and paths can change on the way. Virtual
addresses of Services, and those of load balancers, are not looked through.

Ways are looked for among gateways' ports, not routes: thousands may lead from one to the other.
"""

from collections.abc import Iterator, Sequence

import msgspec

from ambit.core.finding import Finding, Level, ObjectRef
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.attachment import CompiledRoute, ListenerAttachment
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes, called_by
from ambit.model.service import Service
from ambit.model.streams import Datagrams, datagrams_key
from ambit.model.workload import Workload

_DATAGRAMS = "UDPRoute"


class _Doors(msgspec.Struct, frozen=True):
    """The pods of a gateway."""

    gateway: str
    pods: tuple[Workload, ...]


class _Steps(msgspec.Struct, frozen=True):
    """From where to where a route leads, both `<gateway>:<port>`."""

    origin: ObjectRef
    steps: tuple[tuple[str, str], ...]


class _Ways(msgspec.Struct, frozen=True):
    """From where to where routes of a gateway lead, each once."""

    steps: tuple[tuple[str, str], ...]


class Circles:
    """`findings` are by the text of the route and `(circles)`. `services` have the ports that `workloads` serve,
    `tables` what waypoints do with what is sent to services."""

    def __init__(
        self,
        graph: Graph,
        routes: Sequence[Collection[CompiledRoute]],
        services: Collection[Service],
        workloads: Collection[Workload],
        datagrams: Collection[Datagrams],
        proxies: Collection[Proxy],
        tables: Collection[ServiceRoutes],
    ) -> None:
        self._services, self._datagrams, self._proxies, self._tables = services, datagrams, proxies, tables
        self._of_identity = workloads.index(lambda each: [each.identity.uri])
        self._written = workloads.index(lambda each: () if each.is_pod else each.services)
        doors: Collection[_Doors] = graph.derive("doors of gateways", proxies, self._doors_of)
        self._by_service = doors.index(lambda each: {key for pod in each.pods for key in pod.services})
        self._by_address = doors.index(lambda each: {str(own) for pod in each.pods for own in pod.addresses})
        steps: Collection[_Steps] = graph.join(
            "routes to gateways",
            [
                graph.derive(
                    f"routes to gateways of {each.name}",
                    each,
                    self._steps_of,
                    key=lambda found: str(found.origin),
                )
                for each in routes
            ],
        )
        self._from = steps.index(lambda each: {_gateway(start) for start, _ in each.steps})
        self._ways: Collection[_Ways] = graph.derive("ways between gateways", proxies, self._ways_of)
        self.findings: Collection[tuple[Finding, ...]] = graph.derive(
            "circles of routes",
            steps,
            lambda context, given: tuple(self._of(context, given)) or None,
            key=lambda found: f"{found[0].origin} (circles)",
        )

    def _doors_of(self, context: Context, proxy: Proxy) -> _Doors | None:
        if proxy.kind is not ProxyKind.GATEWAY:
            return None
        pods = context.lookup(self._of_identity, proxy.identity.uri)
        return _Doors(proxy.key, tuple(pods)) if pods else None

    def _ways_of(self, context: Context, proxy: Proxy) -> _Ways | None:
        if proxy.kind is not ProxyKind.GATEWAY:
            return None
        found = {
            step
            for each in context.lookup(self._from, proxy.key)
            for step in each.steps
            if _gateway(step[0]) == proxy.key
        }
        return _Ways(tuple(sorted(found))) if found else None

    def _steps_of(self, context: Context, route: CompiledRoute) -> _Steps | None:
        steps = dict.fromkeys(step for each in route.listeners for step in self._steps(context, each))
        return _Steps(route.status.version.origin, tuple(steps)) if steps else None

    def _steps(self, context: Context, given: ListenerAttachment) -> Iterator[tuple[str, str]]:
        find = self._by_datagrams if given.kind == _DATAGRAMS else self._by_bytes
        backends = called_by((each.entry for each in given.entries), given.streams)
        ends = {end for key, port in backends for end in find(context, key, port)}
        proxy = context.get(self._proxies, given.gateway) if ends else None
        for listener in proxy.listeners if proxy is not None else ():
            if listener.name == given.listener:
                yield from ((f"{given.gateway}:{listener.port}", end) for end in sorted(ends))

    def _by_bytes(self, context: Context, key: str, port: int) -> Iterator[str]:
        service = context.get(self._services, key)
        if service is None:
            return
        yield from self._pods_of(context, service, port)
        table = context.get(self._tables, f"{key}:{port}") if service.ingress_use_waypoint else None
        if table is None:
            return
        entries = (entry for host in table.hosts for entry in host.entries)
        for behind, behind_port in sorted(called_by(entries, table.streams)):
            other = context.get(self._services, behind)
            if other is not None:
                yield from self._pods_of(context, other, behind_port)

    def _pods_of(self, context: Context, service: Service, port: int) -> Iterator[str]:
        for doors in context.lookup(self._by_service, service.key):
            for pod in doors.pods:
                if service.key in pod.services:
                    yield f"{doors.gateway}:{service.target_port(pod, port)}"
        for written in context.lookup(self._written, service.key):
            for address in written.addresses:
                for doors in context.lookup(self._by_address, str(address)):
                    yield f"{doors.gateway}:{service.target_port(written, port)}"

    def _by_datagrams(self, context: Context, key: str, port: int) -> Iterator[str]:
        found = context.get(self._datagrams, datagrams_key(key, port))
        for address, target in found.endpoints if found is not None else ():
            yield from (
                f"{doors.gateway}:{target}" for doors in context.lookup(self._by_address, str(address))
            )

    def _of(self, context: Context, given: _Steps) -> Iterator[Finding]:
        for start, end in given.steps:
            way = self._way(context, end, start)
            if way:
                text = (
                    f"leads in a circle: {' -> '.join([start, *way])}; what comes in goes round, or is refused "
                    "where a gateway would call itself: send it to other backends"
                )
                yield Finding("AMB0412", Level.WARNING, given.origin, "spec.rules", text)
                return

    def _way(self, context: Context, start: str, end: str) -> list[str]:
        """The places from one to the other, both included; empty when none leads there."""
        came: dict[str, str] = {start: ""}
        ahead = [start]
        while ahead and end not in came:
            place = ahead.pop(0)
            ways = context.get(self._ways, _gateway(place))
            for before, after in ways.steps if ways is not None else ():
                if before == place and after not in came:
                    came[after] = place
                    ahead.append(after)
        way = [end] if end in came else []
        while way and (before := came[way[0]]):
            way.insert(0, before)
        return way


def _gateway(place: str) -> str:
    return place.rpartition(":")[0]
