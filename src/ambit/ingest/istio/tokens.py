"""RequestAuthentication as rules about tokens for L7 proxies (Istio: `RequestAuthentication`, `JWTRule`).

- With `targetRefs` it is for the waypoints (or gateways) of its targets. Without, it is for the gateways at the edge
  whose pods it selects, all of its namespace, or of the mesh; where there is none it is for nobody, which is said:
  nodes see no tokens, and waypoints heed no selector (istiod: `policyattachment.go`).
- What cannot be read takes no token: a rule with a malformed value has no keys; an object that does not decode closes
  its targets.
- A rule with neither `jwks` nor `jwksUri` has its keys from where OpenID discovery of the issuer says.
"""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

from ambit.core.finding import Finding, Level
from ambit.ingest.istio.target_refs import targets_of
from ambit.ingest.istio.values import Report
from ambit.ingest.settings import MeshSettings
from ambit.model.http_bounds import NAME
from ambit.model.jwks import BadKeys, key_set
from ambit.model.jwt import ClaimHeader, KeySource, Target, TokenHeader, TokenPolicy, TokenRule
from ambit.objects import istio

KIND = "RequestAuthentication"
LONGEST_TIMEOUT = 30_000
"""Milliseconds."""
MOST_RULES = 100
_LINE = re.compile(r"[^\x00\r\n]*")
_OURS = re.compile(
    r"host|connection|content-length|te|transfer-encoding|upgrade|x-envoy-.*"
    r"|x-forwarded-(for|host|port|proto|client-cert)",
    re.IGNORECASE,
)
"""Headers that a claim must not become: they say something to proxies."""
_URL = re.compile(r"https?://[!-~]+")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_DURATIONS = re.compile(f"({_DURATION.pattern})+")
_MILLISECONDS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}


class CompiledTokens(msgspec.Struct, frozen=True):
    """What becomes of one object."""

    policy: TokenPolicy | None
    findings: tuple[Finding, ...] = ()


def token_policy(
    given: istio.RequestAuthentication, settings: MeshSettings, chosen: tuple[Target, ...] = ()
) -> CompiledTokens:
    """The rules of an object, or none for one that is for no L7 proxy. `chosen` are the gateways at the edge that it is
    for if it names no target."""
    report = Report(given.metadata.reference(KIND))
    spec = given.spec
    targets = targets_of(
        spec.target_ref, spec.target_refs, given.metadata.namespace, settings.root_namespace, report
    )
    if not spec.target_ref and not spec.target_refs:
        targets = chosen
    if given.problem:
        report.say("AMB0002", Level.ERROR, "spec", f"{given.problem}; no request to its targets passes")
        return _compiled(targets, (), report, is_closed=True)
    if not spec.target_ref and not spec.target_refs and not chosen:
        report.say(
            "AMB0232",
            Level.WARNING,
            "spec",
            "nobody looks at tokens for it, because it chooses no gateway: name a Service or a Gateway in targetRefs",
        )
    if len(spec.jwt_rules) > MOST_RULES:
        text = f"{len(spec.jwt_rules)} rules are more than {MOST_RULES}; no request to its targets passes"
        report.say("AMB0231", Level.ERROR, "spec.jwtRules", text)
        return _compiled(targets, (), report, is_closed=True)
    rules = tuple(_rule(rule, f"spec.jwtRules[{i}]", report) for i, rule in enumerate(spec.jwt_rules))
    return _compiled(targets, rules, report)


def closed_tokens(
    given: istio.RequestAuthentication, settings: MeshSettings, chosen: tuple[Target, ...] = ()
) -> CompiledTokens:
    """What stands for an object that could not be compiled at all."""
    return token_policy(msgspec.structs.replace(given, problem="it could not be compiled"), settings, chosen)


def _compiled(
    targets: tuple[Target, ...], rules: tuple[TokenRule, ...], report: Report, *, is_closed: bool = False
) -> CompiledTokens:
    policy = TokenPolicy(report.origin, targets, rules, is_closed) if targets else None
    return CompiledTokens(policy, tuple(report.findings))


def _rule(given: istio.JwtRule, path: str, report: Report) -> TokenRule:
    """Without keys when anything in it is malformed."""
    report.malformed = False

    def kept(values: tuple[str, ...], name: str, is_good: Callable[[str], object]) -> tuple[str, ...]:
        for i, value in enumerate(values):
            if not is_good(value):
                report.refuse("AMB0231", f"{path}.{name}[{i}]", f"{value!r} cannot be used; {_REFUSED}")
        return tuple(value for value in values if is_good(value))

    headers = []
    for i, each in enumerate(given.from_headers):
        if NAME.fullmatch(each.name) and _LINE.fullmatch(each.prefix):
            headers.append(TokenHeader(each.name, each.prefix))
        else:
            where = f"{path}.fromHeaders[{i}]"
            report.refuse("AMB0231", where, f"{each.name!r} cannot be used; {_REFUSED}")
    payload = kept((given.output_payload_to_header,), "outputPayloadToHeader", _may_be_said)
    claims = []
    for i, claim in enumerate(given.output_claim_to_headers):
        if claim.header and claim.claim and _may_be_said(claim.header):
            claims.append(ClaimHeader(claim.header, claim.claim))
        else:
            where = f"{path}.outputClaimToHeaders[{i}]"
            report.refuse("AMB0231", where, f"{claim.header!r} cannot be used; {_REFUSED}")
    rule = TokenRule(
        issuer=given.issuer,
        audiences=kept(given.audiences, "audiences", bool),
        headers=tuple(headers),
        params=kept(given.from_params, "fromParams", bool),
        cookies=kept(given.from_cookies, "fromCookies", NAME.fullmatch),
        forward=given.forward_original_token,
        payload_header=payload[0] if payload else "",
        claim_headers=tuple(claims),
        space_delimited=kept(given.space_delimited_claims, "spaceDelimitedClaims", bool),
    )
    keys, source = _keys(given, path, report)
    return rule if report.malformed else msgspec.structs.replace(rule, keys=keys, source=source)


_REFUSED = "no token of the rule is taken"


def _may_be_said(header: str) -> bool:
    return not header or bool(NAME.fullmatch(header) and not _OURS.fullmatch(header))


def _keys(given: istio.JwtRule, path: str, report: Report) -> tuple[str, KeySource | None]:
    timeout = _milliseconds(given.timeout, path, report)
    url = given.jwks_uri or given.jwks_uri_of_old
    if given.jwks:
        try:
            return key_set(given.jwks), None
        except BadKeys as problem:
            report.refuse("AMB0231", f"{path}.jwks", f"{problem}; {_REFUSED}")
            return "", None
    if not url and not given.issuer:
        report.refuse("AMB0231", path, f"it has neither issuer, jwks nor jwksUri; {_REFUSED}")
        return "", None
    if not _URL.fullmatch(url or given.issuer):
        name = "jwksUri" if url else "issuer"
        text = f"{url or given.issuer!r} is no address that begins with https:// or http://"
        more = "" if url else ", and there is neither jwks nor jwksUri"
        report.refuse("AMB0231", f"{path}.{name}", f"{text}{more}; {_REFUSED}")
        return "", None
    namespace = report.origin.namespace if _may_be_service(url or given.issuer) else ""
    return "", KeySource(url or given.issuer, is_issuer=not url, timeout=timeout, namespace=namespace)


def _may_be_service(url: str) -> bool:
    """Whether the host may be a name of a Kubernetes Service: `name.namespace`, or that with `.svc` and a domain."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return True
    labels = host.rstrip(".").lower().split(".")
    return len(labels) <= 2 or labels[2] == "svc"


def _milliseconds(text: str, path: str, report: Report) -> int:
    """Of one of Go's durations."""
    if not text:
        return KeySource("").timeout
    if not _DURATIONS.fullmatch(text):
        report.refuse("AMB0231", f"{path}.timeout", f"{text!r} is no duration as 5s or 500ms; {_REFUSED}")
        return KeySource("").timeout
    given = sum(float(number) * _MILLISECONDS[unit] for number, unit in _DURATION.findall(text))
    return max(1, min(LONGEST_TIMEOUT, int(given)))
