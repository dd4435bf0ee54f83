"""Rules about requests to a service that has no proxy between: enforced where its pods are.

They travel with the service, and nodes that know of them read the requests to its pods. Whoever does not know of them
(a stock ztunnel, an older node) has a policy instead that closes the ports of these pods (`closing`), which the others
lift, port by port, where they enforce the rules themselves. So nothing depends on the order in which things arrive.

Rules by which others are asked (CUSTOM) have a policy of another name: nodes that knew of no such rules do not lift it.
"""

from hashlib import sha256

import msgspec

from ambit.model.jwt import TokenPolicy
from ambit.model.policy import Action, Authorization, Clause, Match, Rule, Scope
from ambit.model.request_policy import RequestAction, RequestPolicy

READ_AT_POD = "read_at_pod"
_ASKED_AT_POD = f"{READ_AT_POD}.asking"
"""Begin the names of such policies. An underscore is not allowed in names of objects, so none meets an
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

    @property
    def ask(self) -> bool:
        """Whether somebody else may have to be asked."""
        return any(each.action is RequestAction.CUSTOM and not each.dry_run for each in self.policies)


def closing(service: str, namespace: str, ports: tuple[int, ...], *, asks: bool = False) -> Authorization:
    """The policy that nobody reaches these ports by, of a pod in `namespace` that serves the service of this name, by
    whose rules the node `asks` somebody else or not."""
    begin = _ASKED_AT_POD if asks else READ_AT_POD
    whole = "_".join((begin, service, *map(str, ports)))
    short = f"{begin}_{sha256(whole.encode()).hexdigest()[:16]}"
    return Authorization(
        name=whole if len(whole) <= _LONGEST else short,
        namespace=namespace,
        scope=Scope.WORKLOAD_SELECTOR,
        action=Action.DENY,
        rules=(Rule((Clause((Match(destination_ports=ports),)),)),),
    )
