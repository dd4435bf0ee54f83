"""AuthorizationPolicy as L4 policy for nodes (istiod: `ambient/authorization.go`; Istio docs, "L4 policy").

- Scope: a selector that says something names workloads; otherwise the root namespace is global, any other
  a namespace.
- What needs HTTP cannot be told at L4: an ALLOW rule with it is left out, a DENY rule is kept without
  that part. Both are stricter than written, both are said. So does a trust domain that begins with `*`, and any
  beside a principal that does (`ambit.ingest.istio.trust`). istiod drops all trust domains, and may widen the rule.
- `source.serviceAccount` and `source.trustDomain` are told here, by who the peer is. istiod counts them as HTTP.
- Stricter than istiod: a malformed value makes an ALLOW rule allow nothing and a DENY rule deny
  everything, where istiod drops the value and may thereby widen the rule.
- A DENY rule of HTTP parts only is "always" here. istiod sends an empty match, which never matches.
- A policy of more than MOST_VALUES values is closed: it would cost each pod's proxy 2 KiB for each of them.
- CUSTOM and AUDIT are refused; a policy with targetRefs is for waypoints (`ambit.ingest.istio.requests`).
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from ambit.core.finding import Finding, Level
from ambit.core.identity import TrustDomains
from ambit.ingest.istio.trust import equated, trust_domain, within
from ambit.ingest.istio.values import (
    Report,
    network,
    port,
    principal,
    service_account,
    string,
    values_of,
)
from ambit.ingest.settings import MeshSettings
from ambit.model.policy import (
    Action,
    Authorization,
    Clause,
    Match,
    Presence,
    Rule,
    Scope,
    ServiceAccountMatch,
    StringMatch,
)
from ambit.objects import istio

DRY_RUN_ANNOTATION = "istio.io/dry-run"
KIND = "AuthorizationPolicy"
MOST_VALUES = 10_000
"""Names, addresses and ports in all rules of one policy; a rule without any counts as one."""

HTTP_OPERATIONS = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")
HTTP_SOURCES = (
    "request_principals",
    "not_request_principals",
    "remote_ip_blocks",
    "not_remote_ip_blocks",
)
HTTP_CONDITIONS = (
    "remote.ip",
    "request.headers[",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[",
    "connection.sni",
    "experimental.envoy.filters.",
)
"""Condition keys of Istio that are not for L4; those that end in `[` or `.` are prefixes."""

T = TypeVar("T")
_NEVER = Match(principals=(Presence(),), not_principals=(Presence(),))
"""Nobody both has a principal and has none."""


class CompiledPolicy(msgspec.Struct, frozen=True):
    """What becomes of one policy object. `selector` is given for a selector-scoped policy only."""

    authorization: Authorization | None
    selector: dict[str, str] | None = None
    findings: tuple[Finding, ...] = ()


def is_for_requests(given: istio.AuthorizationPolicy) -> bool:
    """Whether a policy is for the waypoints and gateways of its targets, and not for nodes."""
    spec = given.spec
    return bool(spec.target_ref) is not bool(spec.target_refs) and spec.selector is None


def authorization(given: istio.AuthorizationPolicy, settings: MeshSettings) -> CompiledPolicy:
    """The L4 policy of an object, or none for one that is not meant for L4."""
    if is_for_requests(given):
        return CompiledPolicy(None)
    report = Report(given.metadata.reference(KIND))
    spec = given.spec
    if given.problem:
        report.say("AMB0002", Level.ERROR, "spec", f"{given.problem}; {_closed(given)}")
        return _compiled(given, (), report, settings)
    if spec.target_ref or spec.target_refs:
        text = f"only one of selector, targetRef and targetRefs may be given; {_closed(given)}"
        report.say("AMB0205", Level.ERROR, "spec", text)
        return _compiled(given, (), report, settings)
    if spec.action not in ("ALLOW", "DENY", "CUSTOM", "AUDIT"):
        report.say(
            "AMB0215",
            Level.ERROR,
            "spec.action",
            f"{spec.action!r} is none of ALLOW, DENY, CUSTOM and AUDIT; the policy allows nothing",
        )
        return _compiled(given, (), report, settings)
    if spec.action in ("CUSTOM", "AUDIT"):
        level = Level.ERROR if spec.action == "CUSTOM" else Level.WARNING
        report.say(
            "AMB0203",
            level,
            "spec.action",
            f"{spec.action} is not enforced on connections; use ALLOW or DENY",
        )
        return CompiledPolicy(None, findings=tuple(report.findings))
    action = Action[spec.action]
    domains = settings.trust_domains
    rules = [_rule(rule, f"spec.rules[{i}]", action, domains, report) for i, rule in enumerate(spec.rules)]
    kept = tuple(rule for rule in rules if rule is not None)
    if (values := sum(max(1, _size(rule)) for rule in kept)) > MOST_VALUES:
        text = f"{values} values are more than the {MOST_VALUES} that one policy may have; {_closed(given)}"
        report.say("AMB0217", Level.ERROR, "spec.rules", text)
        kept = ()
    return _compiled(given, kept, report, settings)


def _size(rule: Rule) -> int:
    """How many values it has."""
    matches = (match for clause in rule.clauses for match in clause.matches)
    return sum(len(getattr(match, field)) for match in matches for field in match.__struct_fields__)


def closed_authorization(given: istio.AuthorizationPolicy, settings: MeshSettings) -> CompiledPolicy:
    """What stands for a policy that could not be compiled at all: it denies, or allows nothing."""
    broken = msgspec.structs.replace(given, problem="it could not be compiled")
    return authorization(broken, settings)


def _closed(given: istio.AuthorizationPolicy) -> str:
    return "it denies everything" if given.spec.action == "DENY" else "it allows nothing"


def _compiled(
    given: istio.AuthorizationPolicy, rules: tuple[Rule, ...], report: Report, settings: MeshSettings
) -> CompiledPolicy:
    """With an error that left no rules to compile, a DENY policy denies everything."""
    meta = given.metadata
    labels = given.spec.selector.match_labels if given.spec.selector else {}
    if labels:
        scope = Scope.WORKLOAD_SELECTOR
    elif meta.namespace == settings.root_namespace:
        scope = Scope.GLOBAL
    else:
        scope = Scope.NAMESPACE
    broken = not rules and any(each.level is Level.ERROR for each in report.findings)
    action = Action.DENY if given.spec.action == "DENY" else Action.ALLOW
    if broken and action is Action.DENY:
        rules = (Rule(),)
    compiled = Authorization(
        name=meta.name,
        namespace=meta.namespace,
        scope=scope,
        action=action,
        rules=rules,
        dry_run=dry_run(given, report),
        origin=report.origin,
    )
    return CompiledPolicy(compiled, labels or None, tuple(report.findings))


def dry_run(given: istio.AuthorizationPolicy, report: Report) -> bool:
    """Whether a policy is tried only; says so."""
    text = given.metadata.annotations.get(DRY_RUN_ANNOTATION)
    if text is None or text.lower() in ("false", "f", "0"):
        return False
    path = f"metadata.annotations[{DRY_RUN_ANNOTATION}]"
    if text.lower() in ("true", "t", "1"):
        report.say("AMB0204", Level.INFO, path, "dry run: decisions are recorded, not enforced")
        return True
    report.say("AMB0204", Level.ERROR, path, f"{text!r} is neither true nor false; the policy is enforced")
    return False


def _rule(rule: istio.Rule, path: str, action: Action, domains: TrustDomains, report: Report) -> Rule | None:
    """None for a rule that must not allow anything."""
    report.malformed = False
    beyond: dict[str, None] = {}
    clauses = [
        _clause(
            (_operation(each.operation, f"{path}.to[{i}].operation", beyond, report))
            for i, each in enumerate(rule.to)
        ),
        _clause(
            (_source(each.source, f"{path}.from[{i}].source", beyond, domains, report))
            for i, each in enumerate(rule.sources)
        ),
        *(_condition(each, f"{path}.when[{i}]", beyond, domains, report) for i, each in enumerate(rule.when)),
    ]
    if report.malformed:
        return Rule() if action is Action.DENY else None
    if beyond:
        names = ", ".join(sorted(beyond))
        if action is Action.ALLOW:
            report.say(
                "AMB0201",
                Level.WARNING,
                path,
                f"nodes do not see {names}; this ALLOW rule allows nothing there",
            )
            return None
        report.say(
            "AMB0202",
            Level.WARNING,
            path,
            f"nodes do not see {names}; this DENY rule denies there without regard to it",
        )
    return Rule(tuple(clause for clause in clauses if clause.matches))


def _clause(matches: Iterable[Match | None]) -> Clause:
    """Without matches, that is always true, if any of them is unconditional (None)."""
    found = tuple(matches)
    return Clause() if None in found else Clause(tuple(match for match in found if match is not None))


def _operation(given: istio.Operation, path: str, beyond: dict[str, None], report: Report) -> Match | None:
    http = _present(given, HTTP_OPERATIONS, beyond)
    match = Match(
        destination_ports=values_of(given.ports, f"{path}.ports", port, report),
        not_destination_ports=values_of(given.not_ports, f"{path}.notPorts", port, report),
    )
    return _or_nothing(match, http, path, report)


def _source(
    given: istio.Source, path: str, beyond: dict[str, None], domains: TrustDomains, report: Report
) -> Match | None:
    untold: dict[str, None] = {}
    _present(given, HTTP_SOURCES, untold)
    peer = _principals(given, path, untold, domains, report)
    beyond.update(untold)
    match = Match(
        principals=peer.principals,
        not_principals=peer.not_principals,
        namespaces=values_of(given.namespaces, f"{path}.namespaces", string, report),
        not_namespaces=values_of(given.not_namespaces, f"{path}.notNamespaces", string, report),
        source_ips=values_of(given.ip_blocks, f"{path}.ipBlocks", network, report),
        not_source_ips=values_of(given.not_ip_blocks, f"{path}.notIpBlocks", network, report),
        service_accounts=values_of(given.service_accounts, f"{path}.serviceAccounts", _account, report),
        not_service_accounts=values_of(
            given.not_service_accounts, f"{path}.notServiceAccounts", _account, report
        ),
    )
    return _or_nothing(match, bool(untold), path, report)


def _account(text: str, path: str, report: Report) -> ServiceAccountMatch | None:
    return service_account(text, report.origin.namespace, path, report)


def _principals(
    given: istio.Source, path: str, beyond: dict[str, None], domains: TrustDomains, report: Report
) -> Match:
    """What principals and trust domains come to; notes those that no pattern of principals says."""

    def read(
        values: tuple[str, ...], name: str, parse: Callable[[str, str, Report], StringMatch | None]
    ) -> tuple[StringMatch, ...]:
        return equated(values_of(values, f"{path}.{name}", parse, report), domains)

    wanted = read(given.principals, "principals", principal)
    unwanted = read(given.not_principals, "notPrincipals", principal)
    excluded = within((), read(given.not_trust_domains, "notTrustDomains", trust_domain))
    both = within(wanted, read(given.trust_domains, "trustDomains", trust_domain))
    if both is None:
        beyond["trustDomains"] = None
    elif both or not wanted:
        wanted = both
    else:
        return _NEVER
    if excluded is None:
        beyond["notTrustDomains"] = None
    return Match(principals=wanted, not_principals=(*unwanted, *(excluded or ())))


def _condition(
    given: istio.Condition, path: str, beyond: dict[str, None], domains: TrustDomains, report: Report
) -> Clause:
    values, others = f"{path}.values", f"{path}.notValues"
    if not given.values and not given.not_values:
        report.refuse("AMB0214", path, "neither values nor notValues is given")
        return Clause()
    match given.key:
        case "source.namespace":
            made = Match(
                namespaces=values_of(given.values, values, string, report),
                not_namespaces=values_of(given.not_values, others, string, report),
            )
        case "source.principal":
            made = Match(
                principals=equated(values_of(given.values, values, principal, report), domains),
                not_principals=equated(values_of(given.not_values, others, principal, report), domains),
            )
        case "source.trustDomain":
            wanted = within((), equated(values_of(given.values, values, trust_domain, report), domains))
            unwanted = within((), equated(values_of(given.not_values, others, trust_domain, report), domains))
            if wanted is None or unwanted is None:
                beyond[given.key] = None
                return Clause()
            made = Match(principals=wanted, not_principals=unwanted)
        case "source.serviceAccount":
            made = Match(
                service_accounts=values_of(given.values, values, _account, report),
                not_service_accounts=values_of(given.not_values, others, _account, report),
            )
        case "source.ip":
            made = Match(
                source_ips=values_of(given.values, values, network, report),
                not_source_ips=values_of(given.not_values, others, network, report),
            )
        case "destination.ip":
            made = Match(
                destination_ips=values_of(given.values, values, network, report),
                not_destination_ips=values_of(given.not_values, others, network, report),
            )
        case "destination.port":
            made = Match(
                destination_ports=values_of(given.values, values, port, report),
                not_destination_ports=values_of(given.not_values, others, port, report),
            )
        case key if is_http_condition(key):
            beyond[key] = None
            return Clause()
        case key:
            report.refuse("AMB0216", f"{path}.key", f"{key!r} is no condition of Istio")
            return Clause()
    return Clause((made,))


def is_http_condition(key: str) -> bool:
    return any(key == each or (each[-1] in "[." and key.startswith(each)) for each in HTTP_CONDITIONS)


def _present(given: msgspec.Struct, names: Iterable[str], beyond: dict[str, None]) -> bool:
    """Notes the API's names of fields that are set and not for L4."""
    encoded = dict(zip(given.__struct_fields__, given.__struct_encode_fields__, strict=True))
    found = [encoded[name] for name in names if getattr(given, name)]
    beyond.update(dict.fromkeys(found))
    return bool(found)


def _or_nothing(match: Match, http: bool, path: str, report: Report) -> Match | None:
    if match != Match():
        return match
    if not http and not report.malformed:
        report.refuse("AMB0214", path, "nothing is given, so nothing would match")
    return None
