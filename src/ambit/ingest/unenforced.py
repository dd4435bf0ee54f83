"""Services that policies for requests name and that no waypoint serves: they are closed.

A policy with `targetRefs` protects its target where the target's waypoint decides. A service that is named by one and
has no waypoint is given the name of one that nobody has, so that nodes refuse what is to go there: a policy that is not
enforced must not let anybody in. AUDIT and dry runs forbid nothing and close nothing.
"""

from collections.abc import Callable

import msgspec

from ambit.core.names import HBONE_PORT
from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.model.service import Service
from ambit.model.workload import GatewayAddress

NO_WAYPOINT = "no-waypoint.invalid"
"""End of hostnames that nobody has (RFC 6761)."""
_OF_PROXIES = ("Gateway", "GatewayClass")

LetsPast = Callable[[Context, Service], bool]
"""Whether labels let connections pass by that its waypoint cannot take."""


class Unenforced:
    """Which services such policies are about."""

    def __init__(self, policies: Collection[RequestPolicy], lets_past: LetsPast) -> None:
        self._lets_past = lets_past
        self._forbidding = policies.index(lambda given: _services(given) if forbids(given) else [])

    def service(self, context: Context, given: Service) -> Service:
        """The service, closed when a policy is for it and nobody enforces that."""
        kind = "Service" if given.is_kubernetes else "ServiceEntry"
        if (
            given.has_waypoint
            or not context.lookup(self._forbidding, f"{kind} {given.namespace}/{given.name}")
            or self._lets_past(context, given)
        ):
            return given
        nobody = GatewayAddress(
            HBONE_PORT, namespace=given.namespace, hostname=f"{given.name}.{given.namespace}.{NO_WAYPOINT}"
        )
        return msgspec.structs.replace(given, waypoint=nobody)


def forbids(policy: RequestPolicy) -> bool:
    """Whether it may refuse something: AUDIT and dry runs do not."""
    return policy.action is not RequestAction.AUDIT and not policy.dry_run


def _services(policy: RequestPolicy) -> list[str]:
    named = (each for each in policy.targets if each.kind not in _OF_PROXIES)
    return list(dict.fromkeys(f"{each.kind} {each.namespace}/{each.name}" for each in named))
