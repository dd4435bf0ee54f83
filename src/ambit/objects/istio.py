"""Typed projections of Istio's security objects (security.istio.io/v1).

A policy that does not decode must not vanish, or what it forbids would be allowed. So `decode_*` never
raise for a readable object: they return it with `problem` set and an empty spec, and the compiler fails
closed for it.
"""

from typing import Any, TypeVar

import msgspec

from ambit.objects.meta import ObjectMeta
from ambit.objects.nulls import make_decoder, without_nulls

Strings = tuple[str, ...]


class WorkloadSelector(msgspec.Struct, frozen=True, rename="camel"):
    match_labels: dict[str, str] = {}


class Source(msgspec.Struct, frozen=True, rename="camel"):
    principals: Strings = ()
    not_principals: Strings = ()
    request_principals: Strings = ()
    not_request_principals: Strings = ()
    namespaces: Strings = ()
    not_namespaces: Strings = ()
    ip_blocks: Strings = ()
    not_ip_blocks: Strings = ()
    remote_ip_blocks: Strings = ()
    not_remote_ip_blocks: Strings = ()
    service_accounts: Strings = ()
    not_service_accounts: Strings = ()
    trust_domains: Strings = ()
    not_trust_domains: Strings = ()


class From(msgspec.Struct, frozen=True):
    source: Source = Source()


class Operation(msgspec.Struct, frozen=True, rename="camel"):
    hosts: Strings = ()
    not_hosts: Strings = ()
    ports: Strings = ()
    not_ports: Strings = ()
    methods: Strings = ()
    not_methods: Strings = ()
    paths: Strings = ()
    not_paths: Strings = ()


class To(msgspec.Struct, frozen=True):
    operation: Operation = Operation()


class Condition(msgspec.Struct, frozen=True, rename="camel"):
    key: str
    values: Strings = ()
    not_values: Strings = ()


class Rule(msgspec.Struct, frozen=True, rename={"sources": "from"}):
    sources: tuple[From, ...] = ()
    to: tuple[To, ...] = ()
    when: tuple[Condition, ...] = ()


class TargetRef(msgspec.Struct, frozen=True):
    kind: str
    name: str
    group: str = ""
    namespace: str = ""


class Provider(msgspec.Struct, frozen=True):
    name: str = ""


class AuthorizationPolicySpec(msgspec.Struct, frozen=True, rename="camel"):
    selector: WorkloadSelector | None = None
    target_ref: TargetRef | None = None
    target_refs: tuple[TargetRef, ...] = ()
    action: str = "ALLOW"
    provider: Provider | None = None
    rules: tuple[Rule, ...] = ()


class AuthorizationPolicy(msgspec.Struct, frozen=True):
    """`problem` is empty, or says why the spec did not decode."""

    metadata: ObjectMeta
    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()
    problem: str = ""


class MutualTls(msgspec.Struct, frozen=True):
    mode: str = "UNSET"


class PeerAuthenticationSpec(msgspec.Struct, frozen=True, rename="camel"):
    selector: WorkloadSelector | None = None
    mtls: MutualTls = MutualTls()
    port_level_mtls: dict[str, MutualTls] = {}


class PeerAuthentication(msgspec.Struct, frozen=True):
    """`problem` is empty, or says why the spec did not decode."""

    metadata: ObjectMeta
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()
    problem: str = ""


class JwtHeader(msgspec.Struct, frozen=True):
    name: str
    prefix: str = ""


class ClaimToHeader(msgspec.Struct, frozen=True):
    header: str
    claim: str


class JwtRule(msgspec.Struct, frozen=True, rename="camel"):
    issuer: str = ""
    audiences: Strings = ()
    jwks: str = ""
    jwks_uri: str = ""
    jwks_uri_of_old: str = msgspec.field(default="", name="jwks_uri")
    from_headers: tuple[JwtHeader, ...] = ()
    from_params: Strings = ()
    from_cookies: Strings = ()
    forward_original_token: bool = False
    output_payload_to_header: str = ""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    space_delimited_claims: Strings = ()
    timeout: str = ""


class RequestAuthenticationSpec(msgspec.Struct, frozen=True, rename="camel"):
    selector: WorkloadSelector | None = None
    target_ref: TargetRef | None = None
    target_refs: tuple[TargetRef, ...] = ()
    jwt_rules: tuple[JwtRule, ...] = ()


class RequestAuthentication(msgspec.Struct, frozen=True):
    """`problem` is empty, or says why the spec did not decode."""

    metadata: ObjectMeta
    spec: RequestAuthenticationSpec = RequestAuthenticationSpec()
    problem: str = ""


class _Raw(msgspec.Struct):
    metadata: ObjectMeta
    spec: Any = None


_decode_raw = make_decoder(_Raw)
_S = TypeVar("_S")
_RULES = ("rules", "jwtRules")


def decode_authorization_policy(data: bytes) -> AuthorizationPolicy:
    """Raises `msgspec.MsgspecError` only when it is no API object at all."""
    metadata, spec, problem = _decode(data, AuthorizationPolicySpec)
    return AuthorizationPolicy(metadata, spec, problem)


def decode_peer_authentication(data: bytes) -> PeerAuthentication:
    """Raises `msgspec.MsgspecError` only when it is no API object at all."""
    metadata, spec, problem = _decode(data, PeerAuthenticationSpec)
    return PeerAuthentication(metadata, spec, problem)


def decode_request_authentication(data: bytes) -> RequestAuthentication:
    """Raises `msgspec.MsgspecError` only when it is no API object at all."""
    metadata, spec, problem = _decode(data, RequestAuthenticationSpec)
    return RequestAuthentication(metadata, spec, problem)


def _decode(data: bytes, spec: type[_S]) -> tuple[ObjectMeta, _S, str]:
    raw = _decode_raw(data)
    given = without_nulls(raw.spec or {})
    try:
        return raw.metadata, msgspec.convert(given, spec), ""
    except msgspec.ValidationError as error:
        problem = str(error)
    # Selector, targets and action say whom a broken policy concerns, and how; without them a whole namespace would
    # be shut. Rules are all or nothing.
    fields = given.items() if isinstance(given, dict) else ()
    readable = {
        name: value for name, value in fields if name not in _RULES and _is_readable({name: value}, spec)
    }
    return raw.metadata, msgspec.convert(readable, spec), problem


def _is_readable(part: dict[str, Any], spec: type[Any]) -> bool:
    try:
        msgspec.convert(part, spec)
    except msgspec.ValidationError:
        return False
    return True
