"""XBackendTrafficPolicy (Gateway API v1.6, experimental; GEP-1619, GEP-3388): how many requests to a service may be
retries, and whether clients stay with a server.

- Of two for the same service the older counts, then its name (GEP-713), and the other says `Conflicted`.
- Envoy compares retries with the requests that it has under way, so the budget has no interval; a least rate is as many
  at once as it is in a second.
- A session is that of requests to the service for which no route says another (`gateway.rules`).
"""

import math
from collections.abc import Iterable

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context, Graph
from ambit.ingest.gateway.attachment import CompiledRoute
from ambit.ingest.gateway.backend_targets import Ancestors, is_target, object_of, target_of
from ambit.ingest.gateway.conditions import ACCEPTED, CONFLICTED, no, version, yes
from ambit.ingest.gateway.patterns import milliseconds
from ambit.ingest.gateway.rules import BadValue, session_of
from ambit.model import http_bounds
from ambit.model.http import Action, SessionPersistence
from ambit.model.service import RetryBudget, Service
from ambit.model.status import Condition, Status
from ambit.objects.backend_policies import RetryConstraint, XBackendTrafficPolicy

KIND = "XBackendTrafficPolicy"


class CompiledTraffic(msgspec.Struct, frozen=True):
    """`targets` are objects (`Service <namespace>/<name>`). `refused`: why it cannot be carried out."""

    age: tuple[str, str, str]
    targets: tuple[str, ...]
    budget: RetryBudget | None = None
    session: SessionPersistence | None = None
    refused: str = ""


class TrafficPolicies:
    """What policies make of services."""

    def __init__(self, graph: Graph, policies: Collection[XBackendTrafficPolicy]) -> None:
        self._graph = graph
        self._policies = policies
        self._compiled = graph.derive("backend traffic policies", policies, lambda _, given: _compiled(given))
        self._by_target = self._compiled.index(lambda each: each.targets)

    def service(self, context: Context, given: Service) -> Service:
        """The service as it is to be called."""
        found = context.lookup(self._by_target, object_of(given))
        if not found:
            return given
        best = min(found, key=lambda each: each.age)
        return msgspec.structs.replace(given, retry_budget=best.budget, session=best.session)

    def statuses(
        self, services: Collection[Service], routes: Iterable[Collection[CompiledRoute]]
    ) -> Collection[Status]:
        """What is said of each policy; `services` are the finished ones."""
        ancestors = Ancestors(services, routes)

        def status(context: Context, given: XBackendTrafficPolicy) -> Status | None:
            compiled = context.get(self._compiled, given.metadata.key)
            if compiled is None:
                return None
            condition = self._condition(context, compiled)
            return ancestors.status(context, version(given.metadata, KIND), compiled.targets, (condition,))

        return self._graph.derive(
            "statuses of backend traffic policies",
            self._policies,
            status,
            key=lambda status: str(status.version.origin),
        )

    def _condition(self, context: Context, compiled: CompiledTraffic) -> Condition:
        lost = [
            target
            for target in compiled.targets
            if any(each.age < compiled.age for each in context.lookup(self._by_target, target))
        ]
        if lost:
            return no(ACCEPTED, CONFLICTED, f"an older policy is for {', '.join(lost)}")
        if compiled.refused:
            return no(ACCEPTED, "Invalid", f"{compiled.refused} (the policy changes nothing)")
        return yes(ACCEPTED)


def _compiled(given: XBackendTrafficPolicy) -> CompiledTraffic:
    meta, spec = given.metadata, given.spec
    targets = dict.fromkeys(target_of(each, meta.namespace) for each in spec.target_refs if is_target(each))
    try:
        budget, session = _budget(spec.retry_constraint), session_of(spec.session_persistence)
    except BadValue as error:
        return CompiledTraffic(meta.age, tuple(targets), refused=str(error))
    if text := http_bounds.problem(Action(session=session)):
        return CompiledTraffic(meta.age, tuple(targets), refused=text)
    return CompiledTraffic(meta.age, tuple(targets), budget, session)


def _budget(given: RetryConstraint | None) -> RetryBudget | None:
    """Raises BadValue."""
    if given is None:
        return None
    if not 0 <= given.budget.percent <= 100:
        raise BadValue(f"retryConstraint.budget.percent: {given.budget.percent} is not between 0 and 100")
    rate = given.min_retry_rate
    interval = milliseconds(rate.interval)
    if not interval or rate.count < 1:
        raise BadValue(f"retryConstraint.minRetryRate: {rate.count} in {rate.interval!r} is no rate")
    return RetryBudget(given.budget.percent, math.ceil(rate.count * 1000 / interval))
