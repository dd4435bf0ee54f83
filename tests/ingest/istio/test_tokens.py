"""RequestAuthentication to rules about tokens: each field, what cannot be used, and whom it is for."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambit.core.finding import Level
from ambit.ingest.istio.tokens import CompiledTokens, closed_tokens, token_policy
from ambit.ingest.settings import MeshSettings
from ambit.model.jwt import ClaimHeader, KeySource, Target, TokenHeader, TokenRule
from ambit.objects.istio import RequestAuthentication, decode_request_authentication
from tests.tokens import Issuer

WEB = {"kind": "Service", "group": "", "name": "web"}
ISSUER = "https://login.issuer.example"
SOURCE = KeySource(ISSUER, is_issuer=True)


def decoded(namespace: str = "shop", **spec: Any) -> RequestAuthentication:
    metadata = {"name": "tokens", "namespace": namespace}
    return decode_request_authentication(msgspec.json.encode({"metadata": metadata, "spec": spec}))


def compiled(namespace: str = "shop", **spec: Any) -> CompiledTokens:
    return token_policy(decoded(namespace, **spec), MeshSettings())


def rule(**fields: Any) -> tuple[TokenRule, list[str]]:
    """What becomes of one rule, and where something is wrong with it."""
    found = compiled(targetRefs=[WEB], jwtRules=[{"issuer": ISSUER, **fields}])
    assert found.policy is not None
    (made,) = found.policy.rules
    assert {each.code for each in found.findings} <= {"AMB0231"}
    return made, [each.path.removeprefix("spec.jwtRules[0].") for each in found.findings]


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({}, {}),
        ({"audiences": ["a", "b"]}, {"audiences": ("a", "b")}),
        ({"jwksUri": "http://keys.a.example/k"}, {"source": KeySource("http://keys.a.example/k")}),
        ({"jwks_uri": "http://keys.a.example/k"}, {"source": KeySource("http://keys.a.example/k")}),
        ({"timeout": "1m0.5s"}, {"source": KeySource(ISSUER, True, 30_000)}),
        ({"timeout": "250ms"}, {"source": KeySource(ISSUER, True, 250)}),
        (
            {"fromHeaders": [{"name": "x-a", "prefix": "JWT "}, {"name": "x-b"}]},
            {"headers": (TokenHeader("x-a", "JWT "), TokenHeader("x-b"))},
        ),
        ({"fromParams": ["p"], "fromCookies": ["c"]}, {"params": ("p",), "cookies": ("c",)}),
        ({"forwardOriginalToken": True}, {"forward": True}),
        ({"outputPayloadToHeader": "x-payload"}, {"payload_header": "x-payload"}),
        (
            {"outputClaimToHeaders": [{"header": "x-forwarded-user", "claim": "a.b"}]},
            {"claim_headers": (ClaimHeader("x-forwarded-user", "a.b"),)},
        ),
        ({"spaceDelimitedClaims": ["roles"]}, {"space_delimited": ("roles",)}),
    ],
)
def test_fields(fields: dict[str, Any], changes: dict[str, Any]) -> None:
    assert rule(**fields) == (TokenRule(**{"issuer": ISSUER, "source": SOURCE, **changes}), [])


@pytest.mark.parametrize(
    ("url", "namespace"),
    [
        ("http://idp.auth.svc.cluster.local/keys", "shop"),
        ("http://idp.auth.svc:8080/keys", "shop"),
        ("http://IDP.auth./keys", "shop"),
        ("http://idp/keys", "shop"),
        ("https://accounts.example.com/keys", ""),
        ("https://10.96.0.7/keys", ""),
    ],
)
def test_what_may_be_a_service_is_fetched_for_the_objects_namespace(url: str, namespace: str) -> None:
    made, wrong = rule(jwksUri=url)
    assert made.source == KeySource(url, namespace=namespace)
    assert not wrong


def test_keys_that_are_written_down() -> None:
    issuer = Issuer()
    made, wrong = rule(jwks=issuer.jwks)
    assert (made.source, wrong) == (None, [])
    (key,) = json.loads(made.keys)["keys"]
    assert (key["kid"], key["kty"]) == ("key-1", "RSA")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"jwks": "abc"}, "jwks"),
        ({"jwksUri": "ftp://a.example"}, "jwksUri"),
        ({"issuer": "me@example.com"}, "issuer"),
        ({"issuer": ""}, ""),
        ({"timeout": "soon"}, "timeout"),
        ({"audiences": [""]}, "audiences[0]"),
        ({"fromHeaders": [{"name": "a b"}]}, "fromHeaders[0]"),
        ({"fromHeaders": [{"name": "a", "prefix": "x\ny"}]}, "fromHeaders[0]"),
        ({"fromParams": [""]}, "fromParams[0]"),
        ({"fromCookies": ["a=b"]}, "fromCookies[0]"),
        ({"outputPayloadToHeader": "a:b"}, "outputPayloadToHeader[0]"),
        ({"outputClaimToHeaders": [{"header": "Host", "claim": "sub"}]}, "outputClaimToHeaders[0]"),
        ({"outputClaimToHeaders": [{"header": "x-envoy-a", "claim": "sub"}]}, "outputClaimToHeaders[0]"),
        ({"outputClaimToHeaders": [{"header": "x-a", "claim": ""}]}, "outputClaimToHeaders[0]"),
        ({"spaceDelimitedClaims": [""]}, "spaceDelimitedClaims[0]"),
    ],
)
def test_with_what_cannot_be_used_no_token_is_valid(fields: dict[str, Any], path: str) -> None:
    made, (where,) = rule(**fields)
    assert (made.keys, made.source) == ("", None)
    assert where.removeprefix("spec.jwtRules[0]") == path


@pytest.mark.parametrize(
    ("reference", "namespace", "target"),
    [
        (WEB, "shop", Target("Service", "shop", "web")),
        ({**WEB, "group": "core"}, "shop", Target("Service", "shop", "web")),
        (
            {"kind": "ServiceEntry", "group": "networking.istio.io", "name": "db"},
            "shop",
            Target("ServiceEntry", "shop", "db"),
        ),
        (
            {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "way"},
            "shop",
            Target("Gateway", "shop", "way"),
        ),
        (
            {"kind": "GatewayClass", "group": "gateway.networking.k8s.io", "name": "istio-waypoint"},
            "istio-system",
            Target("GatewayClass", "", "istio-waypoint"),
        ),
        ({"kind": "GatewayClass", "group": "gateway.networking.k8s.io", "name": "a"}, "shop", None),
        ({"kind": "Gateway", "group": "networking.istio.io", "name": "a"}, "shop", None),
        ({"kind": "Pod", "name": "a"}, "shop", None),
        ({**WEB, "namespace": "other"}, "shop", None),
    ],
)
def test_targets(reference: dict[str, str], namespace: str, target: Target | None) -> None:
    for fields in ({"targetRef": reference}, {"targetRefs": [reference]}):
        found = compiled(namespace, jwtRules=[{"issuer": ISSUER}], **fields)
        assert (found.policy.targets if found.policy else None) == ((target,) if target else None)
        assert [each.code for each in found.findings] == ([] if target else ["AMB0233"])


@pytest.mark.parametrize("spec", [{}, {"selector": {"matchLabels": {"app": "web"}}}])
def test_without_targets_it_is_for_gateways_or_nobody(spec: dict[str, Any]) -> None:
    given = decoded(jwtRules=[{"issuer": ISSUER}], **spec)
    found = token_policy(given, MeshSettings())
    assert found.policy is None
    assert [(each.code, each.level) for each in found.findings] == [("AMB0232", Level.WARNING)]
    chosen = (Target("Gateway", "shop", "edge"),)
    found = token_policy(given, MeshSettings(), chosen)
    assert found.policy is not None
    assert (found.policy.targets, found.findings) == (chosen, ())


def test_what_does_not_decode_closes_its_targets() -> None:
    broken = compiled(targetRefs=[WEB], jwtRules=[{"issuer": 7}])
    many = compiled(targetRefs=[WEB], jwtRules=[{"issuer": ISSUER}] * 101)
    failed = closed_tokens(decoded(targetRefs=[WEB]), MeshSettings())
    for found, code in ((broken, "AMB0002"), (many, "AMB0231"), (failed, "AMB0002")):
        assert found.policy is not None
        assert (found.policy.is_closed, found.policy.targets) == (True, (Target("Service", "shop", "web"),))
        assert [each.code for each in found.findings] == [code]


TEXTS = st.text(max_size=8)
RULES = st.fixed_dictionaries(
    {},
    optional={
        "issuer": TEXTS,
        "audiences": st.lists(TEXTS, max_size=2),
        "jwks": TEXTS,
        "jwksUri": TEXTS,
        "fromHeaders": st.lists(st.fixed_dictionaries({"name": TEXTS, "prefix": TEXTS}), max_size=2),
        "fromParams": st.lists(TEXTS, max_size=2),
        "fromCookies": st.lists(TEXTS, max_size=2),
        "outputPayloadToHeader": TEXTS,
        "outputClaimToHeaders": st.lists(
            st.fixed_dictionaries({"header": TEXTS, "claim": TEXTS}), max_size=2
        ),
        "timeout": TEXTS,
    },
)


@given(RULES)
def test_whatever_is_written_a_finding_says_what_is_not_as_written(fields: dict[str, Any]) -> None:
    found = compiled(targetRefs=[WEB], jwtRules=[fields])
    assert found.policy is not None
    (made,) = found.policy.rules
    assert bool(found.findings) == (not made.keys and made.source is None)
