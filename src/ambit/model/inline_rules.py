"""Rules about requests to a service that has no proxy between: enforced where its pods are.

They travel with the service, and nodes that know of them read the requests to its pods. Whoever does not know of them
(a stock ztunnel, an older node) has a policy instead that closes the ports of these pods (`closing`), which the others
lift, port by port, where they enforce the rules themselves. So nothing depends on the order in which things arrive.
"""

from hashlib import sha256

import msgspec

from ambit.model.jwt import TokenPolicy
from ambit.model.policy import Action, Authorization, Clause, Match, Rule, Scope
from ambit.model.request_policy import RequestAction, RequestPolicy

READ_AT_POD = "read_at_pod"
"""Begins the names of such policies. An underscore is not allowed in names of objects, so none meets an
AuthorizationPolicy."""
_LONGEST = 120


class InlineRules(msgspec.Struct, frozen=True):
    """What a service's requests have to meet at its pods."""

    policies: tuple[RequestPolicy, ...] = ()
    tokens: tuple[TokenPolicy, ...] = ()

    @property
    def say_anything(self) -> bool:
        """Whether there are any: what they match is told, also where they refuse nothing."""
        return bool(self.tokens or self.policies)

    @property
    def forbid(self) -> bool:
        """Whether they may refuse something: AUDIT and dry runs do not."""
        acts = (each for each in self.policies if each.action is not RequestAction.AUDIT and not each.dry_run)
        return bool(self.tokens) or any(acts)


def closing(service: str, namespace: str, ports: tuple[int, ...]) -> Authorization:
    """The policy that nobody reaches these ports by, of a pod in `namespace` that serves the service of this name."""
    whole = "_".join((READ_AT_POD, service, *map(str, ports)))
    short = f"{READ_AT_POD}_{sha256(whole.encode()).hexdigest()[:16]}"
    return Authorization(
        name=whole if len(whole) <= _LONGEST else short,
        namespace=namespace,
        scope=Scope.WORKLOAD_SELECTOR,
        action=Action.DENY,
        rules=(Rule((Clause((Match(destination_ports=ports),)),)),),
    )
