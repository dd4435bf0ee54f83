"""In which order nodes hear that a service's rules are enforced by its pods' nodes, and no longer by its waypoint.

Or the other way round. Pure; the time is given.

For the time of the change both enforce: pods' nodes hold everybody to the rules but the waypoint, which has held its
callers to them already. Each step waits until all nodes have acknowledged the one before, at the most HOLD:

| step | from a waypoint (to `Service.rules`) | to a waypoint |
| --- | --- | --- |
| 1 | pods' nodes have the rules, and take connections from the waypoint only | the waypoint learns of the service |
| 2 | pods' nodes take connections from everybody, and hold them to the rules | callers go to the waypoint |
| 3 | callers go to the pods | pods' nodes take connections from the waypoint only |
| 4 | when the waypoint's listeners have ended: nothing excepts it from the rules any more | the rules go |

Nothing is ever closed by less than what was there before or what is there after.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

import msgspec

from ambit.core.names import ONLY_BY_WAYPOINT
from ambit.model.inline_rules import READ_AT_POD, InlineRules
from ambit.model.policy import Exact
from ambit.model.request_policy import (
    Attribute,
    Clause,
    Condition,
    Match,
    RequestAction,
    RequestPolicy,
    Rule,
)
from ambit.model.service import Service
from ambit.model.workload import Workload

ALREADY_HELD = "at_waypoint"
"""Name of the policy that allows what a waypoint has allowed."""
STEPS = 4


class Change(msgspec.Struct):
    """Of one service and its pods. `step` is the one that nodes have been sent; `revision` is known when that is on
    its way."""

    wanted: Service
    former: Service
    waypoint: tuple[str, str]
    principals: tuple[str, ...]
    pods: dict[str, "PodChange"]
    until: float
    step: int = 1
    marks: Mapping[str, int] = {}
    """What the waypoint's pods must have acknowledged before callers go to it."""
    revision: int | None = None
    ready: bool = False

    @property
    def is_to_waypoint(self) -> bool:
        return self.wanted.enforced is None

    @property
    def callers_have_gone(self) -> bool:
        """Whether they were sent the new route."""
        return self.step >= (2 if self.is_to_waypoint else 3)

    def service(self, wanted: Service) -> Service:
        """The service as nodes have it in this step."""
        if self.step >= STEPS:
            return wanted
        ruled = self.former if self.is_to_waypoint else wanted
        assert ruled.rules is not None, "one of both is enforced by pods' nodes"
        routed = wanted if self.callers_have_gone else self.former
        return msgspec.structs.replace(
            wanted,
            rules=excepting(ruled.rules, self.principals),
            waypoint=routed.waypoint,
            weighted_waypoints=routed.weighted_waypoints,
            inline=routed.inline,
        )

    def pod(self, wanted: Workload) -> Workload:
        """A pod as its node has it in this step."""
        change = self.pods.get(wanted.uid)
        if change is None or self._pods_are_done:
            return wanted
        policies = set(wanted.policies) | change.former
        if not (self.is_to_waypoint and self.step == STEPS - 1):
            policies -= change.added
        return msgspec.structs.replace(wanted, policies=tuple(sorted(policies)))

    @property
    def former_policies(self) -> frozenset[str]:
        """Names of policies that pods still have, although they are not to."""
        if self._pods_are_done:
            return frozenset()
        return frozenset(name for pod in self.pods.values() for name in pod.former)

    @property
    def _pods_are_done(self) -> bool:
        return self.step >= (STEPS if self.is_to_waypoint else 2)


class PodChange(msgspec.Struct):
    """Names of the policies that a pod loses and gets with the change."""

    wanted: Workload
    former: frozenset[str]
    added: frozenset[str]


class Mesh(Protocol):
    """The mesh before the change."""

    def workload(self, uid: str) -> Workload | None: ...
    def service(self, key: str) -> Service | None: ...
    def endpoints(self, service: Service) -> Iterable[Workload]: ...


def begin(wanted: Service, pods: Iterable[Workload], mesh: Mesh, until: float) -> Change | None:
    """The change of a service, with its `pods` as they are wanted; None where it is none of this kind."""
    former = mesh.service(wanted.key)
    if former is None or (former.enforced is None) == (wanted.enforced is None):
        return None
    at_pods, at_waypoint = (former, wanted) if former.enforced is not None else (wanted, former)
    waypoint = at_waypoint.waypoint
    if (
        at_pods.has_waypoint
        or waypoint is None
        or at_waypoint.weighted_waypoints
        or at_waypoint.rules is not None
    ):
        return None
    place = (waypoint.namespace, waypoint.hostname)
    service = mesh.service("/".join(place))
    behind = tuple(mesh.endpoints(service)) if service is not None else ()
    if not behind or any(each.application_tunnel is not None for each in behind):
        return None
    changes = {each.uid: _pod_change(each, mesh) for each in pods}
    guards = [each.former if former is at_waypoint else each.added for each in changes.values()]
    if not guards or not all(any(f"/{ONLY_BY_WAYPOINT}" in name for name in names) for names in guards):
        return None
    principals = tuple(sorted({each.identity.principal for each in behind}))
    return Change(wanted, former, place, principals, changes, until)


def _pod_change(wanted: Workload, mesh: Mesh) -> PodChange:
    before = mesh.workload(wanted.uid)
    former = _of_change(before) if before is not None else frozenset[str]()
    return PodChange(wanted, former - _of_change(wanted), _of_change(wanted) - former)


def _of_change(pod: Workload) -> frozenset[str]:
    begins = tuple(f"{pod.namespace}/{each}" for each in (ONLY_BY_WAYPOINT, READ_AT_POD))
    return frozenset(each for each in pod.policies if each.startswith(begins))


def excepting(rules: InlineRules, principals: Collection[str]) -> InlineRules:
    """The rules for everybody but these callers, who meet them elsewhere."""
    values = tuple(map(Exact, principals))
    others = Clause((Match((Condition(Attribute.PRINCIPAL, unwanted=values),)),))
    policies = [
        msgspec.structs.replace(each, rules=tuple(Rule((*rule.clauses, others)) for rule in each.rules))
        if each.action in (RequestAction.DENY, RequestAction.CUSTOM)
        else each
        for each in rules.policies
    ]
    allowing = next(
        (each for each in policies if each.action is RequestAction.ALLOW and not each.dry_run), None
    )
    if allowing is not None:
        they = Rule((Clause((Match((Condition(Attribute.PRINCIPAL, values),)),)),))
        policies.append(
            RequestPolicy(ALREADY_HELD, allowing.namespace, RequestAction.ALLOW, allowing.targets, (they,))
        )
    return msgspec.structs.replace(rules, policies=tuple(policies))
