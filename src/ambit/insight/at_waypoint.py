"""What policies with `targetRefs` make of a request, or of a connection, at the waypoint that it passes through; from
configuration alone. `ambit.policy.requests` decides. Pure."""

import ipaddress
from collections.abc import Iterator, Sequence

import msgspec

from ambit.core.address import Address
from ambit.insight.at_tokens import NOTHING, Shown, borne
from ambit.insight.manifests import Compiled
from ambit.insight.ruling import ASKED, Otherwise, Ruling, in_words, verdict_name
from ambit.model.proxy import Proxy, ServiceRoutes
from ambit.model.request_policy import NEVER, OF_TOKENS, Clause, Match, RequestAction, RequestPolicy, Rule
from ambit.model.service import Service
from ambit.model.workload import Workload
from ambit.plan import targets
from ambit.plan.endpoints import preferred_address
from ambit.plan.l7.waypoint import http_ports, is_http
from ambit.policy.decide import Decision, Reason, rule_name
from ambit.policy.nearest_request import nearest_request
from ambit.policy.requests import Request, RequestFacts, decide_request, matching_rule


class Passage(msgspec.Struct, frozen=True):
    """Who comes through which proxy to what. `address` is the one that was dialled, if it is known."""

    client: Workload
    proxy: Proxy
    bound: Service | Workload
    port: int
    address: Address | None = None


def reads(bound: Service | Workload, port: int, compiled: Compiled) -> bool:
    """Whether waypoints read the requests of a port."""
    if isinstance(bound, Workload):
        return port in http_ports(bound, compiled.view())
    tables = {each.key: each for each in compiled.routes if isinstance(each, ServiceRoutes)}
    return is_http(bound, port, tables)


def at_waypoint(
    given: Passage, compiled: Compiled, request: Request | None = None, shown: Shown = NOTHING
) -> Ruling:
    """What is decided about the request; without one, about the connection."""
    said = ""
    if request is not None:
        rules = [each for each in compiled.tokens if targets.concern(each.targets, given.proxy, given.bound)]
        token = borne(rules, request, shown)
        if token.refused:
            return token.ruling(given.client.identity.uri)
        request, said = token.request, token.said
    policies = [
        each for each in compiled.request_policies if targets.concern(each.targets, given.proxy, given.bound)
    ]
    return ruling_of(policies, _facts(given, request), said)


def _facts(given: Passage, request: Request | None) -> RequestFacts:
    address = given.address
    version = (address or given.client.addresses[0]).version
    if address is None and isinstance(given.bound, Service):
        address = preferred_address(given.bound.single_addresses, version)
    source = preferred_address(given.client.addresses, version)
    assert source is not None, "a source has an address"
    return RequestFacts(
        source=source,
        port=given.port,
        destination=address,
        identity=given.client.identity,
        remote=forwarded(request),
        request=request,
    )


def forwarded(request: Request | None) -> Address | None:
    """The address that waypoints take for the first client's: the last one of the header."""
    said = request.headers.get("x-forwarded-for", "") if request is not None else ""
    try:
        return ipaddress.ip_address(said.rpartition(",")[2].strip())
    except ValueError:
        return None


def ruling_of(policies: Sequence[RequestPolicy], facts: RequestFacts, token: str = "") -> Ruling:
    """What these say. `token` is what is known of the request's token; without it, it has none."""
    found = decide_request(policies, facts)
    decision = found.decision
    without = _without(policies, decision, facts)
    return Ruling(
        ASKED if decision.allowed and found.asked else verdict_name(decision),
        decision.reason.value,
        identity=_caller(facts),
        rule=rule_name(decision),
        policies=tuple(sorted(each.key for each in policies)),
        nearest=otherwise(policies, facts, is_allowed=decision.allowed),
        without=in_words(without) if without else "",
        dry_run=in_words(decision.dry_run) if decision.dry_run else "",
        asks=tuple(f"provider {each.provider} by {each.policy}[{each.rule}]" for each in found.asked),
        audited=tuple(f"{key}[{rule}]" for key, rule in found.audited),
        token=token or "; ".join(_tokens(policies, decision, facts)),
    )


def otherwise(
    policies: Sequence[RequestPolicy], facts: RequestFacts, *, is_allowed: bool
) -> Otherwise | None:
    """Allowed: the DENY rule that lacks least. Denied: the ALLOW rule, also when a DENY rule goes before it."""
    action = RequestAction.DENY if is_allowed else RequestAction.ALLOW
    found = nearest_request(policies, action, facts)
    return Otherwise(found.rule, found.action.name, found.misses) if found is not None else None


def _caller(facts: RequestFacts) -> str:
    if facts.identity is not None:
        return facts.identity.uri
    return f"spiffe://{facts.principal}" if facts.principal else ""


def _without(policies: Sequence[RequestPolicy], decision: Decision, facts: RequestFacts) -> Decision | None:
    """What would be decided if the rule that decided did not hold; None when no rule did."""
    if decision.rule is None:
        return None

    def silenced(policy: RequestPolicy) -> RequestPolicy:
        if policy.key != decision.policy:
            return policy
        rules = tuple(NEVER if index == decision.rule else each for index, each in enumerate(policy.rules))
        return msgspec.structs.replace(policy, rules=rules)

    return decide_request([silenced(each) for each in policies if not each.dry_run], facts).decision


def _tokens(policies: Sequence[RequestPolicy], decision: Decision, facts: RequestFacts) -> Iterator[str]:
    """What would hang on a valid token: an ALLOW rule that lacks nothing else, a DENY rule that asks for one."""
    enforced = [each for each in policies if not each.dry_run and facts.request is not None]
    if decision.allowed:
        yield from (
            f"{name} may deny it with a valid token" for name in _hanging(enforced, RequestAction.DENY, facts)
        )
        return
    for policy in enforced:
        if (
            policy.key == decision.policy
            and decision.rule is not None
            and _about_tokens(policy.rules[decision.rule])
        ):
            yield f"{rule_name(decision)} needs a valid token"
    if decision.reason is Reason.NO_RULE_MATCHED:
        yield from (f"{name} needs a valid token" for name in _hanging(enforced, RequestAction.ALLOW, facts))


def _hanging(policies: Sequence[RequestPolicy], action: RequestAction, facts: RequestFacts) -> Iterator[str]:
    """Rules that would hold but for the token."""
    for policy in sorted(policies, key=lambda each: each.key):
        for index, rule in enumerate(policy.rules if policy.action is action else ()):
            alone = msgspec.structs.replace(policy, rules=(_without_tokens(rule),))
            if _about_tokens(rule) and matching_rule(alone, facts) is not None:
                yield f"{policy.key}[{index}]"


def _about_tokens(rule: Rule) -> bool:
    return any(
        condition.attribute in OF_TOKENS
        for clause in rule.clauses
        for match in clause.matches
        for condition in match.conditions
    )


def _without_tokens(rule: Rule) -> Rule:
    """The rule if every condition on tokens held."""
    return Rule(tuple(_clause_without(each) for each in rule.clauses))


def _clause_without(clause: Clause) -> Clause:
    matches = [
        (match, tuple(each for each in match.conditions if each.attribute not in OF_TOKENS))
        for match in clause.matches
    ]
    if any(match.conditions and not rest for match, rest in matches):
        return Clause()
    return Clause(tuple(Match(rest) for _, rest in matches))
