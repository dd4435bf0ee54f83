"""What rules about tokens make of a request, as proxies do it, but for signatures, which nobody checks here: keys may
be where only the control plane fetches them.

1. A rule takes a token of its issuer (any, when it names none), for one of its audiences, whose times are not over, of
   an algorithm with public keys; one without keys takes none.
2. A request passes with tokens that one of the rules takes all of, or when no rule finds any. Of several rules that do
   the first by issuer says the claims.
3. What was taken is taken away, unless the rule hands it on. A browser's preflight passes.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from ambit.model.jwt import TokenHeader, TokenRule
from ambit.policy.requests import Request

LEEWAY = 60
"""Seconds by which clocks may differ."""
LISTS = ("scope", "permission")
"""Claims that are lists, separated by spaces, whatever a rule says."""
_ALGORITHMS = ("RS", "PS", "ES", "EdDSA")
_USUAL_HEADERS = (TokenHeader("authorization", "Bearer "),)
_USUAL_PARAMS = ("access_token",)


class Checked(msgspec.Struct, frozen=True):
    """`request` as policies see it. With a `problem` it goes no further. `issuer` is whose token was taken."""

    request: Request
    problem: str = ""
    issuer: str = ""


def check(rules: Iterable[TokenRule], request: Request, now: float | None = None) -> Checked:
    """What becomes of the request. `now` in seconds since 1970; without it times of tokens do not matter."""
    if request.method == "OPTIONS" and {"origin", "access-control-request-method"} <= request.headers.keys():
        return Checked(request)
    problems = []
    for rule in sorted(rules, key=lambda each: each.issuer):
        found = list(_tokens(rule, request))
        refused = [text for token, _ in found if (text := _refusal(rule, token, now))]
        if found and not refused:
            return _taken(rule, request, [place for _, place in found], _claims(found[0][0]))
        problems += refused
    return Checked(request, problems[0] if problems else "")


def _taken(rule: TokenRule, request: Request, places: Iterable[str], claims: dict[str, Any]) -> Checked:
    for name in (*LISTS, *rule.space_delimited):
        if isinstance(said := claims.get(name), str):
            claims[name] = said.split()
    gone = set() if rule.forward else set(places)
    kept = {name: value for name, value in request.headers.items() if name not in gone}
    request = msgspec.structs.replace(request, headers=kept, claims=claims)
    return Checked(request, issuer=str(claims.get("iss", "")))


def _tokens(rule: TokenRule, request: Request) -> Iterator[tuple[str, str]]:
    """Each token where the rule looks, with the header that goes with it."""
    has_own = bool(rule.headers or rule.params or rule.cookies)
    for each in rule.headers if has_own else _USUAL_HEADERS:
        name = each.name.lower()
        value = request.headers.get(name, "")
        if value.startswith(each.prefix) and value:
            yield value.removeprefix(each.prefix), name
    given = dict(parse_qsl(urlsplit(request.path).query))
    yield from ((given[each], "") for each in (rule.params if has_own else _USUAL_PARAMS) if each in given)
    pairs = (each.strip().partition("=") for each in request.headers.get("cookie", "").split(";"))
    cookies = {name: value for name, _, value in pairs}
    yield from ((cookies[each], "") for each in rule.cookies if each in cookies)


def _refusal(rule: TokenRule, token: str, now: float | None) -> str:
    """Why the rule does not take it; empty when it does."""
    try:
        header, claims = _part(token, 0), _claims(token)
    except ValueError:
        return "it is no JWT"
    issuer, audiences = str(claims.get("iss", "")), _several(claims.get("aud"))
    if rule.issuer not in ("", issuer):
        return f"it is of issuer {issuer or '(none)'}, not {rule.issuer}"
    if rule.audiences and not set(rule.audiences) & set(audiences):
        return f"its audience is {' and '.join(audiences) or '(none)'}, not {' or '.join(rule.audiences)}"
    if not str(header.get("alg", "")).startswith(_ALGORITHMS):
        return f"its algorithm is {header.get('alg', '(none)')}, which has no public key"
    if not rule.keys and rule.source is None:
        return f"there is no key for issuer {rule.issuer or '(any)'}"
    return _times(claims, now) if now is not None else ""


def _times(claims: Mapping[str, Any], now: float) -> str:
    ends, begins = claims.get("exp"), claims.get("nbf")
    if isinstance(ends, int | float) and now > ends + LEEWAY:
        return "it has expired"
    if isinstance(begins, int | float) and now < begins - LEEWAY:
        return "it is not valid yet"
    return ""


def _several(audience: Any) -> list[str]:
    found = audience if isinstance(audience, list) else [audience]
    return [str(each) for each in found if each]


def _claims(token: str) -> dict[str, Any]:
    return _part(token, 1)


def _part(token: str, index: int) -> dict[str, Any]:
    """Raises ValueError."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("a token has three parts")
    text = parts[index]
    return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=dict[str, Any])
