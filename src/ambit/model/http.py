"""What an L7 proxy does with a request, of whichever API it was written in: matches in final order, an action each.

`ingest` has merged routes, sorted them by precedence and resolved every reference, so that the first match of a table
counts. Durations are whole milliseconds; names of headers are lower case.
"""

from collections.abc import Iterator
from enum import Enum

import msgspec

from ambit.core.finding import ObjectRef
from ambit.model.provider import Authorizer


class PathKind(Enum):
    """`PREFIX` goes by whole elements: `/a` matches `/a` and `/a/b`, not `/ab` (Gateway API `PathMatchPathPrefix`)."""

    EXACT = "exact"
    PREFIX = "prefix"
    REGEX = "regex"


class PathMatch(msgspec.Struct, frozen=True):
    kind: PathKind
    value: str


class NamedMatch(msgspec.Struct, frozen=True):
    """A header or query parameter of this name has this value, or as a whole matches this expression (RE2)."""

    name: str
    value: str
    is_regex: bool = False


class RequestMatch(msgspec.Struct, frozen=True):
    """One conjunction; without any part it matches every request. `method` is empty for any."""

    path: PathMatch | None = None
    method: str = ""
    headers: tuple[NamedMatch, ...] = ()
    queries: tuple[NamedMatch, ...] = ()
    source_namespaces: tuple[str, ...] = ()
    """Callers' namespaces, by their identities; empty for any (Gateway API: consumer routes)."""


class HeaderChanges(msgspec.Struct, frozen=True):
    """`set` replaces, `add` appends to what is there."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set or self.add or self.remove)


class PathChange(msgspec.Struct, frozen=True):
    """The whole path, or the prefix that matched, becomes `value`."""

    value: str
    is_prefix: bool = False


class Redirect(msgspec.Struct, frozen=True):
    """Empty and zero parts stay those of the request (port: see `HTTPRequestRedirectFilter.port`)."""

    scheme: str = ""
    hostname: str = ""
    path: PathChange | None = None
    port: int = 0
    status: int = 302


class Rewrite(msgspec.Struct, frozen=True):
    hostname: str = ""
    path: PathChange | None = None


class Backend(msgspec.Struct, frozen=True):
    """A share of the requests. `service` is a key of the mesh's services; without one (its reference was not
    resolved) the share is answered with 500."""

    service: str
    port: int
    weight: int = 1
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()
    rewrite: Rewrite | None = None
    redirect: Redirect | None = None


class Mirror(msgspec.Struct, frozen=True):
    """Copies of `numerator` in `denominator` requests go there, too; answers are dropped."""

    service: str
    port: int
    numerator: int = 100
    denominator: int = 100


class Cors(msgspec.Struct, frozen=True):
    """Gateway API `HTTPCORSFilter`. `*` in lists means any."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose: tuple[str, ...] = ()
    credentials: bool = False
    max_age_seconds: int = 5


class ExternalAuth(msgspec.Struct, frozen=True):
    """Requests are shown to this service, which lets them pass or answers them (Gateway API `HTTPExternalAuthFilter`).
    `service` is a key of the mesh's services, which `authorizer.service` names as well."""

    service: str
    authorizer: Authorizer

    @property
    def port(self) -> int:
        return self.authorizer.service.port


class Retry(msgspec.Struct, frozen=True):
    """Up to `attempts` further tries on these status codes, on connections refused or reset, and on a backend's time
    out when `Action.backend_timeout` is set."""

    attempts: int
    codes: tuple[int, ...] = ()
    backoff: int = 0


class SessionPersistence(msgspec.Struct, frozen=True):
    """Requests that carry the session go to the backend that it began with. `lifetime` 0: until the browser ends."""

    name: str
    is_cookie: bool = True
    lifetime: int = 0


class Action(msgspec.Struct, frozen=True):
    """What happens to a request that matched. In order: CORS, who is asked, redirect, changes, mirrors, one of
    `backends`. Without backends and redirect it is answered with `status`."""

    backends: tuple[Backend, ...] = ()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    external_auth: ExternalAuth | None = None
    request_timeout: int | None = None
    """None is the default (none); 0 turns it off."""
    backend_timeout: int | None = None
    retry: Retry | None = None
    session: SessionPersistence | None = None
    status: int = 500

    def called(self) -> Iterator[tuple[str, int]]:
        """Keys and ports of the services that such requests, or copies of them, are sent or shown to."""
        yield from ((each.service, each.port) for each in self.backends if each.service)
        yield from ((each.service, each.port) for each in self.mirrors)
        if self.external_auth is not None:
            yield self.external_auth.service, self.external_auth.port


class Entry(msgspec.Struct, frozen=True):
    """`name` is the rule's in telemetry: `<namespace>/<route>/<rule name or index>`."""

    name: str
    match: RequestMatch
    action: Action
    origin: ObjectRef | None = None


class Host(msgspec.Struct, frozen=True):
    """Entries for requests to these hosts (`*`, `*.example.com`, `example.com`). The first entry that matches
    counts; a request that none matches is answered with 404."""

    domains: tuple[str, ...]
    entries: tuple[Entry, ...] = ()
