"""Tokens of requests: Envoy's filter `jwt_authn`, one for each destination, as an extension of its own (ECDS), so that
policies and keys may change without draining a connection.

Claims of the valid token become dynamic metadata (`names.TOKENS`, `names.CLAIMS`), which policies read. Of several
rules any will do: either one of them finds a token valid, or none finds a token at all.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from google.protobuf.empty_pb2 import Empty

from ambit.envoy import names
from ambit.envoy.words import extension, from_ads
from ambit.model.jwt import KeySource, TokenPolicy, TokenRule

_TYPE = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_ALWAYS_DELIMITED = ("scope", "permission")
"""Claims that are lists for policies whatever a rule says (Istio: `policy_applier.go`)."""
NOBODYS_KEY = (
    '{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"nobody",'
    '"x":"OyfOgneMgw54y9eHPcf2RNJeVOY8Vw-Jpafecy-_omQ","y":"WeFUVil6o0jB7IL_sof3m_XpoqtJvrRwGPRis734Itw"}]}'
)
"""A JWKS by which no token is valid, because Envoy takes no empty one. The point was found by hashing a sentence (its
test does it again), so nobody has, or ever had, the private key. (CVE-2026-31837: Istio's fallback was a key that
somebody had made.)"""
_NOBODY = "nobody"
_NOWHERE = "x-ambit-no-token-is-here"
_Requirement = config_pb2.JwtRequirement


def filter_of(subject: str) -> Any:
    """The place of the extension among the filters of a destination's requests. There is none while the extension is
    not there: requests are answered with 500 then."""
    return http_connection_manager_pb2.HttpFilter(
        name=names.tokens(subject),
        config_discovery=config_source_pb2.ExtensionConfigSource(config_source=from_ads(), type_urls=[_TYPE]),
    )


def tokens(subject: str, policies: Iterable[TokenPolicy], keys: Mapping[KeySource, str]) -> Any:
    """The extension of a destination with these policies. `keys` are the JWKS that were fetched; tokens of a source
    that is not among them are refused."""
    found = sorted(policies, key=lambda each: each.key)
    if any(each.is_closed for each in found):
        return closed(names.tokens(subject))
    rules = sorted((rule for each in found for rule in each.rules), key=lambda rule: rule.issuer)
    message = config_pb2.JwtAuthentication(bypass_cors_preflight=True)
    for index, rule in enumerate(rules):
        message.providers[_name(index)].CopyFrom(_provider(rule, keys))
    if rules:
        message.rules.add(match=_everything(), requires=_requirement(len(rules)))
    return extension(names.tokens(subject), message)


def closed(name: str) -> Any:
    """An extension of this name that refuses every request."""
    message = config_pb2.JwtAuthentication()
    message.providers[_NOBODY].CopyFrom(
        config_pb2.JwtProvider(
            issuer=_NOBODY,
            local_jwks=base_pb2.DataSource(inline_string=NOBODYS_KEY),
            from_headers=[config_pb2.JwtHeader(name=_NOWHERE)],
        )
    )
    message.rules.add(match=_everything(), requires=_Requirement(provider_name=_NOBODY))
    return extension(name, message)


def _provider(rule: TokenRule, keys: Mapping[KeySource, str]) -> Any:
    fetched = keys.get(rule.source, "") if rule.source is not None else ""
    return config_pb2.JwtProvider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        local_jwks=base_pb2.DataSource(inline_string=rule.keys or fetched or NOBODYS_KEY),
        from_headers=[
            config_pb2.JwtHeader(name=each.name, value_prefix=each.prefix) for each in rule.headers
        ],
        from_params=rule.params,
        from_cookies=rule.cookies,
        forward=rule.forward,
        forward_payload_header=rule.payload_header,
        claim_to_headers=[
            config_pb2.JwtClaimToHeader(header_name=each.header, claim_name=each.claim)
            for each in rule.claim_headers
        ],
        payload_in_metadata=names.CLAIMS,
        normalize_payload_in_metadata=config_pb2.JwtProvider.NormalizePayload(
            space_delimited_claims=dict.fromkeys((*_ALWAYS_DELIMITED, *rule.space_delimited))
        ),
    )


def _requirement(count: int) -> Any:
    """One of the rules; or, for each of them, a valid token or none: which no token that is there passes, because the
    first part has tried them all."""
    each = [_Requirement(provider_name=_name(index)) for index in range(count)]
    or_none = [_any(one, _Requirement(allow_missing=Empty())) for one in each]
    if count == 1:
        return or_none[0]
    every = _Requirement(requires_all=config_pb2.JwtRequirementAndList(requirements=or_none))
    return _any(*each, every)


def _any(*requirements: Any) -> Any:
    return _Requirement(requires_any=config_pb2.JwtRequirementOrList(requirements=requirements))


def _everything() -> Any:
    """`OPTIONS *` as well."""
    return route_components_pb2.RouteMatch(prefix="")


def _name(index: int) -> str:
    return f"rule-{index}"
