"""As `ambit.policy.nearest`, of rules about requests: what a rule lacks to hold, and which rule lacks least. Says
nothing that `ambit.policy.requests` does not."""

from collections.abc import Iterable

import msgspec

from ambit.model.request_policy import (
    Attribute,
    Clause,
    Condition,
    Match,
    RequestAction,
    RequestPolicy,
    Rule,
)
from ambit.policy.nearest import Miss, text_of
from ambit.policy.requests import Request, RequestFacts, claims, condition_holds


class NearRequestRule(msgspec.Struct, frozen=True):
    """A rule, named as in logs, and what it lacks; nothing when it holds."""

    rule: str
    action: RequestAction
    misses: tuple[Miss, ...]


def nearest_request(
    policies: Iterable[RequestPolicy], action: RequestAction, facts: RequestFacts
) -> NearRequestRule | None:
    """Of the enforced policies with this action the rule that lacks least, the first by policy and index of several;
    None when they have no rule."""
    found = (
        (len(lacking), policy.key, index, lacking)
        for policy in policies
        if policy.action is action and not policy.dry_run
        for index, rule in enumerate(policy.rules)
        for lacking in (misses(rule, action, facts),)
    )
    least = min(found, key=lambda each: each[:3], default=None)
    return NearRequestRule(f"{least[1]}[{least[2]}]", action, least[3]) if least is not None else None


def misses(rule: Rule, action: RequestAction, facts: RequestFacts) -> tuple[Miss, ...]:
    """What of a rule fails, in its order; empty exactly when the rule holds."""
    is_lax = action is not RequestAction.ALLOW
    found: dict[Miss, None] = {}
    for clause in rule.clauses:
        found.update(dict.fromkeys(_of_clause(clause, facts, is_lax=is_lax)))
    return tuple(found)


def _of_clause(clause: Clause, facts: RequestFacts, *, is_lax: bool) -> tuple[Miss, ...]:
    each_match = (_of_match(each, facts, is_lax=is_lax) for each in clause.matches)
    return min(each_match, key=len, default=())


def _of_match(match: Match, facts: RequestFacts, *, is_lax: bool) -> tuple[Miss, ...]:
    if not match.conditions:
        return (Miss("", (), ""),)
    return tuple(miss for each in match.conditions for miss in _of_condition(each, facts, is_lax=is_lax))


def _of_condition(condition: Condition, facts: RequestFacts, *, is_lax: bool) -> Iterable[Miss]:
    wanted = msgspec.structs.replace(condition, unwanted=())
    unwanted = msgspec.structs.replace(condition, values=())
    for half, values, is_negative in (
        (wanted, condition.values, False),
        (unwanted, condition.unwanted, True),
    ):
        if values and not condition_holds(half, facts, is_lax=is_lax):
            yield Miss(
                _name(condition, is_negative=is_negative),
                tuple(map(text_of, values)),
                _actual(condition, facts),
            )


def _name(condition: Condition, *, is_negative: bool) -> str:
    """As in AuthorizationPolicy."""
    match condition.attribute:
        case Attribute.HEADER | Attribute.CLAIM:
            name = condition.attribute.value + "".join(f"[{each}]" for each in condition.name)
        case Attribute.UNSEEN:
            name = "what nobody here can see"
        case attribute:
            name = attribute.value
    if not is_negative:
        return name
    return f"not {name}" if "." in name or " " in name else f"not{name[0].upper()}{name[1:]}"


def _actual(condition: Condition, facts: RequestFacts) -> str:
    """Empty where there is nothing to compare."""
    peer = facts.identity
    match condition.attribute:
        case Attribute.SOURCE_IP:
            return str(facts.source)
        case Attribute.DESTINATION_IP:
            return str(facts.destination or "")
        case Attribute.PORT:
            return str(facts.port)
        case Attribute.SNI:
            return facts.server_name or ""
        case Attribute.PRINCIPAL:
            return peer.principal if peer else facts.principal
        case Attribute.TRUST_DOMAIN:
            return peer.trust_domain if peer else facts.principal.partition("/")[0]
        case Attribute.NAMESPACE if peer:
            return peer.namespace
        case Attribute.SERVICE_ACCOUNT if peer:
            return f"{peer.namespace}/{peer.service_account}"
        case Attribute.REMOTE_IP if facts.request:
            return str(facts.remote or facts.source)
        case _:
            return _said(condition, facts.request) if facts.request else ""


def _said(condition: Condition, request: Request) -> str:
    match condition.attribute:
        case Attribute.METHOD:
            return request.method
        case Attribute.HOST:
            return request.host
        case Attribute.PATH:
            return request.path.partition("?")[0]
        case Attribute.HEADER:
            return request.headers.get(condition.name[0], "")
        case Attribute.CLAIM:
            return ", ".join(claims(request.claims, condition.name))
        case Attribute.REQUEST_PRINCIPAL:
            both = [claims(request.claims, (each,)) for each in ("iss", "sub")]
            return "/".join(each[0] for each in both) if all(both) else ""
        case _:
            return ""
