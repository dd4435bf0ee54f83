"""What policy for requests means: whether a request is allowed, by which rule, and why. The only place that says so.

Order (Istio, "Authorization Policy"): CUSTOM asks somebody, whose no is final, and where nobody can be asked (there is
no such provider, or only bytes are seen) what matches is denied; then as for connections
(`ambit.policy.decide`): a DENY policy that matches denies, without any ALLOW policy the request is allowed, else one
has to match. AUDIT decides nothing. Dry-run policies take no part; what they would have changed is in
`Decision.dry_run`.

Where an attribute can be read in several ways the reading counts that harms the caller, who has chosen it: a value
that leads to a denial hits if any reading does (*lax*), one that leads to an allowance if every reading does
(*strict*). `values` of ALLOW and `unwanted` of other rules are strict, the other way round they are lax. So what nobody
sees (`Attribute.UNSEEN`, and attributes of requests where only bytes are seen) hits where it denies.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import re2

from ambit.core.address import Address, Network
from ambit.core.identity import Identity
from ambit.model import request_paths
from ambit.model.policy import Exact, Prefix, Presence, ServiceAccountMatch, StringMatch, Suffix, text_hits
from ambit.model.request_policy import (
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
from ambit.policy.decide import Decision, Reason, first_match, in_order, with_dry_run


class Request(msgspec.Struct, frozen=True):
    """`host` is `:authority` as it was sent; `path` has its query, and has been normalised by the proxy; names of
    headers are in lower case, several values of one joined by commas. `claims` are those of a valid token."""

    method: str = "GET"
    host: str = ""
    path: str = "/"
    headers: Mapping[str, str] = {}
    claims: Mapping[str, Any] = {}


class RequestFacts(msgspec.Struct, frozen=True):
    """What a proxy sees of a request; of bytes that it does not read, `request` is None. `source` is the client's
    address, `remote` the one that a trusted proxy before it told of; `port` the port that was dialled. `principal` is
    what a client proved that is no workload's identity, without the scheme; `server_name` the one in its hello, where
    that is seen."""

    source: Address
    port: int
    destination: Address | None = None
    identity: Identity | None = None
    remote: Address | None = None
    request: Request | None = None
    principal: str = ""
    server_name: str | None = None


class Question(msgspec.Struct, frozen=True):
    """A provider who is asked before, and the first rule that says so."""

    provider: str
    policy: str
    rule: int


class RequestDecision(msgspec.Struct, frozen=True):
    """`audited` are rules of AUDIT policies."""

    decision: Decision
    asked: tuple[Question, ...] = ()
    audited: tuple[tuple[str, int], ...] = ()


def decide_request(policies: Sequence[RequestPolicy], facts: RequestFacts) -> RequestDecision:
    """The decision under the policies that apply, if all who are asked say yes."""
    decision = with_dry_run(policies, lambda some: _decide(some, facts))
    enforced = [policy for policy in policies if not policy.dry_run]
    audited = ((each, matching_rule(each, facts)) for each in _of(enforced, RequestAction.AUDIT))
    return RequestDecision(
        decision,
        _questions(enforced, facts),
        tuple((policy.key, rule) for policy, rule in audited if rule is not None),
    )


def matching_rule(policy: RequestPolicy, facts: RequestFacts) -> int | None:
    """Index of the first rule that holds."""
    is_lax = policy.action is not RequestAction.ALLOW
    return next((i for i, rule in enumerate(policy.rules) if _rule(rule, facts, is_lax=is_lax)), None)


def _questions(policies: Sequence[RequestPolicy], facts: RequestFacts) -> tuple[Question, ...]:
    """By name of the provider, who is asked once."""
    found: dict[str, Question] = {}
    for policy in _of(policies, RequestAction.CUSTOM):
        rule = matching_rule(policy, facts)
        if rule is not None and _can_be_asked(policy, facts):
            found.setdefault(policy.provider, Question(policy.provider, policy.key, rule))
    return tuple(found[name] for name in sorted(found))


def _can_be_asked(policy: RequestPolicy, facts: RequestFacts) -> bool:
    return policy.asked is not None and facts.request is not None


def _decide(policies: Sequence[RequestPolicy], facts: RequestFacts) -> Decision:
    def matching(policy: RequestPolicy) -> int | None:
        return matching_rule(policy, facts)

    custom = _of(policies, RequestAction.CUSTOM)
    closed = first_match((each for each in custom if not _can_be_asked(each, facts)), matching)
    if closed is not None:
        return Decision(False, Reason.NOBODY_TO_ASK, *closed)
    denying, allowing = (_of(policies, each) for each in (RequestAction.DENY, RequestAction.ALLOW))
    return in_order(denying, allowing, matching)


def _of(policies: Iterable[RequestPolicy], action: RequestAction) -> list[RequestPolicy]:
    """By key."""
    return sorted((policy for policy in policies if policy.action is action), key=lambda policy: policy.key)


def _rule(rule: Rule, facts: RequestFacts, *, is_lax: bool) -> bool:
    return all(_clause(clause, facts, is_lax=is_lax) for clause in rule.clauses)


def _clause(clause: Clause, facts: RequestFacts, *, is_lax: bool) -> bool:
    return not clause.matches or any(_match(match, facts, is_lax=is_lax) for match in clause.matches)


def _match(match: Match, facts: RequestFacts, *, is_lax: bool) -> bool:
    return bool(match.conditions) and all(
        condition_holds(condition, facts, is_lax=is_lax) for condition in match.conditions
    )


def condition_holds(condition: Condition, facts: RequestFacts, *, is_lax: bool) -> bool:
    """Whether it does as its rule counts: `is_lax` where that leads to a denial."""
    wanted = not condition.values or any(
        _hit(condition, each, facts, is_lax=is_lax) for each in condition.values
    )
    return wanted and not any(_hit(condition, each, facts, is_lax=not is_lax) for each in condition.unwanted)


def _hit(condition: Condition, value: Value, facts: RequestFacts, *, is_lax: bool) -> bool:
    peer = facts.identity
    match condition.attribute, value:
        case Attribute.SOURCE_IP, _:
            return _inside(value, facts.source)
        case Attribute.DESTINATION_IP, _:
            return _inside(value, facts.destination)
        case Attribute.PORT, int():
            return value == facts.port
        case Attribute.SERVICE_ACCOUNT, ServiceAccountMatch(namespace, account):
            return peer is not None and (namespace, account) == (peer.namespace, peer.service_account)
        case Attribute.PRINCIPAL, Exact() | Prefix() | Suffix() | Presence():
            principal = peer.principal if peer is not None else facts.principal
            return bool(principal) and text_hits(value, principal)
        case Attribute.NAMESPACE, Exact() | Prefix() | Suffix() | Presence():
            return peer is not None and text_hits(value, peer.namespace)
        case Attribute.TRUST_DOMAIN, Exact() | Prefix() | Suffix() | Presence():
            domain = peer.trust_domain if peer is not None else facts.principal.partition("/")[0]
            return bool(domain) and text_hits(value, domain)
        case Attribute.UNSEEN, _:
            return is_lax
        case Attribute.SNI, Exact() | Prefix() | Suffix() | Presence():
            name = facts.server_name
            return is_lax if name is None else text_hits(_each(value, str.lower), name.lower())
        case _:
            pass
    if facts.request is None:
        return is_lax
    if condition.attribute is Attribute.REMOTE_IP:
        return _inside(value, facts.remote or facts.source)
    return _of_request(condition, value, facts.request, is_lax=is_lax)


def _of_request(condition: Condition, value: Value, request: Request, *, is_lax: bool) -> bool:
    match condition.attribute, value:
        case Attribute.PATH, Exact() | Prefix() | Suffix() | Presence() | PathTemplate():
            path = request.path.partition("?")[0]
            return _lax_path(value, path) if is_lax else _strict_path(value, path)
        case Attribute.METHOD, Exact() | Prefix() | Suffix() | Presence():
            return _method(value, request.method, is_lax=is_lax)
        case Attribute.HOST, Exact() | Prefix() | Suffix() | Presence():
            wanted = _each(value, str.lower)
            return any(text_hits(wanted, each) for each in _hosts(request.host))
        case Attribute.HEADER, Exact() | Prefix() | Suffix() | Presence():
            return _header(value, request.headers.get(condition.name[0]), is_lax=is_lax)
        case Attribute.CLAIM, Exact() | Prefix() | Suffix() | Presence():
            return any(text_hits(value, each) for each in claims(request.claims, condition.name))
        case Attribute.REQUEST_PRINCIPAL, Exact() | Prefix() | Suffix() | Presence():
            issuer, subject = (claims(request.claims, (each,)) for each in ("iss", "sub"))
            return bool(issuer and subject) and text_hits(value, f"{issuer[0]}/{subject[0]}")
        case _:
            raise AssertionError(f"{condition.attribute} has no {value!r}")


def _lax_path(value: request_paths.PathValue, path: str) -> bool:
    readings = (request_paths.lax(value), request_paths.MISLEADING)
    return any(re2.fullmatch(each, path) for each in readings)


def _strict_path(value: request_paths.PathValue, path: str) -> bool:
    wanted = request_paths.strict(value)
    return bool(re2.fullmatch(wanted.path, path)) and not any(
        re2.fullmatch(each, path) for each in wanted.unless
    )


def _method(value: StringMatch, method: str, *, is_lax: bool) -> bool:
    """Some servers take `get` for `GET` (RFC 9110 section 9.1 does not)."""
    return text_hits(_each(value, str.upper), method.upper()) if is_lax else text_hits(value, method)


def _hosts(host: str) -> set[str]:
    """With and without the port, and the dot that ends a name of DNS: they are of one host."""
    host = host.lower()
    name, colon, port = host.rpartition(":")
    if not colon or not (port.isdecimal() or not port) or (":" in name and not name.endswith("]")):
        name, colon, port = host, "", ""
    return {host, name, name.removesuffix("."), f"{name.removesuffix('.')}{colon}{port}"}


def _header(value: StringMatch, given: str | None, *, is_lax: bool) -> bool:
    """A server may look at one of several values only."""
    if given is None:
        return False
    if isinstance(value, Presence):
        return True
    readings = [given, *(each.strip(" \t") for each in given.split(","))] if is_lax else [given]
    return any(text_hits(value, each) for each in readings)


def claims(given: Mapping[str, Any], way: Iterable[str]) -> list[str]:
    """The texts at a claim: of a list each. Nothing else has a text."""
    found: Any = given
    for each in way:
        found = found.get(each) if isinstance(found, Mapping) else None
    several = found if isinstance(found, list) else [found]
    return [each for each in several if isinstance(each, str) and each]


def _each(value: StringMatch, change: Callable[[str], str]) -> StringMatch:
    return value if isinstance(value, Presence) else msgspec.structs.replace(value, value=change(value.value))


def _inside(network: Value, address: Address | None) -> bool:
    assert isinstance(network, Network), "addresses are compared with networks"
    return address is not None and network.version == address.version and address in network
