"""AuthorizationPolicy as policy for requests, where it has `targetRefs` or chooses gateways (Istio:
`security/authz/model`).

- Targets are of the policy's own namespace; a GatewayClass only for policies of the root namespace. Without
  `targetRefs` it is for the gateways at the edge whose pods it selects, and for nodes.
- A malformed value closes its rule: ALLOW allows nothing, every other action takes hold always. istiod drops the value.
- Whoever is asked by CUSTOM is asked before tokens are looked at, which he may put there: they count as unseen.
- What a waypoint cannot see of a request (`connection.sni`, `experimental.…`) hits where it denies, and is said.
  Gateways see `connection.sni`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar, cast

import msgspec

from ambit.core.finding import Finding, Level
from ambit.core.identity import TrustDomains
from ambit.ingest.istio.authorization import KIND, MOST_VALUES, dry_run, is_for_requests
from ambit.ingest.istio.trust import equated
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
from ambit.model.http_bounds import NAME
from ambit.model.jwt import Target, TargetKind
from ambit.model.policy import Exact, Prefix, Presence, StringMatch, Suffix
from ambit.model.request_policy import (
    NEVER,
    OF_TOKENS,
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
from ambit.objects import istio

T = TypeVar("T")
_GROUPS = {
    "Service": ("", "core"),
    "ServiceEntry": ("networking.istio.io",),
    "Gateway": ("gateway.networking.k8s.io",),
    "GatewayClass": ("gateway.networking.k8s.io",),
}
_CORE = '""'
"""The core group as YAML has it."""
_KINDS = "Service, ServiceEntry, Gateway or GatewayClass"
_TEMPLATE = re.compile(r"(?:/(?:[^/{}*]+|\{\*\}))*/?(?:/\{\*\*\}(?:/[^/{}*]+)*/?)?")
_HEADER = re.compile(rf"request\.headers\[({NAME.pattern})\]")
_CLAIM = re.compile(r"request\.auth\.claims((?:\[[^\[\]]+\])+)")
_UNSEEN = re.compile(r"experimental\.envoy\.filters\..+")
_SNI = "connection.sni"


class CompiledRequestPolicy(msgspec.Struct, frozen=True):
    policy: RequestPolicy
    findings: tuple[Finding, ...] = ()


class Gateways(msgspec.Struct, frozen=True):
    """What is known about gateways at the edge: those that a policy without `targetRefs` `chosen`, those of classes by
    their names, and the targets that are (or name) nothing else (`edges`)."""

    chosen: tuple[Target, ...] = ()
    classes: Mapping[str, tuple[Target, ...]] = {}
    edges: frozenset[Target] = frozenset()


NO_GATEWAYS = Gateways()


def request_policy(
    given: istio.AuthorizationPolicy, settings: MeshSettings, gateways: Gateways = NO_GATEWAYS
) -> CompiledRequestPolicy | None:
    """The policy for requests of an object, or None for one that is for nodes only."""
    is_named = is_for_requests(given)
    if not is_named and not gateways.chosen:
        return None
    report = Report(given.metadata.reference(KIND))
    spec = given.spec
    targets = tuple(_targets(given, report, settings, gateways)) if is_named else gateways.chosen
    is_edge = not is_named or all(each in gateways.edges for each in targets)
    action = RequestAction[spec.action] if spec.action in RequestAction.__members__ else RequestAction.ALLOW
    closed = (NEVER,) if action is RequestAction.ALLOW else (Rule(),)
    rules: tuple[Rule, ...]
    if given.problem:
        report.say("AMB0002", Level.ERROR, "spec", f"{given.problem}; it is closed")
        rules = closed
    elif not is_named and (spec.target_ref or spec.target_refs):
        text = "only one of selector, targetRef and targetRefs may be given; it is closed"
        report.say("AMB0205", Level.ERROR, "spec", text)
        rules = closed
    elif spec.action not in RequestAction.__members__:
        text = f"{spec.action!r} is none of ALLOW, DENY, CUSTOM and AUDIT; the policy allows nothing"
        report.say("AMB0215", Level.ERROR, "spec.action", text)
        rules = closed
    else:
        read = _Reader(action, settings.trust_domains, report, is_edge=is_edge)
        rules = tuple(read.rule(each, f"spec.rules[{i}]") for i, each in enumerate(spec.rules))
        if (count := sum(map(_size, rules))) > MOST_VALUES:
            text = f"{count} values are more than the {MOST_VALUES} that one policy may have; it is closed"
            report.say("AMB0217", Level.ERROR, "spec.rules", text)
            rules = closed
    made = RequestPolicy(
        name=given.metadata.name,
        namespace=given.metadata.namespace,
        action=action,
        targets=targets,
        rules=rules,
        dry_run=dry_run(given, report),
        provider=spec.provider.name if spec.provider and action is RequestAction.CUSTOM else "",
        origin=report.origin,
    )
    return CompiledRequestPolicy(made, tuple(report.findings))


def closed_request_policy(
    given: istio.AuthorizationPolicy, settings: MeshSettings, gateways: Gateways = NO_GATEWAYS
) -> CompiledRequestPolicy | None:
    """What stands for a policy that could not be compiled at all."""
    broken = msgspec.structs.replace(given, problem="it could not be compiled")
    return request_policy(broken, settings, gateways)


def _targets(
    given: istio.AuthorizationPolicy, report: Report, settings: MeshSettings, gateways: Gateways
) -> Iterable[Target]:
    spec, namespace = given.spec, given.metadata.namespace
    single = ("spec.targetRef", spec.target_ref)
    several = ((f"spec.targetRefs[{i}]", each) for i, each in enumerate(spec.target_refs))
    for path, target in (single, *several):
        if target is None:
            continue
        problem = _problem(target, namespace, settings)
        if problem:
            report.say("AMB0206", Level.ERROR, path, problem)
        elif target.kind == "GatewayClass":
            yield Target("GatewayClass", "", target.name)
            yield from gateways.classes.get(target.name, ())
        else:
            yield Target(cast(TargetKind, target.kind), namespace, target.name)


def _problem(target: istio.TargetRef, namespace: str, settings: MeshSettings) -> str:
    """Why a target is none."""
    groups = _GROUPS.get(target.kind, ())
    if target.group not in groups:
        fix = f"write group: {groups[0] or _CORE}" if groups else f"name a {_KINDS}"
        return f"{target.group or 'core'} {target.kind} is no target; {fix}"
    if target.kind == "GatewayClass" and namespace != settings.root_namespace:
        return f"a policy for a GatewayClass counts in {settings.root_namespace} only"
    if target.namespace and target.namespace != namespace:
        return f"{target.kind} {target.namespace}/{target.name} is not of the policy's own namespace"
    return ""


def _size(rule: Rule) -> int:
    found = (
        condition for clause in rule.clauses for match in clause.matches for condition in match.conditions
    )
    return max(1, sum(len(condition.values) + len(condition.unwanted) for condition in found))


_Parse = Callable[[str, str, Report], T | None]
_Field = tuple[str, Attribute, "_Parse[Value]"]
"""Name in the projection, what it is about, how a value is read."""


class _Reader:
    """Reads the rules of one policy."""

    def __init__(
        self, action: RequestAction, domains: TrustDomains, report: Report, *, is_edge: bool
    ) -> None:
        self._action = action
        self._is_edge = is_edge
        self._domains = domains
        self._report = report

    def rule(self, given: istio.Rule, path: str) -> Rule:
        self._report.malformed = False
        clauses = (
            Clause(
                tuple(
                    self._match(each.source, f"{path}.from[{i}].source", _SOURCE)
                    for i, each in enumerate(given.sources)
                )
            ),
            Clause(
                tuple(
                    self._match(each.operation, f"{path}.to[{i}].operation", _OPERATION)
                    for i, each in enumerate(given.to)
                )
            ),
            *(
                Clause((Match((self._when(each, f"{path}.when[{i}]"),)),))
                for i, each in enumerate(given.when)
            ),
        )
        if self._report.malformed:
            return NEVER if self._action is RequestAction.ALLOW else Rule()
        return Rule(tuple(each for each in clauses if each.matches))

    def _match(self, given: istio.Source | istio.Operation, path: str, fields: Iterable[_Field]) -> Match:
        shown = dict(zip(given.__struct_fields__, given.__struct_encode_fields__, strict=True))
        conditions = []
        for name, attribute, parse in fields:
            wanted, unwanted = getattr(given, name), getattr(given, f"not_{name}")
            if wanted or unwanted:
                places = (f"{path}.{shown[name]}", f"{path}.{shown[f'not_{name}']}")
                conditions.append(self._condition(attribute, (wanted, unwanted), places, parse))
        if not conditions:
            self._report.refuse("AMB0214", path, "nothing is given, so nothing would match")
        return Match(tuple(conditions))

    def _when(self, given: istio.Condition, path: str) -> Condition:
        given_values = (given.values, given.not_values)
        places = (f"{path}.values", f"{path}.notValues")
        if not given.values and not given.not_values:
            self._report.refuse("AMB0214", path, "neither values nor notValues is given")
        if (known := _CONDITIONS.get(given.key)) is not None:
            attribute, name, parse = known
            return self._condition(attribute, given_values, places, parse, name)
        if found := _HEADER.fullmatch(given.key):
            header = found[1].lower()
            if header == "host":
                return self._condition(Attribute.HOST, given_values, places, string)
            return self._condition(Attribute.HEADER, given_values, places, string, (header,))
        if found := _CLAIM.fullmatch(given.key):
            way = tuple(found[1][1:-1].split("]["))
            return self._condition(Attribute.CLAIM, given_values, places, string, way)
        if _UNSEEN.fullmatch(given.key) or given.key == _SNI:
            if given.key != _SNI or not self._is_edge:
                text = f"nobody sees {given.key} here, so the rule counts as it is stricter"
                self._report.say("AMB0207", Level.WARNING, f"{path}.key", text)
            attribute = Attribute.SNI if given.key == _SNI else Attribute.UNSEEN
            return self._condition(attribute, given_values, places, string, (given.key,))
        self._report.refuse("AMB0216", f"{path}.key", f"{given.key!r} is no condition of Istio")
        return Condition(Attribute.UNSEEN)

    def _condition(
        self,
        attribute: Attribute,
        given: tuple[istio.Strings, istio.Strings],
        places: tuple[str, str],
        parse: "_Parse[Value]",
        name: tuple[str, ...] = (),
    ) -> Condition:
        if self._action is RequestAction.CUSTOM and attribute in OF_TOKENS:
            text = "tokens are looked at after somebody was asked, so the rule counts as it is stricter"
            self._report.say("AMB0207", Level.WARNING, places[0].rpartition(".")[0], text)
            attribute = Attribute.UNSEEN
        wanted, unwanted = (
            self._equated(attribute, values_of(values, place, parse, self._report))
            for values, place in zip(given, places, strict=True)
        )
        return Condition(attribute, wanted, unwanted, name)

    def _equated(self, attribute: Attribute, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """All trust domains of the mesh mean the same."""
        texts = tuple(each for each in values if isinstance(each, StringMatch))
        if attribute is Attribute.PRINCIPAL:
            return equated(texts, self._domains)
        if attribute is Attribute.TRUST_DOMAIN and any(
            _hits(text, own) for text in texts for own in self._domains
        ):
            return tuple(dict.fromkeys((*texts, *map(Exact, self._domains))))
        return values


def _hits(pattern: StringMatch, text: str) -> bool:
    match pattern:
        case Exact(value):
            return text == value
        case Prefix(value):
            return text.startswith(value)
        case Suffix(value):
            return text.endswith(value)
        case Presence():
            return True


def _account(text: str, path: str, report: Report) -> Value | None:
    return service_account(text, report.origin.namespace, path, report)


def _trust_domain(text: str, path: str, report: Report) -> Value | None:
    if "/" in text:
        report.refuse("AMB0213", path, f"{text!r} is no trust domain")
        return None
    return string(text, path, report)


def _path(text: str, path: str, report: Report) -> Value | None:
    if "{" not in text and "}" not in text:
        return string(text, path, report)
    if not _TEMPLATE.fullmatch(text) or text.count("{**}") > 1:
        wanted = "each {*} and {**} is a whole segment, {**} the last of them, and there is no other *"
        report.refuse("AMB0213", path, f"{text!r} is no template of paths: {wanted}")
        return None
    return PathTemplate(text)


_SOURCE: tuple[_Field, ...] = (
    ("principals", Attribute.PRINCIPAL, principal),
    ("request_principals", Attribute.REQUEST_PRINCIPAL, string),
    ("namespaces", Attribute.NAMESPACE, string),
    ("service_accounts", Attribute.SERVICE_ACCOUNT, _account),
    ("trust_domains", Attribute.TRUST_DOMAIN, _trust_domain),
    ("ip_blocks", Attribute.SOURCE_IP, network),
    ("remote_ip_blocks", Attribute.REMOTE_IP, network),
)
_OPERATION: tuple[_Field, ...] = (
    ("hosts", Attribute.HOST, string),
    ("ports", Attribute.PORT, port),
    ("methods", Attribute.METHOD, string),
    ("paths", Attribute.PATH, _path),
)
_CONDITIONS: dict[str, tuple[Attribute, tuple[str, ...], "_Parse[Value]"]] = {
    "source.ip": (Attribute.SOURCE_IP, (), network),
    "remote.ip": (Attribute.REMOTE_IP, (), network),
    "source.namespace": (Attribute.NAMESPACE, (), string),
    "source.principal": (Attribute.PRINCIPAL, (), principal),
    "source.serviceAccount": (Attribute.SERVICE_ACCOUNT, (), _account),
    "source.trustDomain": (Attribute.TRUST_DOMAIN, (), _trust_domain),
    "request.auth.principal": (Attribute.REQUEST_PRINCIPAL, (), string),
    "request.auth.audiences": (Attribute.CLAIM, ("aud",), string),
    "request.auth.presenter": (Attribute.CLAIM, ("azp",), string),
    "destination.ip": (Attribute.DESTINATION_IP, (), network),
    "destination.port": (Attribute.PORT, (), port),
}
