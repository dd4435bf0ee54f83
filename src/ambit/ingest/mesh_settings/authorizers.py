"""Providers that policies with the action CUSTOM ask (Istio: `envoyExtAuthzHttp` and `envoyExtAuthzGrpc` of
`extensionProviders`), as values."""

import re
from collections.abc import Sequence

import msgspec

from ambit.core.errors import BadInput
from ambit.ingest.mesh_settings.providers import VALUE, Provider, convert, milliseconds, service
from ambit.model.http_bounds import PLAIN_NAME
from ambit.model.policy import Exact, Prefix, Suffix
from ambit.model.provider import Authorizer, BodyInCheck, HeaderNames, OverHttp

_HTTP = "envoyExtAuthzHttp"
KINDS = (_HTTP, "envoyExtAuthzGrpc")
_STATUSES = frozenset(
    {
        *(200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308),
        *range(400, 418),
        *(421, 422, 423, 424, 426, 428, 429, 431),
        *(500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511),
    }
)
"""That proxies can answer with (Envoy: `type.v3.StatusCode`)."""
_MOST_BODY = 2**32 - 1


class _Body(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    max_request_bytes: int = 0
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


class _Grpc(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    service: str
    port: int
    timeout: str = "600s"
    fail_open: bool = False
    clear_route_cache: bool = False
    status_on_error: str | int = ""
    include_request_body_in_check: _Body | None = None


class _Http(_Grpc, frozen=True, rename="camel", forbid_unknown_fields=True):
    path_prefix: str = ""
    include_headers_in_check: tuple[str, ...] = ()
    include_request_headers_in_check: tuple[str, ...] = ()
    include_additional_headers_in_check: dict[str, str] = {}
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()
    headers_to_downstream_on_allow: tuple[str, ...] = ()


def authorizer(given: Provider) -> Authorizer:
    """The provider of one of these KINDS. Raises BadInput, which names the field."""
    fields = convert(given, _Http if given.kind == _HTTP else _Grpc)
    return Authorizer(
        name=given.name,
        service=service(given, fields.service, fields.port),
        timeout=milliseconds(given, "timeout", fields.timeout),
        fail_open=fields.fail_open,
        clear_route_cache=fields.clear_route_cache,
        status_on_error=_status(given, str(fields.status_on_error)),
        body=_body(given, fields.include_request_body_in_check),
        http=_over_http(given, fields) if isinstance(fields, _Http) else None,
    )


def _over_http(given: Provider, fields: _Http) -> OverHttp:
    prefix = fields.path_prefix
    if prefix and not re.fullmatch(r"/[!-~]*", prefix):
        raise BadInput(f"{given.where}.pathPrefix: {prefix!r} is no path", "Begin it with a slash.")
    added = sorted(
        (name.lower(), value) for name, value in fields.include_additional_headers_in_check.items()
    )
    for name, value in added:
        if not PLAIN_NAME.fullmatch(name) or not VALUE.fullmatch(value):
            text = (
                f"{given.where}.includeAdditionalHeadersInCheck: {name!r} is no header, or has no such value"
            )
            raise BadInput(text, "Write names of headers and their values.")
    # The deprecated name counts only where the other is not given (istiod does the same).
    sent = fields.include_request_headers_in_check
    return OverHttp(
        prefix,
        _names(given, "includeRequestHeadersInCheck", sent)
        or _names(given, "includeHeadersInCheck", fields.include_headers_in_check),
        tuple(added),
        _names(given, "headersToUpstreamOnAllow", fields.headers_to_upstream_on_allow),
        _names(given, "headersToDownstreamOnDeny", fields.headers_to_downstream_on_deny),
        _names(given, "headersToDownstreamOnAllow", fields.headers_to_downstream_on_allow),
    )


def _names(given: Provider, field: str, texts: Sequence[str]) -> HeaderNames:
    found: list[Exact | Prefix | Suffix] = []
    for index, text in enumerate(texts):
        name = text.lower()
        stripped = name.removeprefix("*") if name.startswith("*") else name.removesuffix("*")
        if not PLAIN_NAME.fullmatch(stripped):
            raise BadInput(
                f"{given.where}.{field}[{index}]: {text!r} names no header",
                "Write a whole name, or one that begins or ends with *.",
            )
        if name.startswith("*"):
            found.append(Suffix(stripped))
        else:
            found.append(Prefix(stripped) if name.endswith("*") else Exact(stripped))
    return tuple(found)


def _status(given: Provider, text: str) -> int:
    if not text:
        return 403
    if not text.isdecimal() or int(text) not in _STATUSES:
        raise BadInput(f"{given.where}.statusOnError: {text!r} is no status", "Write one as 403 or 503.")
    return int(text)


def _body(given: Provider, fields: _Body | None) -> BodyInCheck | None:
    if fields is None:
        return None
    if not 0 < fields.max_request_bytes <= _MOST_BODY:
        where = f"{given.where}.includeRequestBodyInCheck.maxRequestBytes"
        raise BadInput(f"{where}: {fields.max_request_bytes} is no size", "Write how many bytes are sent.")
    return BodyInCheck(fields.max_request_bytes, fields.allow_partial_message, fields.pack_as_bytes)
