"""The filter `ExternalAuth` of routes: whom requests are shown to, as values (Gateway API `HTTPExternalAuthFilter`).

Where the API leaves something open, or says two things:

1. Of a body longer than `forwardBody.maxSize` nothing is sent: the request is answered with 413.
2. What an answer says of its own body and connection is no header that goes on, also where `allowedResponseHeaders`
   is empty.
3. Who does not answer in time (TIMEOUT) has said no: 403.
"""

import re

from ambit.model.http import ExternalAuth
from ambit.model.http_bounds import NAME
from ambit.model.policy import Exact
from ambit.model.provider import Authorizer, BodyInCheck, HeaderNames, Others, OverHttp, ProviderService
from ambit.objects import routes

TIMEOUT = 5_000
"""Milliseconds."""
MOST_BODY = 1 << 20
"""Bytes of a body that a proxy keeps while somebody is asked: whoever may write a route says how many."""
_PATH = re.compile(r"(/[-A-Za-z0-9/._~!$&'()*+,;=:@%]*)?")
_UP = re.compile(r"/\.{1,2}(/|$)")
_OWN = (
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
)


def external_auth(given: routes.ExternalAuth, service: str, port: int) -> ExternalAuth:
    """For the service and port that its reference has led to. Raises ValueError, whose text begins with the field."""
    place = ProviderService(service.partition("/")[2], port)
    body = _body(given.forward_body.max_size)
    if given.protocol == "GRPC":
        check = _names("grpc.allowedHeaders", given.grpc.allowed_headers)
        asked = Authorizer(f"{service}:{port}", place, timeout=TIMEOUT, body=body, check=check)
    elif given.protocol == "HTTP":
        asked = Authorizer(
            f"{service}:{port}", place, timeout=TIMEOUT, body=body, http=_over_http(given.http)
        )
    else:
        raise ValueError(f"protocol: {given.protocol!r} is neither HTTP nor GRPC")
    return ExternalAuth(service, asked)


def _over_http(given: routes.HttpAuth) -> OverHttp:
    if not _PATH.fullmatch(given.path) or _UP.search(given.path):
        raise ValueError(f"http.path: {given.path!r} is no path that begins with / and has no . or .. in it")
    returned = _names("http.allowedResponseHeaders", given.allowed_response_headers)
    return OverHttp(
        given.path,
        _names("http.allowedHeaders", given.allowed_headers),
        upstream_on_allow=returned or (Others(_OWN),),
    )


def _names(field: str, names: tuple[str, ...]) -> HeaderNames:
    for name in names:
        if not NAME.fullmatch(name.lower()):
            raise ValueError(f"{field}: {name!r} is no name of a header")
    return tuple(Exact(name.lower()) for name in names)


def _body(size: int) -> BodyInCheck | None:
    if not 0 <= size <= MOST_BODY:
        raise ValueError(f"forwardBody.maxSize: {size} is not between 0 and {MOST_BODY}")
    return BodyInCheck(size) if size else None
