"""What a policy for a waypoint protects takes connections from that waypoint only.

A policy with `targetRefs` decides at the waypoint, so whoever went past it, to a pod's own address or from outside of
the mesh in plain text, would meet no policy at all (Istio leaves it to an AuthorizationPolicy of one's own to forbid
that). Here the nodes forbid it, by a DENY policy that is made of the binding:

1. Of a bound service that a policy protects (by its name, its Gateway or the GatewayClass), or that has a route with
   `ExternalAuth`, the ports of its pods; of a bound pod whose Gateway or GatewayClass is named, all ports.
2. A pod that several such services share takes what comes from any of their waypoints.
3. A waypoint that does not exist, or does not let the namespace in, is nobody: then nobody may.
4. What lets connections pass while its waypoint is not ready (`ambit.io/fail-open`) takes them from everybody.
5. Services without such a policy are as in Istio: their pods can be called by address.
6. A waypoint that is somebody else's is the service accounts of its pods, if it says that it enforces policies; else
   it is nobody (and the service is closed: `ambit.ingest.waypoints.unenforced`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

import msgspec

from ambit.core.identity import Identity
from ambit.core.names import GATEWAY_CLASS_NAMES, ONLY_BY_WAYPOINT
from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.istio.trust import equated
from ambit.ingest.settings import MeshSettings
from ambit.ingest.targeted import forbids, references
from ambit.ingest.waypoints.unenforced import IsForeign
from ambit.model.policy import Action, Authorization, Clause, Exact, Match, Rule, Scope
from ambit.model.proxy import ServiceRoutes
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress, TunnelProtocol, Workload
from ambit.objects.istio import AuthorizationPolicy, TargetRef

_LONGEST = 120
LetsPast = Callable[[Context, Service | Workload], bool]
"""Whether labels let connections pass by that its waypoint cannot take."""


class _Guard(msgspec.Struct, frozen=True):
    """A service whose pods are called by `callers` only: its waypoints, empty for one that is nobody."""

    service: str
    namespace: str
    callers: tuple[str, ...]


class _Ports(msgspec.Struct, frozen=True):
    """Ports of a pod, all when there are none, and the only callers of them."""

    callers: tuple[str, ...]
    ports: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        whole = "_".join((ONLY_BY_WAYPOINT, *map(_short, self.callers), *map(str, self.ports)))
        return (
            whole
            if len(whole) <= _LONGEST
            else f"{ONLY_BY_WAYPOINT}_{sha256(whole.encode()).hexdigest()[:16]}"
        )


class OnlyByWaypoint:
    """`workload` gives a pod the names of the policies that `authorizations` makes for it."""

    def __init__(
        self,
        graph: Graph,
        policies: Collection[AuthorizationPolicy],
        services: Collection[Service],
        tables: Collection[ServiceRoutes],
        lets_past: LetsPast,
        foreign: IsForeign,
        settings: MeshSettings,
    ) -> None:
        self._foreign = foreign
        self._settings = settings
        self._lets_past = lets_past
        self._asking = tables.index(lambda each: [each.service] if _asks(each) else [])
        guarding = graph.derive(
            "policies that guard", policies, lambda _, given: given if forbids(given) else None
        )
        self._by_target = guarding.index(self._targets)
        guards = graph.derive("guarded services", services, self._guard)
        self._guards = guards.index(lambda each: [each.namespace])

    def workload(self, context: Context, given: Workload) -> Workload:
        """The same pod, with the policies of what it serves."""
        made = self._of(context, given)
        if not made:
            return given
        names = {f"{given.namespace}/{each.name}" for each in made}
        return msgspec.structs.replace(given, policies=tuple(sorted({*given.policies, *names})))

    def policies(self, context: Context, given: Service) -> frozenset[str]:
        """Keys of the policies that protect a service at its waypoint, or would if it had one."""
        found = (context.lookup(self._by_target, each) for each in self._names_of(context, given))
        return frozenset(policy.metadata.key for several in found for policy in several)

    def policies_at(self, context: Context, given: Service, waypoint: GatewayAddress) -> frozenset[str]:
        """Those of them that a waypoint of it asks."""
        targets = (_own_name(given), *self._targets_of(context, waypoint))
        found = (context.lookup(self._by_target, each) for each in targets)
        return frozenset(policy.metadata.key for several in found for policy in several)

    def authorizations(self, context: Context, given: Workload) -> Mapping[str, Authorization]:
        """The policies that `workload` has named."""
        if not any(f"/{ONLY_BY_WAYPOINT}" in each for each in given.policies):
            return {}  # nearly all of them
        made = (self._authorization(given.namespace, each) for each in self._of(context, given))
        return {each.key: each for each in made}

    def _of(self, context: Context, given: Workload) -> list[_Ports]:
        guards = context.lookup(self._guards, given.namespace)
        if given.tunnel is not TunnelProtocol.HBONE or (not guards and given.waypoint is None):
            return []
        callers: dict[int, set[str]] = defaultdict(set)
        for guard in guards:
            for port in given.services.get(guard.service, ()):
                if port.target:
                    callers[port.target].update(guard.callers)
        if self._is_guarded_whole(context, given):
            assert given.waypoint is not None
            everybody = {
                *self.callers(context, given.waypoint),
                *(each for found in callers.values() for each in found),
            }
            return [_Ports(_known(everybody))]
        ports: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, found in sorted(callers.items()):
            ports[_known(found)].append(number)
        return [_Ports(names, tuple(numbers)) for names, numbers in sorted(ports.items())]

    def _is_guarded_whole(self, context: Context, given: Workload) -> bool:
        if given.waypoint is None or not self._is_named(context, self._targets_of(context, given.waypoint)):
            return False
        return not self._lets_past(context, given)

    def _guard(self, context: Context, given: Service) -> _Guard | None:
        if given.waypoint is None or not self._is_guarded(context, given):
            return None
        if self._lets_past(context, given):
            return None
        callers = (name for each in gateways_of(given) for name in self.callers(context, each))
        return _Guard(given.key, given.namespace, tuple(callers))

    def _is_guarded(self, context: Context, given: Service) -> bool:
        """By a policy, or by a route that has somebody asked."""
        named = self._is_named(context, self._names_of(context, given))
        return named or bool(context.lookup(self._asking, given.key))

    def _is_named(self, context: Context, targets: Iterable[str]) -> bool:
        return any(context.lookup(self._by_target, each) for each in targets)

    def callers(self, context: Context, waypoint: GatewayAddress) -> tuple[str, ...]:
        """The principals of a waypoint; none of one that cannot be had."""
        foreign = self._foreign(context, waypoint)
        if foreign is not None:
            return foreign.callers if foreign.enforces else ()
        name = _name(waypoint)
        if waypoint.hostname != self._settings.hostname(name, waypoint.namespace):
            return ()
        return (Identity(self._settings.trust_domain, waypoint.namespace, name).principal,)

    def _names_of(self, context: Context, given: Service) -> tuple[str, ...]:
        """By what policies for a waypoint name a service: by itself, and with the waypoint that it has."""
        named = (target for each in gateways_of(given) for target in self._targets_of(context, each))
        return (_own_name(given), *dict.fromkeys(named))

    def _targets_of(self, context: Context, waypoint: GatewayAddress) -> tuple[str, str]:
        foreign = self._foreign(context, waypoint)
        if foreign is not None:
            return f"Gateway {foreign.key}", f"{_CLASSES} {foreign.of_class}"
        return f"Gateway {waypoint.namespace}/{_name(waypoint)}", _CLASSES

    def _authorization(self, namespace: str, given: _Ports) -> Authorization:
        callers = equated(map(Exact, given.callers), self._settings.trust_domains)
        others = Match(not_principals=callers) if callers else None
        ports = Match(destination_ports=given.ports) if given.ports else None
        clauses = tuple(Clause((each,)) for each in (others, ports) if each is not None)
        return Authorization(
            name=given.name,
            namespace=namespace,
            scope=Scope.WORKLOAD_SELECTOR,
            action=Action.DENY,
            rules=(Rule(clauses),),
        )

    def _targets(self, policy: AuthorizationPolicy) -> list[str]:
        found = (self._target(each, policy.metadata.namespace) for each in references(policy))
        return [each for several in found for each in several]

    def _target(self, reference: TargetRef, namespace: str) -> tuple[str, ...]:
        """Of a GatewayClass all waypoints of ours, more rather than fewer; outside the root
        namespace such a policy counts nowhere."""
        if reference.kind == "GatewayClass":
            counts = reference.name not in GATEWAY_CLASS_NAMES and namespace == self._settings.root_namespace
            return (_CLASSES, f"{_CLASSES} {reference.name}") if counts else ()
        return (f"{reference.kind} {namespace}/{reference.name}",)


_CLASSES = "GatewayClass"


def _asks(table: ServiceRoutes) -> bool:
    return any(each.action.external_auth is not None for each in table.own_entries)


def _own_name(given: Service) -> str:
    kind = "Service" if given.is_kubernetes else "ServiceEntry"
    return f"{kind} {given.namespace}/{given.name}"


def gateways_of(given: Service) -> tuple[GatewayAddress, ...]:
    """The waypoint of a service, and others that have a part of its connections."""
    if given.waypoint is None:
        return ()
    return tuple(dict.fromkeys((given.waypoint, *(each.gateway for each in given.weighted_waypoints))))


def _name(waypoint: GatewayAddress) -> str:
    return waypoint.hostname.partition(".")[0]


def _known(callers: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(each for each in callers if each))


def _short(principal: str) -> str:
    """`NAMESPACE.ACCOUNT` of a principal."""
    identity = Identity.parse(f"spiffe://{principal}")
    return f"{identity.namespace}.{identity.service_account}"
