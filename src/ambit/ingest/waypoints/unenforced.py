"""Services that policies for requests name and that no waypoint serves: they are closed.

A policy with `targetRefs` protects its target where the target's waypoint decides. A service that is named by one and
has no waypoint is given the name of one that nobody has, so that nodes refuse what is to go there: a policy that is not
enforced must not let anybody in. So is one whose waypoint is somebody else's that does not say that it enforces
policies, when one is for the service, the Gateway or its class. AUDIT and dry runs forbid nothing and close nothing.
"""

from collections.abc import Callable

import msgspec

from ambit.core.names import CLOSED_WITHOUT_WAYPOINT, HBONE_PORT
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.ingest.gateway.foreign import Foreign
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress

LetsPast = Callable[[Context, Service], bool]
"""Whether labels let connections pass by that its waypoint cannot take."""
IsForeign = Callable[[Context, GatewayAddress | None], Foreign | None]
"""The waypoint at an address, when it is somebody else's."""


class Unenforced:
    """Which services such policies are about."""

    def __init__(self, policies: Collection[RequestPolicy], lets_past: LetsPast, foreign: IsForeign) -> None:
        self._lets_past = lets_past
        self._foreign = foreign
        self._forbidding = policies.index(lambda given: _targets(given) if forbids(given) else [])

    def service(self, context: Context, given: Service) -> Service:
        """The service, closed when a policy is for it and nobody enforces that."""
        named = self._protected_by(context, given)
        if not any(context.lookup(self._forbidding, each) for each in named) or self._lets_past(
            context, given
        ):
            return given
        # By the Gateway's name it is known whose policies are for it (`ambit.ingest.waypoints.only_by_waypoint`).
        foreign = self._foreign(context, given.waypoint)
        namespace, _, name = (foreign.key if foreign else f"{given.namespace}/{given.name}").partition("/")
        nobody = GatewayAddress(
            HBONE_PORT, namespace=namespace, hostname=f"{name}.{namespace}.{CLOSED_WITHOUT_WAYPOINT}"
        )
        return msgspec.structs.replace(given, waypoint=nobody)

    def _protected_by(self, context: Context, given: Service) -> list[str]:
        """What a policy would name that nobody enforces for the service."""
        foreign = self._foreign(context, given.waypoint)
        if (given.has_waypoint and foreign is None) or (foreign is not None and foreign.enforces):
            return []
        kind = "Service" if given.is_kubernetes else "ServiceEntry"
        of_waypoint = [f"Gateway {foreign.key}", f"GatewayClass /{foreign.of_class}"] if foreign else []
        return [f"{kind} {given.namespace}/{given.name}", *of_waypoint]


def forbids(policy: RequestPolicy) -> bool:
    """Whether it may refuse something: AUDIT and dry runs do not."""
    return policy.action is not RequestAction.AUDIT and not policy.dry_run


def _targets(policy: RequestPolicy) -> list[str]:
    return list(dict.fromkeys(f"{each.kind} {each.namespace}/{each.name}" for each in policy.targets))
