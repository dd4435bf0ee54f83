"""What L4 policy means: whether a connection is allowed, by which rule, and why. The only place that says
so.

Order (Istio; ztunnel `rbac.rs` and `state.rs::assert_rbac`, whose answers these are):

1. A workload that names a policy which is not known here is closed: deny. (ztunnel skips such a name.)
2. A DENY policy that matches denies.
3. Without any ALLOW policy the connection is allowed.
4. An ALLOW policy that matches allows; otherwise deny.
5. Dry-run policies take no part in 2-4; what they would have changed is in `Decision.dry_run`.

Matching: rules OR; the clauses of a rule AND; the matches of a clause OR; the fields of a match AND; the
values of a field OR; a `not_` field must have no hit. A policy without rules matches nothing. A rule
without clauses and a clause without matches always hold; a match without fields never does. A peer
without identity hits no positive condition on principal, namespace or service account, and passes every
negative one.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Protocol, TypeVar

import msgspec

from ambit.core.address import Address, Network
from ambit.core.identity import Identity
from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Match,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    text_hits,
)


class Named(Protocol):
    """A policy, whatever it is about."""

    @property
    def key(self) -> str: ...

    @property
    def dry_run(self) -> bool: ...


P = TypeVar("P", bound=Named)
V = TypeVar("V")
Matching = Callable[[P], int | None]
"""Index of the first rule of a policy that holds."""
NO_ALLOW_MATCHED = "none"
"""Name of the decision when several ALLOW policies exist and none matched; a single one gives its own
name."""
UNKNOWN_POLICY = "unknown:"
"""Prefix of the decision's name when the workload names a policy that has not arrived."""


class ConnectionFacts(msgspec.Struct, frozen=True):
    """A connection as its destination sees it. `identity` is the verified peer's, None for plaintext;
    `destination_port` is the pod's port, after any service port was translated."""

    source: Address
    destination: Address
    destination_port: int
    identity: Identity | None = None


class Reason(StrEnum):
    DENIED_BY_RULE = "denied by rule"
    ALLOWED_BY_RULE = "allowed by rule"
    NO_ALLOW_POLICY = "no allow policy applies"
    NO_RULE_MATCHED = "no allow rule matches"
    UNKNOWN_POLICY = "a policy it names is unknown"
    NOBODY_TO_ASK = "somebody would have to be asked, and nobody can be"


class Decision(msgspec.Struct, frozen=True):
    """`policy` is the deciding policy's key and `rule` the index of its rule that matched.

    For `NO_RULE_MATCHED` the policy is the only ALLOW policy, or empty when there are several; for
    `UNKNOWN_POLICY` the name that is missing. `dry_run` is what the answer would be with the dry-run policies
    enforced, if it differs.
    """

    allowed: bool
    reason: Reason
    policy: str = ""
    rule: int | None = None
    dry_run: "Decision | None" = None


def decide(
    policies: Sequence[Authorization], facts: ConnectionFacts, missing: Sequence[str] = ()
) -> Decision:
    """The decision on a connection under the policies that apply to its destination (`MeshView.policies_for`).

    `missing` are names the workload refers to that nobody knows.
    """
    if missing:
        return Decision(False, Reason.UNKNOWN_POLICY, min(missing))

    def decided(policies: Sequence[Authorization]) -> Decision:
        denying, allowing = (
            [policy for policy in policies if policy.action is action]
            for action in (Action.DENY, Action.ALLOW)
        )
        return in_order(denying, allowing, lambda policy: matching_rule(policy, facts))

    return with_dry_run(policies, decided)


def matching_rule(policy: Authorization, facts: ConnectionFacts) -> int | None:
    """Index of the first rule that holds."""
    return next((i for i, rule in enumerate(policy.rules) if _rule_holds(rule, facts)), None)


def in_order(denying: Sequence[P], allowing: Sequence[P], matching: Matching[P]) -> Decision:
    """Steps 2 to 4."""
    if (found := first_match(denying, matching)) is not None:
        return Decision(False, Reason.DENIED_BY_RULE, *found)
    if not allowing:
        return Decision(True, Reason.NO_ALLOW_POLICY)
    if (found := first_match(allowing, matching)) is not None:
        return Decision(True, Reason.ALLOWED_BY_RULE, *found)
    return Decision(False, Reason.NO_RULE_MATCHED, allowing[0].key if len(allowing) == 1 else "")


def first_match(policies: Iterable[P], matching: Matching[P]) -> tuple[str, int] | None:
    """The first rule that holds, with its policy's key. By key, so that the policy which is named does not depend on
    the order of arrival."""
    for policy in sorted(policies, key=lambda policy: policy.key):
        rule = matching(policy)
        if rule is not None:
            return policy.key, rule
    return None


def with_dry_run(policies: Sequence[P], decided: Callable[[Sequence[P]], Decision]) -> Decision:
    """What those that are enforced decide; step 5."""
    enforced = [policy for policy in policies if not policy.dry_run]
    decision = decided(enforced)
    if len(enforced) == len(policies):
        return decision
    other = decided(policies)
    return decision if other == decision else msgspec.structs.replace(decision, dry_run=other)


def rule_name(decision: Decision) -> str:
    """The decision's rule as logs show it, the same as on HBONE (`ambit.plan.authorization`); empty when it was
    allowed without any policy."""
    match decision.reason:
        case Reason.NO_ALLOW_POLICY:
            return ""
        case Reason.UNKNOWN_POLICY:
            return UNKNOWN_POLICY + decision.policy
        case Reason.NO_RULE_MATCHED:
            return decision.policy or NO_ALLOW_MATCHED
        case Reason.DENIED_BY_RULE | Reason.ALLOWED_BY_RULE | Reason.NOBODY_TO_ASK:
            return f"{decision.policy}[{decision.rule}]"


def _rule_holds(rule: Rule, facts: ConnectionFacts) -> bool:
    return all(_clause_holds(clause, facts) for clause in rule.clauses)


def _clause_holds(clause: Clause, facts: ConnectionFacts) -> bool:
    return not clause.matches or any(match_holds(match, facts) for match in clause.matches)


_NO_FIELDS = Match()


def match_holds(match: Match, facts: ConnectionFacts) -> bool:
    """Whether every field that is given holds, and one is."""
    if match == _NO_FIELDS:
        return False
    peer = facts.identity
    namespace = peer.namespace if peer else ""
    principal = peer.principal if peer else ""
    return (
        _field(match.principals, match.not_principals, lambda want: _text(want, principal))
        and _field(match.namespaces, match.not_namespaces, lambda want: _text(want, namespace))
        and _field(match.service_accounts, match.not_service_accounts, lambda want: _account(want, peer))
        and _field(match.source_ips, match.not_source_ips, lambda want: _inside(want, facts.source))
        and _field(
            match.destination_ips, match.not_destination_ips, lambda want: _inside(want, facts.destination)
        )
        and _field(
            match.destination_ports,
            match.not_destination_ports,
            lambda want: want == facts.destination_port,
        )
    )


def _field(wanted: Sequence[V], unwanted: Sequence[V], hit: Callable[[V], bool]) -> bool:
    return (not wanted or any(map(hit, wanted))) and not any(map(hit, unwanted))


def _text(want: StringMatch, value: str) -> bool:
    """`value` is empty when there is no identity, which nothing may match, not even an empty prefix."""
    return bool(value) and text_hits(want, value)


def _account(want: ServiceAccountMatch, peer: Identity | None) -> bool:
    return peer is not None and (want.namespace, want.service_account) == (
        peer.namespace,
        peer.service_account,
    )


def _inside(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network
