"""Policies about tokens and rules for tokens together, from Istio's objects to a real Envoy."""

from typing import Any

import pytest

from tests.ingest.test_mesh import compiler
from tests.plan.waypoint.conftest import Scene
from tests.tokens import Issuer

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

ISSUER, OTHER = Issuer("https://a.example/b", algorithm="ES256"), Issuer("c", algorithm="ES256")
WEB = {"kind": "Service", "group": "", "name": "web"}
NONE, STRANGER = "none", "stranger"


def objects(scene: Scene, policy: dict[str, Any], **more: Any) -> None:
    """Tokens of two issuers count at `web`, and this policy."""
    rules = [{"issuer": each.name, "jwks": each.jwks, **more} for each in (ISSUER, OTHER)]
    metadata = {"name": "one", "namespace": "default"}
    made = compiler(
        (
            "requestauthentications.security.istio.io",
            {"metadata": metadata, "spec": {"targetRefs": [WEB], "jwtRules": rules}},
        ),
        (
            "authorizationpolicies.security.istio.io",
            {"metadata": metadata, "spec": {"targetRefs": [WEB], **policy}},
        ),
    )
    scene.bind(tokens=tuple(made.tokens.values()), authorization=tuple(made.request_policies.values()))


def status(scene: Scene, token: str) -> int:
    if token == NONE:
        return scene.get().status
    return scene.get(authorization=f"Bearer {token}").status


def when(key: str, *values: str, unwanted: tuple[str, ...] = ()) -> dict[str, Any]:
    condition = {"key": key, "values": list(values), "notValues": list(unwanted)}
    return {"when": [{name: value for name, value in condition.items() if value}]}


def source(**fields: list[str]) -> dict[str, Any]:
    return {"from": [{"source": fields}]}


CASES: list[tuple[dict[str, Any], dict[str, int]]] = [
    (source(requestPrincipals=["*"]), {ISSUER.token(): 200, OTHER.token(): 200, NONE: 403}),
    (
        source(requestPrincipals=["https://a.example/b/anna"]),
        {
            ISSUER.token(): 200,
            ISSUER.token(sub="ann"): 403,
            OTHER.token(): 403,
            ISSUER.token(sub=None): 403,
            NONE: 403,
        },
    ),
    (source(requestPrincipals=["https://a.example/*"]), {ISSUER.token(): 200, OTHER.token(): 403, NONE: 403}),
    (source(requestPrincipals=["*/anna"]), {OTHER.token(): 200, OTHER.token(sub="bob"): 403, NONE: 403}),
    (source(notRequestPrincipals=["c/anna"]), {ISSUER.token(): 200, OTHER.token(): 403}),
    (when("request.auth.principal", "c/anna"), {OTHER.token(): 200, ISSUER.token(): 403, NONE: 403}),
    (
        when("request.auth.audiences", "shop"),
        {
            ISSUER.token(aud="shop"): 200,
            ISSUER.token(aud=["bank", "shop"]): 200,
            ISSUER.token(aud="bank"): 403,
            ISSUER.token(): 403,
        },
    ),
    (when("request.auth.presenter", "app"), {ISSUER.token(azp="app"): 200, ISSUER.token(azp="a"): 403}),
    (
        when("request.auth.claims[group]", "admins", "ops*"),
        {
            ISSUER.token(group="admins"): 200,
            ISSUER.token(group=["x", "ops-1"]): 200,
            ISSUER.token(group="admin"): 403,
            ISSUER.token(group={"admins": "admins"}): 403,
            ISSUER.token(): 403,
            NONE: 403,
        },
    ),
    (
        when("request.auth.claims[realm][roles]", "a"),
        {
            ISSUER.token(realm={"roles": ["a"]}): 200,
            ISSUER.token(roles="a"): 403,
            ISSUER.token(realm="a"): 403,
        },
    ),
    (
        when("request.auth.claims[scope]", "read"),
        {ISSUER.token(scope="write read"): 200, ISSUER.token(scope="ready"): 403},
    ),
]


@pytest.mark.parametrize(("rule", "expected"), CASES)
def test_what_a_policy_asks_of_a_token(scene: Scene, rule: dict[str, Any], expected: dict[str, int]) -> None:
    objects(scene, {"rules": [rule]})
    assert {token: status(scene, token) for token in expected} == expected
    assert status(scene, Issuer(ISSUER.name).token()) == 401


@pytest.mark.feature("F88")
@pytest.mark.parametrize("listed", [True, False])
def test_claims_that_are_separated_by_spaces(scene: Scene, listed: bool) -> None:
    objects(
        scene,
        {"rules": [when("request.auth.claims[roles]", "a")]},
        **({"spaceDelimitedClaims": ["roles"]} if listed else {}),
    )
    assert status(scene, ISSUER.token(roles="b a")) == (200 if listed else 403)
    assert status(scene, ISSUER.token(roles="a")) == 200
    assert status(scene, ISSUER.token(scope="a")) == 403


def test_a_denial_of_those_without_a_token(scene: Scene) -> None:
    objects(scene, {"action": "DENY", "rules": [source(notRequestPrincipals=["*"])]})
    assert [status(scene, each) for each in (ISSUER.token(), NONE, "abc")] == [200, 403, 401]


def test_nobody_says_of_himself_what_a_token_says(scene: Scene) -> None:
    """Without rules for tokens none is valid, whatever a request carries."""
    objects(scene, {"rules": [source(requestPrincipals=["*"])]})
    policies = compiler(
        (
            "authorizationpolicies.security.istio.io",
            {
                "metadata": {"name": "one", "namespace": "default"},
                "spec": {"targetRefs": [WEB], "rules": [source(requestPrincipals=["*"])]},
            },
        )
    ).request_policies
    scene.bind(authorization=tuple(policies.values()))
    assert [status(scene, each) for each in (ISSUER.token(), NONE)] == [403, 403]
