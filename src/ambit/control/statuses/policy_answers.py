"""Whether all that enforce a policy for requests have it: its condition `ambit.io/Acknowledged`. No I/O.

Proxies of waypoints and gateways that are connected here count, each with its policies as they are now, and nodes that
enforce it at their pods (`ambit.control.statuses.ruled_nodes`); without any nothing is said. What was true of a
generation once stays so: pods that come later get their policies before anybody's requests.
"""

from collections.abc import Callable, Iterable

import msgspec

from ambit.control.answers import Answer, Progress, joined
from ambit.control.statuses.status import acknowledged
from ambit.core.finding import ObjectRef
from ambit.ingest.gateway.conditions import WAYPOINT_ACCEPTED
from ambit.ingest.istio.tokens import KIND as TOKEN_KIND
from ambit.ingest.statuses.policy_statuses import KIND as POLICY_KIND
from ambit.model.status import Condition, ObjectStatus, Status, Version

Find = Callable[[ObjectRef], Iterable[Answer]]


class PolicyAnswers:
    """`proxies` and `nodes` have the answers of those that enforce this object's policy."""

    def __init__(self, proxies: Find, nodes: Find) -> None:
        self._proxies = proxies
        self._nodes = nodes
        self._waiting: dict[ObjectRef, None] = {}
        self._settled: dict[ObjectRef, tuple[Version, Condition]] = {}

    @property
    def waiting(self) -> tuple[ObjectRef, ...]:
        """Objects whose status may say something else when a proxy has answered."""
        return tuple(self._waiting)

    def changed(self, kind: str, keys: Iterable[str]) -> None:
        """Policies of objects of this kind, `<namespace>/<name>`, are others now, or gone."""
        for key in keys:
            namespace, _, name = key.partition("/")
            self._forget(ObjectRef(kind, namespace, name))

    def amended(self, status: Status) -> Status:
        """The status of a policy that waypoints have accepted with how far they are."""
        origin = status.version.origin
        if origin.kind not in (POLICY_KIND, TOKEN_KIND) or not isinstance(status, ObjectStatus):
            return status
        if status.by_nodes:
            return status  # the condition tells of nodes then
        if not any(each.type == WAYPOINT_ACCEPTED and each.holds for each in status.conditions):
            self._forget(origin)
            return status
        said = self._condition(status.version)
        return (
            status if said is None else msgspec.structs.replace(status, conditions=(*status.conditions, said))
        )

    def _forget(self, origin: ObjectRef) -> None:
        self._waiting.pop(origin, None)
        self._settled.pop(origin, None)

    def _condition(self, version: Version) -> Condition | None:
        origin = version.origin
        former = self._settled.get(origin)
        proxies, nodes = list(self._proxies(origin)), list(self._nodes(origin))
        progress = joined((*proxies, *nodes))
        if former is not None and former[0] == version and not progress.rejected:
            return former[1]
        if not progress.nodes:
            self._waiting[origin] = None
            return None
        condition = _acknowledged(progress, has_proxies=bool(proxies), has_nodes=bool(nodes))
        if condition.holds:
            self._waiting.pop(origin, None)
            self._settled[origin] = (version, condition)
        else:
            self._waiting[origin] = None
        return condition


def _acknowledged(progress: Progress, *, has_proxies: bool, has_nodes: bool) -> Condition:
    if not has_nodes:
        return acknowledged(progress, one="proxy", several="proxies")
    return acknowledged(progress, several="proxies and nodes") if has_proxies else acknowledged(progress)
