"""Authorization of requests compiled for Envoy: ordered rows for one port of a service.

Semantics are those of `ambit.policy.requests`. Where requests are read the rows are an extension (RBAC, by ECDS, so
that a change drains nothing); where they are not, they are asked when the tunnel is opened, before anybody is dialled:
what is for requests hits there as it harms most. At the edge, where there are no tunnels, the listener's matcher asks:
Envoy's network filter would ask after it has dialled, and let through what a server says first.
"""

from collections.abc import Sequence

from ambit.envoy import http_authorization, http_rbac, matchers
from ambit.envoy.http_authorization import Place
from ambit.envoy.matchers import Predicate
from ambit.envoy.words import AnyMessage
from ambit.model.request_policy import RequestAction, RequestPolicy
from ambit.plan.authorization import NO_POLICY, REFUSED_BY_ENVOY
from ambit.policy.decide import NO_ALLOW_MATCHED

Row = tuple[Predicate, bool, str]


def extension(name: str, policies: Sequence[RequestPolicy], place: Place) -> AnyMessage:
    """The RBAC extension `name`. Dry-run policies are decided beside, as if they were enforced."""
    return http_rbac.extension(name, *_decisions(policies, place))


def of_all(name: str, judges: Sequence[tuple[Sequence[RequestPolicy], Place]]) -> AnyMessage:
    """As `extension`, where what one of `judges` denies is denied."""
    *others, (policies, place) = judges
    rows, otherwise, dry_run = _decisions(policies, place)
    before = [row for each in others for row in denials(*each)]
    return http_rbac.extension(name, [*before, *rows], otherwise, [*before, *dry_run] if dry_run else [])


def denials(policies: Sequence[RequestPolicy], place: Place) -> list[Row]:
    """Rows of what the policies deny, and of nothing else."""
    rows, (is_allowed, name) = _rows([policy for policy in policies if not policy.dry_run], place)
    denying = [row for row in rows if not row[1]]
    if is_allowed:
        return denying
    allowing = matchers.any_of(predicate for predicate, allow, _ in rows if allow)
    return [*denying, (matchers.negated(allowing), False, name)]


def refused(name: str) -> AnyMessage:
    """Stands for the extension `name` that Envoy did not take: no request gets in."""
    return http_rbac.extension(name, (), (False, REFUSED_BY_ENVOY))


def of_bytes(host: AnyMessage, policies: Sequence[RequestPolicy], place: Place) -> None:
    """Adds to a virtual host of tunnels who may pass."""
    http_rbac.of_host(host, *_decisions(policies, place))


def of_connections(policies: Sequence[RequestPolicy], place: Place) -> tuple[list[Row], bool]:
    """Rows about connections that nobody reads requests in, and whether the others may pass. Dry runs take no part:
    nobody tells of such connections."""
    rows, (allowed, _) = _rows([policy for policy in policies if not policy.dry_run], place)
    return rows, allowed


def _decisions(
    policies: Sequence[RequestPolicy], place: Place
) -> tuple[list[Row], tuple[bool, str], list[Row]]:
    """Rows, what holds without a match, and rows of the dry run."""
    enforced = [policy for policy in policies if not policy.dry_run]
    rows, otherwise = _rows(enforced, place)
    if len(enforced) == len(policies):
        return rows, otherwise, []
    dry_run, fallback = _rows(policies, place)
    return rows, otherwise, [*dry_run, (True, *fallback)]


def _rows(policies: Sequence[RequestPolicy], place: Place) -> tuple[list[Row], tuple[bool, str]]:
    rows: list[Row] = []
    in_order = sorted(policies, key=lambda policy: policy.key)
    for action in (RequestAction.DENY, RequestAction.ALLOW):
        rows += [
            (
                http_authorization.predicate(rule, action, place),
                action is RequestAction.ALLOW,
                f"{policy.key}[{index}]",
            )
            for policy in in_order
            if policy.action is action
            for index, rule in enumerate(policy.rules)
        ]
    allowing = [policy.key for policy in in_order if policy.action is RequestAction.ALLOW]
    if allowing:
        return rows, (False, allowing[0] if len(allowing) == 1 else NO_ALLOW_MATCHED)
    return rows, (True, NO_POLICY)
