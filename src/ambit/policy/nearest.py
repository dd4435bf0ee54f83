"""What a rule lacks to hold for a connection, and which rule lacks least. Says nothing `ambit.policy.decide` does not.

A clause that does not hold is told by the match in it that fails in the fewest fields; a rule by all of its clauses.
Between rules that lack equally much the first by policy and index is nearest.
"""

from collections.abc import Iterable

import msgspec

from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Exact,
    Match,
    Prefix,
    Presence,
    Rule,
    ServiceAccountMatch,
    Suffix,
)
from ambit.model.request_policy import PathTemplate
from ambit.policy.decide import ConnectionFacts, Decision, decide, match_holds

_FIELDS = {
    "principals": "principals",
    "namespaces": "namespaces",
    "service_accounts": "serviceAccounts",
    "source_ips": "ipBlocks",
    "destination_ips": "destinationIps",
    "destination_ports": "ports",
}
"""Names in AuthorizationPolicy; `destinationIps` stands for the condition `destination.ip`."""
_NEVER = Rule((Clause((Match(),)),))


class Miss(msgspec.Struct, frozen=True, rename="camel"):
    """A field that fails: the values it was given, and the connection's (empty when it has no identity). A match
    without any field, which nothing meets, has no name."""

    field: str
    wanted: tuple[str, ...]
    actual: str


class NearRule(msgspec.Struct, frozen=True):
    """A rule and what it lacks; nothing when it holds."""

    policy: Authorization
    rule: int
    misses: tuple[Miss, ...]


def misses(rule: Rule, facts: ConnectionFacts) -> tuple[Miss, ...]:
    """What of a rule fails; empty exactly when the rule holds."""
    found: dict[Miss, None] = {}
    for clause in rule.clauses:
        if clause.matches:
            least = min((_of_match(each, facts) for each in clause.matches), key=lambda each: len(each))
            found.update(dict.fromkeys(least))
    return tuple(found)


def nearest(policies: Iterable[Authorization], action: Action, facts: ConnectionFacts) -> NearRule | None:
    """Of the enforced policies with this action the rule that lacks least; None when they have no rule."""
    candidates = (
        NearRule(policy, index, misses(rule, facts))
        for policy in policies
        if policy.action is action and not policy.dry_run
        for index, rule in enumerate(policy.rules)
    )
    return min(candidates, key=lambda each: (len(each.misses), each.policy.key, each.rule), default=None)


def decide_without(
    policies: Iterable[Authorization], decision: Decision, facts: ConnectionFacts
) -> Decision | None:
    """What would be decided if the rule that decided did not hold; None when no rule did."""
    if decision.rule is None:
        return None
    enforced = [policy for policy in policies if not policy.dry_run]
    return decide(
        [
            _silenced(policy, decision.rule) if policy.key == decision.policy else policy
            for policy in enforced
        ],
        facts,
    )


def _silenced(policy: Authorization, rule: int) -> Authorization:
    rules = tuple(_NEVER if index == rule else each for index, each in enumerate(policy.rules))
    return msgspec.structs.replace(policy, rules=rules)


def _of_match(match: Match, facts: ConnectionFacts) -> tuple[Miss, ...]:
    if match == Match():
        return (Miss("", (), ""),)
    return tuple(
        Miss(_name(field), tuple(map(text_of, values)), _actual(field, facts))
        for field in match.__struct_fields__
        if (values := getattr(match, field)) and not match_holds(Match(**{field: values}), facts)
    )


def _name(field: str) -> str:
    positive = field.removeprefix("not_")
    name = _FIELDS[positive]
    return name if positive == field else f"not{name[0].upper()}{name[1:]}"


def _actual(field: str, facts: ConnectionFacts) -> str:
    peer = facts.identity
    match field.removeprefix("not_"):
        case "source_ips":
            return str(facts.source)
        case "destination_ips":
            return str(facts.destination)
        case "destination_ports":
            return str(facts.destination_port)
        case "principals" if peer:
            return peer.principal
        case "namespaces" if peer:
            return peer.namespace
        case "service_accounts" if peer:
            return f"{peer.namespace}/{peer.service_account}"
        case _:
            return ""


def text_of(value: object) -> str:
    """A value as AuthorizationPolicy writes it."""
    match value:
        case Exact(text) | PathTemplate(text):
            return text
        case Prefix(text):
            return f"{text}*"
        case Suffix(text):
            return f"*{text}"
        case Presence():
            return "*"
        case ServiceAccountMatch(namespace, account):
            return f"{namespace}/{account}"
        case _:
            return str(value)
