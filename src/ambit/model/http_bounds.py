"""What no proxy can carry out of a route, although an API server lets it through.

A proxy takes or refuses a table as a whole, and a table holds routes of several namespaces: what is here must never
reach one. Beside what would be refused this is what would be no request any more, such as a path with a space.
"""

import re
from collections.abc import Iterator

from ambit.model.expressions import problem_of_expression
from ambit.model.http import Action, Backend, HeaderChanges, PathKind, Redirect, RequestMatch, Rewrite

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Of a header or cookie (RFC 9110 section 5.6.2)."""
PLAIN_NAME = re.compile(r"[!#$%&'+.^_`|~0-9A-Za-z-]+")
"""The same without *, which stands for any text where names are given."""
_VALUE = re.compile(r"[^\x00\r\n]*")
"""Of a header (RFC 9110 section 5.5)."""
_PATH = re.compile(r"[!-~]*")
_PREFIX = re.compile(r"(/[^?#]*)?")
_HOST = "host"
_UINT32 = 0xFFFFFFFF
MOST_RETRIES = 100
"""Of one request (the Gateway API has no bound, GEP-1731). A proxy is shared: without one it would go on for whom a
route's author likes, as long as his client waits."""
_STATUSES = range(100, 600)


def matches_something(match: RequestMatch) -> bool:
    """Whether any request can match. An expression that Envoy rejects matches none."""
    path = match.path
    if path is not None:
        if path.kind is PathKind.REGEX and not _is_expression(path.value):
            return False
        if path.kind is PathKind.PREFIX and not _PREFIX.fullmatch(path.value):
            return False
    named = (*match.headers, *match.queries)
    return all(
        NAME.fullmatch(each.name) and (_is_expression(each.value) or not each.is_regex) for each in named
    )


def _is_expression(text: str) -> bool:
    return bool(text) and not problem_of_expression(text)


def problem(action: Action) -> str:
    """Why this cannot be done to a request, in words; empty when it can."""
    return next(_problems(action), "")


def _problems(action: Action) -> Iterator[str]:
    yield from _changes(action.request_headers, is_response=False)
    yield from _changes(action.response_headers, is_response=True)
    yield from _place(action.rewrite)
    yield from _place(action.redirect)
    for backend in action.backends:
        yield from _backend(backend)
    if sum(each.weight for each in action.backends) > _UINT32:
        yield f"weights: together they are more than {_UINT32}"
    for mirror in action.mirrors:
        if mirror.numerator < 0 or mirror.denominator < 1:
            yield f"mirror: {mirror.numerator}/{mirror.denominator} is no share"
    if action.retry is not None:
        if not 0 <= action.retry.attempts <= MOST_RETRIES:
            yield f"retry.attempts: {action.retry.attempts} is not between 0 and {MOST_RETRIES}"
        for code in action.retry.codes:
            if code not in _STATUSES:
                yield f"retry.codes: {code} is no status"
    if action.session is not None and not NAME.fullmatch(action.session.name):
        yield f"sessionPersistence.sessionName: {action.session.name!r} is no name of a header or cookie"


def _backend(backend: Backend) -> Iterator[str]:
    if backend.weight < 0:
        yield f"weight: {backend.weight} is less than 0"
    yield from _changes(backend.request_headers, is_response=False)
    yield from _changes(backend.response_headers, is_response=True)
    yield from _place(backend.rewrite)
    yield from _place(backend.redirect)


def _changes(changes: HeaderChanges, *, is_response: bool) -> Iterator[str]:
    for name, value in (*changes.set, *changes.add):
        if not NAME.fullmatch(name):
            yield f"headers: {name!r} is no name of a header"
        if not _VALUE.fullmatch(value):
            yield f"headers: the value {value!r} of {name} would be several lines"
    for name in changes.remove:
        if not NAME.fullmatch(name) or (is_response and name == _HOST):
            yield f"headers: {name!r} is no header that can be removed"


def _place(place: Rewrite | Redirect | None) -> Iterator[str]:
    if place is None:
        return
    if not _VALUE.fullmatch(place.hostname):
        yield f"hostname: {place.hostname!r} is no name of a host"
    if place.path is not None and not _PATH.fullmatch(place.path.value):
        yield f"path: {place.path.value!r} has characters that must be escaped (RFC 3986)"
