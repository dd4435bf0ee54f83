"""Waypoints that policies are for: closed, because a waypoint does not enforce policies yet.

A policy with `targetRefs` protects its target where the target's waypoint decides. Until ours does, whatever is bound
to a waypoint and named by such a policy (itself, its Gateway, or its GatewayClass) is given the name of a waypoint that
nobody has, so that nodes refuse what is to go there: a policy that is not enforced must not let anybody in. AUDIT and
dry runs forbid nothing and close nothing.
"""

from collections.abc import Mapping

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.binds import Bind, Binds
from ambit.ingest.settings import MeshSettings
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress
from ambit.objects.istio import AuthorizationPolicy, TargetRef

NOT_ENFORCED = "not-enforced.invalid"
"""End of a hostname that nobody has (RFC 6761)."""
_DRY_RUN = "istio.io/dry-run"


class Unenforced:
    """Which bound objects such policies are about."""

    def __init__(
        self, graph: Graph, policies: Collection[AuthorizationPolicy], settings: MeshSettings
    ) -> None:
        self._settings = settings
        closing = graph.derive(
            "policies for waypoints", policies, lambda _, given: given if _forbids(given) else None
        )
        self._by_target = closing.index(self._targets)

    def binds(self, open_binds: Binds) -> Binds:
        """The same with waypoints closed that a policy is for as a whole."""
        return Binds(
            *(self._closing(each) for each in (open_binds.service, open_binds.entry, open_binds.workload))
        )

    def service(self, context: Context, given: Service) -> Service:
        """The service with its waypoint closed when a policy is for the service."""
        if given.waypoint is None:
            return given
        kind = "Service" if given.is_kubernetes else "ServiceEntry"
        if not context.lookup(self._by_target, f"{kind} {given.namespace}/{given.name}"):
            return given
        return msgspec.structs.replace(given, waypoint=_closed(given.waypoint))

    def _closing(self, bind: Bind) -> Bind:
        def closing(context: Context, namespace: str, labels: Mapping[str, str]) -> GatewayAddress | None:
            found = bind(context, namespace, labels)
            if found is None:
                return None
            named = (f"waypoint {found.hostname}", "waypoints")
            return _closed(found) if any(context.lookup(self._by_target, each) for each in named) else found

        return closing

    def _targets(self, policy: AuthorizationPolicy) -> list[str]:
        found = (self._target(each, policy.metadata.namespace) for each in _references(policy))
        return [each for each in found if each]

    def _target(self, reference: TargetRef, namespace: str) -> str:
        """Where a target is looked for. Of a GatewayClass all waypoints: more rather than fewer; outside the root
        namespace such a policy counts nowhere (Istio: `PolicyTargetReference`)."""
        if reference.kind == "Gateway":
            return f"waypoint {self._settings.hostname(reference.name, namespace)}"
        if reference.kind == "GatewayClass":
            return "waypoints" if namespace == self._settings.root_namespace else ""
        return f"{reference.kind} {namespace}/{reference.name}"


def _references(policy: AuthorizationPolicy) -> tuple[TargetRef, ...]:
    spec = policy.spec
    return (*((spec.target_ref,) if spec.target_ref else ()), *spec.target_refs)


def _forbids(policy: AuthorizationPolicy) -> bool:
    tried = policy.metadata.annotations.get(_DRY_RUN, "").lower() in ("true", "t", "1")
    return bool(_references(policy)) and policy.spec.action != "AUDIT" and not tried


def _closed(waypoint: GatewayAddress) -> GatewayAddress:
    name = waypoint.hostname.partition(".")[0]
    return msgspec.structs.replace(waypoint, hostname=f"{name}.{waypoint.namespace}.{NOT_ENFORCED}")
