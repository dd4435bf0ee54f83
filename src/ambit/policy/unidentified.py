"""Decides on a connection whose peer had an identity when it was accepted, which is not known any more.

The answer is the strictest that any identity would get: a DENY counts if some identity may match it, an ALLOW only if
every identity does. Rules as in `ambit.policy.decide`; a condition is true, false, or None where it depends on who the
peer is.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ambit.model.policy import Action, Authorization, Clause, Match, Presence, Rule
from ambit.policy.decide import ConnectionFacts, Decision, Reason, match_holds

V = TypeVar("V")
_NO_FIELDS = Match()


def decide_unidentified(
    policies: Sequence[Authorization], facts: ConnectionFacts, missing: Sequence[str] = ()
) -> Decision:
    """As `decide`, for every peer that has an identity; `facts.identity` is not looked at. Dry-run policies take no
    part."""
    if missing:
        return Decision(False, Reason.UNKNOWN_POLICY, min(missing))
    enforced = sorted((each for each in policies if not each.dry_run), key=lambda each: each.key)
    for policy in enforced:
        for index, rule in enumerate(policy.rules if policy.action is Action.DENY else ()):
            if _rule(rule, facts) is not False:
                return Decision(False, Reason.DENIED_BY_RULE, policy.key, index)
    allowing = [each for each in enforced if each.action is Action.ALLOW]
    if not allowing:
        return Decision(True, Reason.NO_ALLOW_POLICY)
    for policy in allowing:
        for index, rule in enumerate(policy.rules):
            if _rule(rule, facts):
                return Decision(True, Reason.ALLOWED_BY_RULE, policy.key, index)
    return Decision(False, Reason.NO_RULE_MATCHED, allowing[0].key if len(allowing) == 1 else "")


def _rule(rule: Rule, facts: ConnectionFacts) -> bool | None:
    return _all(_clause(clause, facts) for clause in rule.clauses)


def _clause(clause: Clause, facts: ConnectionFacts) -> bool | None:
    return _any(_match(match, facts) for match in clause.matches) if clause.matches else True


def _match(match: Match, facts: ConnectionFacts) -> bool | None:
    if match == _NO_FIELDS:
        return False
    told = Match(
        source_ips=match.source_ips,
        not_source_ips=match.not_source_ips,
        destination_ips=match.destination_ips,
        not_destination_ips=match.not_destination_ips,
        destination_ports=match.destination_ports,
        not_destination_ports=match.not_destination_ports,
    )
    return _all(
        (
            told == _NO_FIELDS or match_holds(told, facts),
            _field(match.principals, match.not_principals, _is_presence),
            _field(match.namespaces, match.not_namespaces, _is_presence),
            _field(match.service_accounts, match.not_service_accounts, lambda _: False),
        )
    )


def _field(wanted: Sequence[V], unwanted: Sequence[V], always: Callable[[V], bool]) -> bool | None:
    """`always`: whether the value is that of every identity; others are that of some."""
    hit = True if not wanted or any(map(always, wanted)) else None
    miss = False if any(map(always, unwanted)) else None if unwanted else True
    return _all((hit, miss))


def _is_presence(value: object) -> bool:
    return isinstance(value, Presence)


def _all(found: Iterable[bool | None]) -> bool | None:
    values = set(found)
    return False if False in values else None if None in values else True


def _any(found: Iterable[bool | None]) -> bool | None:
    values = set(found)
    return True if True in values else None if None in values else False
