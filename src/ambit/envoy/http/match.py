"""Which requests a route is for: `RequestMatch` as Envoy's RouteMatch."""

import re
from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import filter_state_pb2, regex_pb2, string_pb2

from ambit.envoy import filter_state
from ambit.model.http import NamedMatch, PathKind, PathMatch, RequestMatch

_METHOD, _AUTHORITY = ":method", ":authority"
_HOST = "host"
"""A request's host is a header of another name to Envoy."""


def route_match(match: RequestMatch) -> Any:
    """All parts of `match` hold. The path is compared without its query."""
    made = _path(match.path)
    if match.method:
        made.headers.add(name=_METHOD, string_match=string_pb2.StringMatcher(exact=match.method))
    for header in match.headers:
        name = _AUTHORITY if header.name == _HOST else header.name
        made.headers.add(name=name, string_match=_string(header))
    for query in match.queries:
        made.query_parameters.add(name=query.name, string_match=_string(query))
    if match.source_namespaces:
        made.filter_state.append(_caller_in(match.source_namespaces))
    return made


def _path(path: PathMatch | None) -> Any:
    if path is None or (path.kind is PathKind.PREFIX and not path.value.rstrip("/")):
        return route_components_pb2.RouteMatch(prefix="/")
    match path.kind:
        case PathKind.EXACT:
            return route_components_pb2.RouteMatch(path=path.value)
        case PathKind.PREFIX:
            return route_components_pb2.RouteMatch(path_separated_prefix=path.value.rstrip("/"))
        case PathKind.REGEX:
            return route_components_pb2.RouteMatch(safe_regex=regex_pb2.RegexMatcher(regex=path.value))


def _string(match: NamedMatch) -> Any:
    if match.is_regex:
        return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=match.value))
    return string_pb2.StringMatcher(exact=match.value)


def _caller_in(namespaces: tuple[str, ...]) -> Any:
    """By the identity that the caller's connection proved."""
    anyone = "|".join(re.escape(each) for each in namespaces)
    pattern = regex_pb2.RegexMatcher(regex=f"spiffe://[^/]+/ns/({anyone})/sa/[^/]+")
    return filter_state_pb2.FilterStateMatcher(
        key=filter_state.CALLER, string_match=string_pb2.StringMatcher(safe_regex=pattern)
    )
