"""Policies for requests that nobody enforces: what they name is closed.

A policy with `targetRefs` protects its target where the target's waypoint decides. What is named by one and has no
waypoint, or by one that waypoints cannot enforce (CUSTOM), is given the name of a waypoint that nobody has, so that
nodes refuse what is to go there: a policy that is not enforced must not let anybody in. AUDIT and dry runs forbid
nothing and close nothing.

Gateways at the edge are closed by those that are for them and that they cannot enforce.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from ambit.core.names import GATEWAY_CLASS_NAMES, HBONE_PORT
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.ingest.binds import Bind, Binds
from ambit.ingest.settings import MeshSettings
from ambit.model.jwt import Target
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress
from ambit.objects.gateway import Gateway

NOT_ENFORCED, NO_WAYPOINT = "not-enforced.invalid", "no-waypoint.invalid"
"""Ends of hostnames that nobody has (RFC 6761)."""


LetsPast = Callable[[Context, Service], bool]
"""Whether labels let connections pass by that its waypoint cannot take."""


class Unenforced:
    """Which objects such policies are about."""

    def __init__(
        self, policies: Collection[RequestPolicy], lets_past: LetsPast, settings: MeshSettings
    ) -> None:
        self._settings = settings
        self._lets_past = lets_past
        self._forbidding = policies.index(lambda given: self._targets(given) if forbids(given) else [])
        self._impossible = policies.index(
            lambda given: self._targets(given) if forbids(given) and _is_impossible(given) else []
        )

    def binds(self, open_binds: Binds) -> Binds:
        """The same with waypoints closed that a policy is for as a whole and which they cannot enforce."""
        return Binds(
            *(self._closing(each) for each in (open_binds.service, open_binds.entry, open_binds.workload))
        )

    def closes(self, context: Context, waypoint: GatewayAddress) -> bool:
        """Whether a policy is for all that passes through a waypoint which it cannot enforce."""
        named = (f"waypoint {waypoint.hostname}", "waypoints")
        return any(context.lookup(self._impossible, each) for each in named)

    def service(self, context: Context, given: Service) -> Service:
        """The service with its waypoint closed when a policy is for the service and nobody enforces it."""
        kind = "Service" if given.is_kubernetes else "ServiceEntry"
        name = f"{kind} {given.namespace}/{given.name}"
        if given.waypoint is not None:
            if not context.lookup(self._impossible, name):
                return given
            return msgspec.structs.replace(given, waypoint=_closed(given.waypoint))
        if (
            given.has_waypoint
            or not context.lookup(self._forbidding, name)
            or self._lets_past(context, given)
        ):
            return given
        nobody = GatewayAddress(
            HBONE_PORT, namespace=given.namespace, hostname=f"{given.name}.{given.namespace}.{NO_WAYPOINT}"
        )
        return msgspec.structs.replace(given, waypoint=nobody)

    def gateway(self, context: Context, given: Gateway) -> tuple[str, ...]:
        """The policies for which a gateway at the edge must let nobody in, `<namespace>/<name>` in order."""
        meta = given.metadata
        named = (
            f"waypoint {self._settings.hostname(meta.name, meta.namespace)}",
            f"class {given.spec.gateway_class_name}",
        )
        found = (policy for each in named for policy in context.lookup(self._impossible, each))
        return tuple(sorted({policy.key for policy in found}))

    def _closing(self, bind: Bind) -> Bind:
        def closing(context: Context, namespace: str, labels: Mapping[str, str]) -> GatewayAddress | None:
            found = bind(context, namespace, labels)
            if found is None:
                return None
            return _closed(found) if self.closes(context, found) else found

        return closing

    def _targets(self, policy: RequestPolicy) -> list[str]:
        return list(dict.fromkeys(self._where(policy.targets)))

    def _where(self, targets: Iterable[Target]) -> Iterable[str]:
        """Where targets are looked for. Of a GatewayClass all waypoints: more rather than fewer."""
        for target in targets:
            match target.kind:
                case "Gateway":
                    yield f"waypoint {self._settings.hostname(target.name, target.namespace)}"
                case "GatewayClass":
                    yield "waypoints"
                    names = GATEWAY_CLASS_NAMES if target.name in GATEWAY_CLASS_NAMES else (target.name,)
                    yield from (f"class {name}" for name in names)
                case kind:
                    yield f"{kind} {target.namespace}/{target.name}"


def forbids(policy: RequestPolicy) -> bool:
    """Whether it may refuse something: AUDIT and dry runs do not."""
    return policy.action is not RequestAction.AUDIT and not policy.dry_run


def _is_impossible(policy: RequestPolicy) -> bool:
    return policy.action is RequestAction.CUSTOM


def _closed(waypoint: GatewayAddress) -> GatewayAddress:
    name = waypoint.hostname.partition(".")[0]
    return msgspec.structs.replace(waypoint, hostname=f"{name}.{waypoint.namespace}.{NOT_ENFORCED}")
