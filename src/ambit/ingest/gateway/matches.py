"""Matches of routes, and which of several goes first.

Order (Gateway API `HTTPRouteRule.matches`, `GRPCRouteRule.matches`): exact path, expression, longest prefix; then a
method; then most headers; then most query parameters. gRPC: most characters of service, of method, most headers. The
API leaves expressions open; they go before prefixes, because a prefix that is everything would hide them.
"""

import re
from collections.abc import Iterable

import msgspec

from ambit.model.expressions import problem_of_expression
from ambit.model.http import NamedMatch, PathKind, PathMatch, RequestMatch
from ambit.objects import routes

EXACT, PREFIX, EXPRESSION = "Exact", "PathPrefix", "RegularExpression"
ANY_NAME = "[^/]+"
Rank = tuple[int, ...]
"""The smallest goes first."""


class BadMatch(ValueError):
    """A match that cannot be made; its text says which field, and why."""


class Ranked(msgspec.Struct, frozen=True):
    match: RequestMatch
    rank: Rank


_ORDER = {PathKind.EXACT: 0, PathKind.REGEX: 1, PathKind.PREFIX: 2}


def http_match(given: routes.HttpMatch) -> Ranked:
    """Raises BadMatch."""
    path = _path(given.path)
    headers = _named(given.headers, "headers", fold=True)
    queries = _named(given.query_params, "queryParams", fold=False)
    everything = path.kind is PathKind.PREFIX and path.value == "/"
    rank = (_ORDER[path.kind], -len(path.value), not given.method, -len(headers), -len(queries))
    return Ranked(RequestMatch(None if everything else path, given.method, headers, queries=queries), rank)


def grpc_match(given: routes.GrpcMatch) -> Ranked:
    """Raises BadMatch."""
    headers = _named(given.headers, "headers", fold=True)
    rank = (-len(given.method.service), -len(given.method.method), -len(headers))
    return Ranked(RequestMatch(_call(given.method), headers=headers), rank)


def _path(given: routes.PathMatch) -> PathMatch:
    match given.type:
        case "Exact":
            return PathMatch(PathKind.EXACT, given.value)
        case "PathPrefix":
            return PathMatch(PathKind.PREFIX, given.value.rstrip("/") or "/")
        case "RegularExpression":
            return PathMatch(PathKind.REGEX, _expression(given.value, "path.value"))
        case unknown:
            raise BadMatch(f"path.type: {unknown!r} is none of {EXACT}, {PREFIX} and {EXPRESSION}")


def _call(given: routes.MethodMatch) -> PathMatch | None:
    """A call of a method is a request for `/<service>/<method>` (gRPC over HTTP/2)."""
    service, method = given.service, given.method
    if not service and not method:
        return None
    if given.type == EXPRESSION:
        parts = [
            _group(text, f"method.{name}") if text else ANY_NAME
            for name, text in (("service", service), ("method", method))
        ]
        return PathMatch(PathKind.REGEX, "/" + "/".join(parts))
    if given.type != EXACT:
        raise BadMatch(f"method.type: {given.type!r} is none of {EXACT} and {EXPRESSION}")
    if not method:
        return PathMatch(PathKind.PREFIX, f"/{service}")
    if not service:
        return PathMatch(PathKind.REGEX, f"/{ANY_NAME}/{re.escape(method)}")
    return PathMatch(PathKind.EXACT, f"/{service}/{method}")


def _named(given: Iterable[routes.ValueMatch], field: str, *, fold: bool) -> tuple[NamedMatch, ...]:
    """Of several with one name the first counts (Gateway API `HTTPHeaderMatch.name`)."""
    found: dict[str, NamedMatch] = {}
    for index, each in enumerate(given):
        name = each.name.lower() if fold else each.name
        where = f"{field}[{index}]"
        if each.type not in (EXACT, EXPRESSION):
            raise BadMatch(f"{where}.type: {each.type!r} is none of {EXACT} and {EXPRESSION}")
        is_regex = each.type == EXPRESSION
        value = _expression(each.value, f"{where}.value") if is_regex else each.value
        found.setdefault(name, NamedMatch(name, value, is_regex))
    return tuple(found.values())


def _group(text: str, where: str) -> str:
    """The expression as a part of a longer one, where what it leaves open (`\\Q` without `\\E`) would reach further."""
    group = f"(?:{_expression(text, where)})"
    if problem := problem_of_expression(group):
        raise BadMatch(f"{where}: {text!r} leaves something open, such as a \\Q without \\E: {problem}")
    return group


def _expression(text: str, where: str) -> str:
    if problem := problem_of_expression(text):
        raise BadMatch(f"{where}: {text!r} is no expression of RE2: {problem}")
    return text
