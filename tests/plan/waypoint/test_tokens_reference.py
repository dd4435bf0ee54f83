"""Random rules and requests: what Envoy makes of them is what a few lines say.

A request passes with a token that one of the rules finds valid, or when none of the rules finds a token at all. Of a
valid token the first rule counts, by issuer.
"""

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ambit.core.finding import ObjectRef
from ambit.model.jwt import Target, TokenHeader, TokenPolicy, TokenRule
from ambit.policy.requests import Request
from ambit.policy.tokens import check
from tests.plan.waypoint.conftest import Scene
from tests.tokens import Issuer, unsigned

pytestmark = [pytest.mark.envoy, pytest.mark.netns]

ISSUERS = {name: Issuer(f"https://{name}.example", algorithm="ES256") for name in ("a", "b")}
STRANGER = Issuer(ISSUERS["a"].name, algorithm="ES256")
PLACES = ("authorization", "x-one", "x-two", "parameter", "cookie")


class Token(msgspec.Struct, frozen=True):
    """`signer` is who signed; `issuer` whom it says it is of."""

    text: str
    signer: str = ""
    issuer: str = ""
    audiences: tuple[str, ...] = ()
    is_current: bool = True


def _token(name: str, audiences: tuple[str, ...], *, is_current: bool) -> Token:
    times = {} if is_current else {"lifetime": -300}
    text = ISSUERS[name].token(aud=list(audiences) or None, **times)
    return Token(text, name, name, audiences, is_current)


TOKENS = [
    *(_token(name, audiences, is_current=True) for name in ISSUERS for audiences in ((), ("x",), ("x", "y"))),
    *(_token(name, (), is_current=False) for name in ISSUERS),
    Token(STRANGER.token(), "stranger", "a"),
    Token(ISSUERS["b"].token(iss=ISSUERS["a"].name), "b", "a"),
    Token(unsigned({"iss": ISSUERS["a"].name, "sub": "anna"}), "nobody", "a"),
    Token("abc"),
]


class Rule(msgspec.Struct, frozen=True):
    issuer: str
    """Empty: any."""
    keys: str
    audiences: tuple[str, ...]
    places: tuple[str, ...]

    def made(self, index: int) -> TokenRule:
        return TokenRule(
            ISSUERS[self.issuer].name if self.issuer else "",
            self.audiences,
            ISSUERS[self.keys].jwks if self.keys else "",
            headers=tuple(TokenHeader(each) for each in self.places if each.startswith("x-")),
            params=("t",) if "parameter" in self.places else (),
            cookies=("t",) if "cookie" in self.places else (),
            payload_header=f"x-payload-{index}",
        )

    def looks_at(self, place: str) -> bool:
        return place in (self.places or ("authorization",))

    def takes(self, token: Token) -> bool:
        return (
            self.keys == token.signer != ""
            and self.issuer in ("", token.issuer)
            and token.is_current
            and (not self.audiences or bool(set(self.audiences) & set(token.audiences)))
        )


def passes(rules: Sequence[Rule], request: dict[str, Token]) -> bool:
    """By the sentence at the top; a rule that finds several tokens needs all of them to be valid."""
    seen = [[token for place, token in request.items() if rule.looks_at(place)] for rule in rules]
    if any(found and all(map(rule.takes, found)) for rule, found in zip(rules, seen, strict=True)):
        return True
    return not any(seen)


def who(answer: Any) -> list[str]:
    """Issuers in the payloads that the server was told."""
    headers = answer.echo["headers"]
    texts = [headers[each][0] for each in headers if each.startswith("x-payload-")]
    return [json.loads(base64.urlsafe_b64decode(each + "=="))["iss"] for each in texts]


RULES = st.builds(
    Rule,
    st.sampled_from(["a", "b", ""]),
    st.sampled_from(["a", "b", "a", "b", ""]),
    st.sampled_from([(), ("x",), ("y", "z")]),
    st.sampled_from([(), ("x-one",), ("x-two", "cookie"), ("parameter",), ("x-one", "parameter")]),
)
REQUESTS = st.lists(
    st.dictionaries(st.sampled_from(PLACES), st.sampled_from(TOKENS), max_size=2), min_size=8, max_size=8
)


@pytest.mark.timeout(300)
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(st.lists(RULES, min_size=1, max_size=3), REQUESTS)
def test_envoy_decides_as_said(scene: Scene, rules: list[Rule], requests: list[dict[str, Token]]) -> None:
    origin = ObjectRef("RequestAuthentication", "default", "tokens")
    made = tuple(rule.made(index) for index, rule in enumerate(rules))
    scene.bind(tokens=(TokenPolicy(origin, (Target("Service", "default", "web"),), made),))
    for request in requests:
        answer = scene.get(_path(request), **_headers(request))
        wanted = passes(rules, request)
        assert (answer.status == 200) is wanted, (request, answer.status)
        if wanted:
            # Without a look at signatures there are more that pass.
            assert (
                check(made, Request(path=_path(request), headers=_named(request)), time.time()).problem == ""
            )
        if answer.status == 200:
            valid = {
                token.issuer
                for rule in rules
                for place, token in request.items()
                if rule.looks_at(place) and rule.takes(token)
            }
            assert {each.removeprefix("https://").partition(".")[0] for each in who(answer)} <= valid


def _path(request: dict[str, Token]) -> str:
    return f"/?t={request['parameter'].text}" if "parameter" in request else "/"


def _named(request: dict[str, Token]) -> dict[str, str]:
    return {key.replace("_", "-"): value for key, value in _headers(request).items()}


def _headers(request: dict[str, Token]) -> dict[str, str]:
    found = {}
    for place, token in request.items():
        match place:
            case "authorization":
                found["authorization"] = f"Bearer {token.text}"
            case "cookie":
                found["cookie"] = f"t={token.text}"
            case "x-one" | "x-two":
                found[place.replace("-", "_")] = token.text
    return found
