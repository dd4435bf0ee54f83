"""New paths and places: rewrites that the backend sees, redirects that the client follows."""

import re
from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import regex_pb2

from ambit.model.http import PathChange, PathKind, PathMatch, Redirect

_STATUS = {
    301: route_components_pb2.RedirectAction.MOVED_PERMANENTLY,
    302: route_components_pb2.RedirectAction.FOUND,
    303: route_components_pb2.RedirectAction.SEE_OTHER,
    307: route_components_pb2.RedirectAction.TEMPORARY_REDIRECT,
    308: route_components_pb2.RedirectAction.PERMANENT_REDIRECT,
}
_WELL_KNOWN = {"http": 80, "https": 443}
_WHOLE = ".*"


def rewrite(action: Any, change: PathChange, match: PathMatch | None) -> None:
    """`action` (a RouteAction) gives the request's path this form; its query stays."""
    if not change.is_prefix:
        action.regex_rewrite.CopyFrom(_substitution(_WHOLE, change.value))
        return
    _change_prefix(action, change.value, match)


def redirect(wanted: Redirect, match: PathMatch | None, *, scheme: str, port: int) -> Any:
    """A RedirectAction. `scheme` and `port` are those of the listener that the request came to.

    Port (Gateway API `HTTPRequestRedirectFilter.port`): the given one, else the one that belongs to a given scheme,
    else the listener's; one that belongs to the new scheme is not written.
    """
    made = route_components_pb2.RedirectAction(
        scheme_redirect=wanted.scheme,
        host_redirect=wanted.hostname,
        response_code=_STATUS[wanted.status],
    )
    new_port = wanted.port or (_WELL_KNOWN.get(wanted.scheme) if wanted.scheme else None) or port
    if new_port != _WELL_KNOWN.get(wanted.scheme or scheme):
        made.port_redirect = new_port
    if wanted.path is not None:
        if wanted.path.is_prefix:
            _change_prefix(made, wanted.path.value, match)
        else:
            made.path_redirect = wanted.path.value
    return made


def _change_prefix(holder: Any, value: str, match: PathMatch | None) -> None:
    """By elements, as the prefix matches: `/foo` to `/` makes `/foo/bar` to `/bar`, not `//bar`."""
    prefix = match.value.rstrip("/") if match is not None and match.kind is PathKind.PREFIX else ""
    new = value.rstrip("/")
    if not prefix:
        # What matched is the slash that every path begins with.
        if new:
            holder.prefix_rewrite = f"{new}/"
    elif new:
        holder.prefix_rewrite = new
    else:
        holder.regex_rewrite.CopyFrom(_substitution(f"^{re.escape(prefix)}/*", "/"))


def _substitution(pattern: str, replacement: str) -> Any:
    return regex_pb2.RegexMatchAndSubstitute(
        pattern=regex_pb2.RegexMatcher(regex=pattern), substitution=replacement.replace("\\", "\\\\")
    )
