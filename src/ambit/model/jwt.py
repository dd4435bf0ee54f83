"""Tokens (JWT) that requests may carry, and whose word they are taken for: Istio's RequestAuthentication, as values.

A request passes when it has a token that one of the rules for its destination finds valid, or none in any place where
one of them looks. Who must have one is for policies to say.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from ambit.core.finding import ObjectRef

TargetKind = Literal["Service", "ServiceEntry", "Gateway", "GatewayClass"]


class Target(msgspec.Struct, frozen=True, order=True):
    """What a policy of an L7 proxy is for, by name of the object. A GatewayClass has no namespace: all of its
    proxies."""

    kind: TargetKind
    namespace: str
    name: str


class KeySource(msgspec.Struct, frozen=True, order=True):
    """Where keys are fetched: at `url`, or with `is_issuer` at the address that OpenID discovery of the issuer `url`
    tells. `timeout` in milliseconds. `namespace` is that of the object that names it, where the URL may name a Service
    of the cluster: which Services are allowed depends on it. All objects share a source outside of the cluster."""

    url: str
    is_issuer: bool = False
    timeout: int = 5_000
    namespace: str = ""


class TokenHeader(msgspec.Struct, frozen=True):
    """A header that has a token behind `prefix`."""

    name: str
    prefix: str = ""


class ClaimHeader(msgspec.Struct, frozen=True):
    """A header that backends are given a claim of the token in; `.` in the claim's name leads into it."""

    header: str
    claim: str


class TokenRule(msgspec.Struct, frozen=True):
    """Tokens of one issuer; any, when it is empty. Keys are `keys` (a JWKS), or those of `source`; with neither no
    token is valid. Without places a token is looked for in `Authorization: Bearer` and the parameter `access_token`."""

    issuer: str
    audiences: tuple[str, ...] = ()
    keys: str = ""
    source: KeySource | None = None
    headers: tuple[TokenHeader, ...] = ()
    params: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    forward: bool = False
    payload_header: str = ""
    claim_headers: tuple[ClaimHeader, ...] = ()
    space_delimited: tuple[str, ...] = ()


class TokenPolicy(msgspec.Struct, frozen=True):
    """The rules of one object. When it `is_closed`, because it cannot be read, no request passes."""

    origin: ObjectRef
    targets: tuple[Target, ...]
    rules: tuple[TokenRule, ...] = ()
    is_closed: bool = False

    @property
    def key(self) -> str:
        return f"{self.origin.namespace}/{self.origin.name}"


def sources_of(policies: Iterable[TokenPolicy]) -> frozenset[KeySource]:
    """Where their keys are fetched."""
    return frozenset(rule.source for policy in policies for rule in policy.rules if rule.source is not None)


def with_keys(policies: Iterable[TokenPolicy], keys: Mapping[KeySource, str]) -> tuple[TokenPolicy, ...]:
    """The same with keys that were fetched written down; without those that were not."""
    return tuple(
        msgspec.structs.replace(
            policy,
            rules=tuple(
                msgspec.structs.replace(rule, keys=keys.get(rule.source, ""))
                if rule.source is not None and not rule.keys
                else rule
                for rule in policy.rules
            ),
        )
        for policy in policies
    )
