"""Filters of routes: what they do to a request, or why they cannot be had."""

from collections.abc import Callable, Iterable

import msgspec

from ambit.ingest.gateway.external_auth import external_auth
from ambit.model.http import Cors, ExternalAuth, HeaderChanges, Mirror, PathChange, Redirect, Rewrite
from ambit.objects import routes


class BadFilter(ValueError):
    """A filter that cannot be carried out; requests must not pass without it. Its text says which, and why."""


class Filters(msgspec.Struct, frozen=True):
    """What a list of filters comes to. `nobody_to_ask`: who must be asked was not resolved, so nobody may pass."""

    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    external_auth: ExternalAuth | None = None
    nobody_to_ask: bool = False


Resolve = Callable[[routes.BackendObject], tuple[str, int] | None]
"""Key of the service, and port; None for what was not resolved."""


def filters_of(given: Iterable[routes.Filter], resolve: Resolve) -> Filters:
    """Raises BadFilter. A mirror whose service is not resolved is left out: it would change no answer."""
    request = response = HeaderChanges()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    cors: Cors | None = None
    authorized_by: ExternalAuth | None = None
    nobody_to_ask = False
    mirrors: list[Mirror] = []
    for index, each in enumerate(given):
        where = f"filters[{index}]"
        match each:
            case routes.Filter(type="RequestHeaderModifier", request_header_modifier=headers) if headers:
                request = _joined(request, headers)
            case routes.Filter(type="ResponseHeaderModifier", response_header_modifier=headers) if headers:
                response = _joined(response, headers)
            case routes.Filter(type="RequestMirror", request_mirror=mirror) if mirror:
                found = resolve(mirror.backend_ref)
                if found is not None:
                    mirrors.append(Mirror(*found, *_share(mirror)))
            case routes.Filter(type="RequestRedirect", request_redirect=asked) if asked:
                path = _path(asked.path, where)
                redirect = Redirect(asked.scheme, asked.hostname, path, asked.port, asked.status_code)
            case routes.Filter(type="URLRewrite", url_rewrite=wanted) if wanted:
                rewrite = Rewrite(wanted.hostname, _path(wanted.path, where))
            case routes.Filter(type="CORS", cors=allowed) if allowed:
                cors = _cors(allowed)
            case routes.Filter(type="ExternalAuth", external_auth=whom) if whom and not authorized_by:
                found = resolve(whom.backend_ref)
                nobody_to_ask = nobody_to_ask or found is None
                if found is not None:
                    authorized_by = _asked(whom, found, where)
            case _:
                raise BadFilter(f"{where}.type: {each.type} cannot be carried out")
    if redirect is not None and rewrite is not None:
        raise BadFilter("filters: RequestRedirect and URLRewrite exclude each other")
    return Filters(request, response, redirect, rewrite, tuple(mirrors), cors, authorized_by, nobody_to_ask)


def _asked(given: routes.ExternalAuth, found: tuple[str, int], where: str) -> ExternalAuth:
    try:
        return external_auth(given, *found)
    except ValueError as problem:
        raise BadFilter(f"{where}.externalAuth.{problem}") from None


def _joined(former: HeaderChanges, given: routes.HeaderModifier) -> HeaderChanges:
    return HeaderChanges(
        set=(*former.set, *((each.name.lower(), each.value) for each in given.set)),
        add=(*former.add, *((each.name.lower(), each.value) for each in given.add)),
        remove=(*former.remove, *(name.lower() for name in given.remove)),
    )


def _path(given: routes.PathModifier | None, where: str) -> PathChange | None:
    match given:
        case None:
            return None
        case routes.PathModifier(type="ReplaceFullPath"):
            return PathChange(given.replace_full_path)
        case routes.PathModifier(type="ReplacePrefixMatch"):
            return PathChange(given.replace_prefix_match, is_prefix=True)
        case _:
            raise BadFilter(f"{where}.path.type: {given.type!r} cannot be carried out")


def _share(given: routes.RequestMirror) -> tuple[int, int]:
    if given.fraction is not None:
        return given.fraction.numerator, given.fraction.denominator
    return (100 if given.percent is None else given.percent), 100


def _cors(given: routes.CorsFilter) -> Cors:
    return Cors(
        origins=given.allow_origins,
        methods=given.allow_methods,
        headers=given.allow_headers,
        expose=given.expose_headers,
        credentials=given.allow_credentials,
        max_age_seconds=given.max_age,
    )
