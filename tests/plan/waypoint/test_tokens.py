"""Which tokens a waypoint takes, and what it makes of them: RequestAuthentication, with a real Envoy."""

import msgspec
import pytest

from ambit.core.finding import ObjectRef
from ambit.model.jwks import key_set
from ambit.model.jwt import ClaimHeader, KeySource, Target, TokenHeader, TokenPolicy, TokenRule
from tests.plan.waypoint.conftest import OUTSIDE, PORT, WEB, Scene
from tests.plan.waypoint.echo import Answer, connection
from tests.plan.waypoint.placements import INLINE, at_waypoints_only
from tests.tokens import Issuer, unsigned

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

ISSUER, OTHER, STRANGER = Issuer(), Issuer("https://other.example", algorithm="ES256"), Issuer()
RULE = TokenRule(ISSUER.name, keys=ISSUER.jwks)
OTHER_RULE = TokenRule(OTHER.name, keys=OTHER.jwks)
WEB_TARGET = Target("Service", "default", "web")


def policy(
    *rules: TokenRule, name: str = "tokens", targets: tuple[Target, ...] = (WEB_TARGET,)
) -> TokenPolicy:
    return TokenPolicy(ObjectRef("RequestAuthentication", "default", name), targets, rules)


def bearer(scene: Scene, token: str, path: str = "/", **more: str) -> Answer:
    return scene.get(path, authorization=f"Bearer {token}", **more)


def rule(**changes: object) -> TokenRule:
    return msgspec.structs.replace(RULE, **changes)


def test_valid_or_none_at_all(scene: Scene) -> None:
    scene.bind(tokens=(policy(RULE),))
    assert scene.get().status == 200
    assert bearer(scene, ISSUER.token()).status == 200


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(ISSUER.token(lifetime=-120), id="expired"),
        pytest.param(ISSUER.token(nbf=4_000_000_000), id="not valid yet"),
        pytest.param(OTHER.token(), id="unknown issuer"),
        pytest.param(STRANGER.token(), id="signed by somebody else"),
        pytest.param(STRANGER.token(kid="key-9"), id="unknown key"),
        pytest.param(unsigned({"iss": ISSUER.name, "sub": "anna"}), id="not signed"),
        pytest.param(ISSUER.token()[:-4], id="cut"),
        pytest.param("abc", id="no token"),
        pytest.param(ISSUER.token(long="a" * 40_000) + "a", id="long"),
        pytest.param(ISSUER.token(iss=None), id="no issuer"),
    ],
)
def test_what_is_not_valid_is_401(scene: Scene, token: str) -> None:
    scene.bind(tokens=(policy(RULE),))
    answer = bearer(scene, token)
    assert answer.status == 401
    assert scene.echoes["v1"].seen == []
    assert scene.get(f"/?access_token={token[:2000]}x").status == 401


@pytest.mark.parametrize(
    "algorithm", ["RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
def test_algorithms(scene: Scene, algorithm: str) -> None:
    """Envoy takes every kind of key that `ambit.model.jwks` lets through."""
    issuer = Issuer(algorithm=algorithm)
    scene.bind(tokens=(policy(TokenRule(issuer.name, keys=key_set(issuer.jwks))),))
    assert bearer(scene, issuer.token()).status == 200
    assert bearer(scene, Issuer(algorithm=algorithm).token()).status == 401


def test_a_long_token_is_a_token(scene: Scene) -> None:
    scene.bind(tokens=(policy(RULE),))
    assert bearer(scene, ISSUER.token(long="a" * 30_000)).status == 200


def test_audiences(scene: Scene) -> None:
    scene.bind(tokens=(policy(rule(audiences=("shop", "bank"))),))
    for aud in ("shop", ["other", "bank"]):
        assert bearer(scene, ISSUER.token(aud=aud)).status == 200
    for aud in ("other", ["shopping"], None):
        assert bearer(scene, ISSUER.token(aud=aud)).status in (401, 403)


def test_places(scene: Scene) -> None:
    places = {
        "headers": (TokenHeader("x-token", "JWT "), TokenHeader("x-bare")),
        "params": ("t",),
        "cookies": ("c",),
    }
    scene.bind(tokens=(policy(rule(**places)),))
    good, bad = ISSUER.token(), STRANGER.token()
    for token, status in ((good, 200), (bad, 401)):
        assert scene.get(x_token=f"JWT {token}").status == status
        assert scene.get(x_bare=token).status == status
        assert scene.get(f"/?t={token}").status == status
        assert scene.get(cookie=f"a=b; c={token}").status == status
    # The usual places are none then.
    assert bearer(scene, bad).status == 200


def test_what_goes_on(scene: Scene) -> None:
    """The token only when it is asked for; claims never from anybody else."""
    headers = {
        "payload_header": "x-payload",
        "claim_headers": (ClaimHeader("x-group", "group"), ClaimHeader("x-in", "a.b")),
    }
    scene.bind(tokens=(policy(rule(**headers)),))
    token = ISSUER.token(group="admins", a={"b": 7})
    got = bearer(scene, token, x_payload="forged", x_group="forged").echo["headers"]
    assert "authorization" not in got
    assert (got["x-group"], got["x-in"], len(got["x-payload"])) == (["admins"], ["7"], 1)
    got = scene.get(x_payload="forged", x_group="forged", x_in="forged").echo["headers"]
    assert not got.keys() & {"x-payload", "x-group", "x-in"}
    scene.bind(tokens=(policy(rule(forward=True)),))
    assert bearer(scene, token).echo["headers"]["authorization"] == [f"Bearer {token}"]


def test_of_several_rules_any_will_do(scene: Scene) -> None:
    elsewhere = msgspec.structs.replace(OTHER_RULE, headers=(TokenHeader("x-other"),))
    for rules in ((RULE, OTHER_RULE), (OTHER_RULE, RULE)):
        scene.bind(tokens=(policy(*rules),))
        assert [bearer(scene, each.token()).status for each in (ISSUER, OTHER, STRANGER)] == [200, 200, 401]
        assert scene.get().status == 200
    scene.bind(tokens=(policy(RULE), policy(elsewhere, name="second")))
    assert scene.get(x_other=OTHER.token()).status == 200
    assert scene.get(x_other=ISSUER.token()).status == 401
    assert bearer(scene, ISSUER.token(), x_other="abc").status == 200
    assert bearer(scene, STRANGER.token(), x_other=OTHER.token()).status == 200
    assert bearer(scene, STRANGER.token(), x_other="abc").status == 401


def test_a_token_of_one_rule_brings_no_claims_of_another(scene: Scene) -> None:
    """Whoever has a token of one issuer could else say what he likes in the headers of the other's."""
    first = rule(claim_headers=(ClaimHeader("x-group", "group"),), payload_header="x-payload")
    second = msgspec.structs.replace(
        OTHER_RULE, claim_headers=(ClaimHeader("x-team", "team"),), payload_header="x-other-payload"
    )
    scene.bind(tokens=(policy(first, second),))
    forged = {"x_group": "f", "x_team": "f", "x_payload": "f", "x_other_payload": "f"}
    for issuer, own in ((ISSUER, {"x-group", "x-payload"}), (OTHER, {"x-team", "x-other-payload"})):
        got = bearer(scene, issuer.token(group="g", team="t"), **forged).echo["headers"]
        assert {name for name in got if name.startswith("x-") and "f" in got[name]} == set()
        assert own <= got.keys()


def test_keys_may_come_later_and_change(scene: Scene) -> None:
    """Without any, tokens are refused; requests without one pass."""
    issuer = Issuer()
    source = KeySource("https://issuer.example/keys")
    rules = policy(TokenRule(issuer.name, source=source))
    scene.bind(tokens=(rules,))
    first = issuer.token()
    assert (scene.get().status, bearer(scene, first).status) == (200, 401)
    scene.bind(tokens=(rules,), keys={source: issuer.jwks})
    assert bearer(scene, first).status == 200
    issuer.rotate(keep=True)
    scene.bind(tokens=(rules,), keys={source: issuer.jwks})
    assert [bearer(scene, each).status for each in (first, issuer.token())] == [200, 200]
    issuer.rotate()
    scene.bind(tokens=(rules,), keys={source: issuer.jwks})
    assert [bearer(scene, each).status for each in (first, issuer.token())] == [401, 200]


def test_without_keys_no_token_is_valid(scene: Scene) -> None:
    scene.bind(tokens=(policy(rule(keys="")),))
    assert (scene.get().status, bearer(scene, ISSUER.token()).status) == (200, 401)


def test_a_policy_that_cannot_be_read_closes_what_it_is_for(scene: Scene) -> None:
    broken = msgspec.structs.replace(policy(), is_closed=True)
    scene.bind(tokens=(broken, policy(RULE, name="good")))
    assert (scene.get().status, bearer(scene, ISSUER.token()).status) == (401, 401)
    assert scene.get(to=OUTSIDE).status == 200


OWN_CLASS = "that of the waypoint"
TARGETS = [
    (WEB_TARGET, True, False),
    (Target("Service", "other", "web"), False, False),
    (Target("Gateway", "default", "waypoint"), True, True),
    (Target("Gateway", "other", "waypoint"), False, False),
    (Target("GatewayClass", "", OWN_CLASS), True, True),
    (Target("GatewayClass", "", "ambit"), False, False),
]


@pytest.mark.parametrize(("target", "web", "outside"), TARGETS)
def test_targets(scene: Scene, target: Target, web: bool, outside: bool) -> None:
    """Where what serves is no pod nobody would ask for tokens without a proxy between: so nothing is sent there."""
    if target.name == OWN_CLASS:
        target = Target("GatewayClass", "", scene.of_class)
    scene.bind(tokens=(policy(RULE, targets=(target,)),))
    assert bearer(scene, "abc").status == (401 if web else 200)
    refused = 503 if scene.placement == INLINE else 401
    assert bearer(scene, "abc", to=OUTSIDE).status == (refused if outside else 200)


@at_waypoints_only("an inline waypoint is for services only")
def test_workloads_by_their_own_address_are_the_gateways(scene: Scene) -> None:
    whole = Target("Gateway", "default", "waypoint")
    for workload in scene.bind_workload("v1"):
        for targets, status in (((WEB_TARGET,), 200), ((whole,), 401)):
            scene.bind(workloads=(workload,), tokens=(policy(RULE, targets=targets),))
            assert bearer(scene, "abc", to=workload, port=8080).status == status


def test_a_change_ends_no_connection(scene: Scene) -> None:
    scene.bind(tokens=(policy(RULE),))
    token = ISSUER.token()
    with connection(scene.client.connect(WEB.addresses[0].address, PORT), "web") as client:
        for tokens, status in (((), 200), ((policy(OTHER_RULE),), 401), ((policy(RULE),), 200)):
            scene.bind(tokens=tokens)
            client.request("GET", "/", headers={"authorization": f"Bearer {token}"})
            response = client.getresponse()
            response.read()
            assert response.status == status


def test_preflight_requests_carry_no_token(scene: Scene) -> None:
    scene.bind(tokens=(policy(RULE),))
    asked = {"origin": "https://a.example", "access_control_request_method": "PUT"}
    assert bearer(scene, "abc", method="OPTIONS", **asked).status == 200
    assert bearer(scene, "abc", method="OPTIONS").status == 401
