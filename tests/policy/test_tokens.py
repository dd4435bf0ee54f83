"""What rules about tokens make of a request. (That Envoy does so: `tests/plan/waypoint/test_tokens_reference.py`.)"""

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from ambit.model.jwt import KeySource, TokenHeader, TokenRule
from ambit.policy.requests import Request
from ambit.policy.tokens import LEEWAY, Checked, check

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example"
RULE = TokenRule(ISSUER, keys="{}")


def token(algorithm: str = "ES256", **claims: Any) -> str:
    parts = ({"alg": algorithm}, {"iss": ISSUER, "sub": "anna", **claims}, {"signature": True})
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts
    )


def checked(
    rules: Sequence[TokenRule] = (RULE,), *, path: str = "/", method: str = "GET", **headers: str
) -> Checked:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return check(rules, Request(method, "web", path, named), NOW)


def bearer(**claims: Any) -> str:
    return f"Bearer {token(**claims)}"


def test_a_token_that_a_rule_takes_says_the_claims_and_is_taken_away() -> None:
    found = checked(authorization=bearer(scope="a b", groups=["x"]), x_a="1")
    assert (found.problem, found.issuer) == ("", ISSUER)
    assert found.request.claims == {"iss": ISSUER, "sub": "anna", "scope": ["a", "b"], "groups": ["x"]}
    assert found.request.headers == {"x-a": "1"}
    kept = checked([TokenRule(ISSUER, keys="{}", forward=True)], authorization=bearer())
    assert "authorization" in kept.request.headers


def test_without_a_token_it_passes_without_claims() -> None:
    for found in (checked(), checked(authorization="Basic abc"), checked([], authorization=bearer())):
        assert (found.problem, found.request.claims) == ("", {})


@pytest.mark.parametrize(
    ("text", "rule", "problem"),
    [
        ("abc", RULE, "it is no JWT"),
        ("a.!.c", RULE, "it is no JWT"),
        (token(iss="https://other.example"), RULE, f"it is of issuer https://other.example, not {ISSUER}"),
        (token(aud="x"), TokenRule(ISSUER, ("y", "z"), "{}"), "its audience is x, not y or z"),
        (token("none"), RULE, "its algorithm is none, which has no public key"),
        (token("HS256"), RULE, "its algorithm is HS256, which has no public key"),
        (token(), TokenRule(ISSUER), f"there is no key for issuer {ISSUER}"),
        (token(exp=NOW - LEEWAY - 1), RULE, "it has expired"),
        (token(nbf=NOW + LEEWAY + 1), RULE, "it is not valid yet"),
    ],
)
def test_what_a_rule_does_not_take_is_refused_with_the_reason(
    text: str, rule: TokenRule, problem: str
) -> None:
    assert checked([rule], authorization=f"Bearer {text}").problem == problem
    assert check([rule], Request(headers={"authorization": f"Bearer {text}"})).problem == (
        "" if problem in ("it has expired", "it is not valid yet") else problem
    )


def test_times_have_a_tolerance_and_keys_may_be_elsewhere() -> None:
    fetched = TokenRule("", source=KeySource("https://issuer.example/keys"))
    times = {"exp": NOW - LEEWAY + 1, "nbf": NOW + LEEWAY - 1}
    assert checked([fetched], authorization=bearer(**times)).issuer == ISSUER


@pytest.mark.parametrize(
    ("rule", "path", "headers"),
    [
        (RULE, f"/?access_token={token()}", {}),
        (TokenRule(ISSUER, keys="{}", params=("t",)), f"/?t={token()}", {}),
        (TokenRule(ISSUER, keys="{}", cookies=("t",)), "/", {"cookie": f"a=b; t={token()}"}),
        (TokenRule(ISSUER, keys="{}", headers=(TokenHeader("X-Token", "JWT "),)), "/", {"x_token": f"JWT {token()}"}),
    ],
)  # fmt: skip
def test_a_token_is_found_where_the_rule_looks(rule: TokenRule, path: str, headers: dict[str, str]) -> None:
    assert checked([rule], path=path, **headers).issuer == ISSUER


def test_a_rule_with_places_looks_nowhere_else() -> None:
    rule = TokenRule(ISSUER, keys="{}", params=("t",))
    assert checked([rule], authorization="Bearer abc").problem == ""


def test_one_rule_that_takes_all_it_finds_is_enough() -> None:
    other = TokenRule("https://other.example", keys="{}")
    assert checked([other, RULE], authorization=bearer()).issuer == ISSUER
    both = checked(path="/?access_token=abc", authorization=bearer())
    assert both.problem == "it is no JWT", "a rule that finds several needs all of them to be valid"


def test_preflights_pass() -> None:
    preflight = {"origin": "https://a.example", "access_control_request_method": "GET"}
    for method, headers, passes in (
        ("OPTIONS", preflight, True),
        ("OPTIONS", {}, False),
        ("GET", preflight, False),
    ):
        found = checked(method=method, authorization="Bearer abc", **headers)
        assert (found.problem == "") is passes


def test_the_clock_is_that_of_tokens() -> None:
    assert check([RULE], Request(headers={"authorization": bearer(exp=time.time() + 5)}), time.time()).issuer
