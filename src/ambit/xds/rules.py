"""Rules about requests on the wire: JSON, in which each value of a condition is a list that begins with its kind."""

import ipaddress
from collections.abc import Callable
from typing import Any

import msgspec

from ambit.core.address import Network
from ambit.core.finding import ObjectRef
from ambit.model.inline_rules import InlineRules
from ambit.model.jwt import Target, TokenPolicy
from ambit.model.policy import Exact, Prefix, Presence, ServiceAccountMatch, Suffix
from ambit.model.request_policy import (
    Asked,
    Attribute,
    Clause,
    Condition,
    Match,
    PathTemplate,
    RequestAction,
    RequestPolicy,
    Rule,
    Value,
)

_Value = tuple[str | int, ...]


class _Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    attribute: Attribute
    values: tuple[_Value, ...] = ()
    unwanted: tuple[_Value, ...] = ()
    name: tuple[str, ...] = ()


class _Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`rules`: rules of clauses of matches of conditions."""

    name: str
    namespace: str
    action: RequestAction
    targets: tuple[Target, ...]
    rules: tuple[tuple[tuple[tuple[_Condition, ...], ...], ...], ...] = ()
    dry_run: bool = False
    provider: str = ""
    origin: ObjectRef | None = None
    asked: Asked | None = None


class _Rules(msgspec.Struct, frozen=True, omit_defaults=True):
    policies: tuple[_Policy, ...] = ()
    tokens: tuple[TokenPolicy, ...] = ()


def encode(rules: InlineRules) -> bytes:
    """As they travel."""
    return msgspec.json.encode(_Rules(tuple(map(_policy, rules.policies)), rules.tokens))


def decode(data: bytes) -> InlineRules:
    """What `encode` made. Raises ValueError."""
    found = msgspec.json.decode(data, type=_Rules)
    return InlineRules(tuple(map(_read_policy, found.policies)), found.tokens)


def _policy(given: RequestPolicy) -> _Policy:
    rules = tuple(
        tuple(
            tuple(tuple(map(_condition, match.conditions)) for match in clause.matches)
            for clause in rule.clauses
        )
        for rule in given.rules
    )
    return _Policy(
        given.name,
        given.namespace,
        given.action,
        given.targets,
        rules,
        given.dry_run,
        given.provider,
        given.origin,
        given.asked,
    )


def _read_policy(given: _Policy) -> RequestPolicy:
    rules = tuple(
        Rule(tuple(Clause(tuple(Match(tuple(map(_read, match))) for match in clause)) for clause in rule))
        for rule in given.rules
    )
    return RequestPolicy(
        given.name,
        given.namespace,
        given.action,
        given.targets,
        rules,
        given.dry_run,
        given.provider,
        given.origin,
        given.asked,
    )


def _condition(given: Condition) -> _Condition:
    values, unwanted = (tuple(map(_value, each)) for each in (given.values, given.unwanted))
    return _Condition(given.attribute, values, unwanted, given.name)


def _read(given: _Condition) -> Condition:
    values, unwanted = (tuple(map(_read_value, each)) for each in (given.values, given.unwanted))
    return Condition(given.attribute, values, unwanted, given.name)


def _value(given: Value) -> _Value:
    match given:
        case Exact(text):
            return "exact", text
        case Prefix(text):
            return "prefix", text
        case Suffix(text):
            return "suffix", text
        case Presence():
            return ("presence",)
        case PathTemplate(text):
            return "template", text
        case ServiceAccountMatch(namespace, account):
            return "account", namespace, account
        case int():
            return "port", given
        case _:
            return "network", str(given)


def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


_KINDS: dict[str, Callable[..., Any]] = {
    "exact": Exact,
    "prefix": Prefix,
    "suffix": Suffix,
    "presence": Presence,
    "template": PathTemplate,
    "account": ServiceAccountMatch,
    "port": int,
    "network": _network,
}


def _read_value(given: _Value) -> Value:
    """Raises ValueError: a kind that is not known must not be passed over."""
    make = _KINDS.get(str(given[0])) if given else None
    if make is None:
        raise ValueError(f"{given!r} is no value of a condition")
    try:
        found: Value = make(*given[1:])
    except TypeError:
        raise ValueError(f"{given!r} is no value of a condition") from None
    return found
