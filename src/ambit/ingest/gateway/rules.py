"""Rules of routes as entries of a table: HTTPRoute and GRPCRoute alike.

- A match that cannot be made is left out, and said (`PartiallyInvalid`).
- A rule with a filter or another part that cannot be carried out answers its requests with 500, and says so: they must
  not pass without it (Gateway API `HTTPRouteFilter.extensionRef`).
- A rule that has requests shown to a service which is not resolved answers them with 500, too.
- A share of requests whose backend is not resolved is answered with 500 (`HTTPRouteRule.backendRefs`); so is a rule
  without backends and redirect.
"""

from collections.abc import Callable, Iterable

import msgspec

from ambit.core.finding import ObjectRef
from ambit.ingest.gateway import consumers
from ambit.ingest.gateway.filters import BadFilter, Filters, filters_of
from ambit.ingest.gateway.matches import BadMatch, Rank, Ranked, grpc_match, http_match
from ambit.ingest.gateway.patterns import milliseconds
from ambit.ingest.gateway.references import Known, Referrer, Unresolved, resolve
from ambit.ingest.settings import MeshSettings
from ambit.model import http_bounds
from ambit.model.http import Action, Backend, Entry, Redirect, Retry, Rewrite, SessionPersistence
from ambit.model.streams import Stream
from ambit.objects import routes

RETRY_ATTEMPTS = 2
"""Of a retry that does not say (Istio's default)."""
Route = routes.HTTPRoute | routes.GRPCRoute
_Rule = routes.HttpRule | routes.GrpcRule


class RankedEntry(msgspec.Struct, frozen=True):
    """`rank` compares entries of all routes of one kind; `place` those of one route: rule, then match."""

    rank: Rank
    place: tuple[int, int]
    entry: Entry


class Rules(msgspec.Struct, frozen=True):
    """What a route does for one of its parents: `entries` of HTTP and gRPC, `streams` of the others. `refused` are
    sentences about rules that are not as written."""

    entries: tuple[RankedEntry, ...]
    refused: tuple[str, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()
    valid: int = 0
    """So many rules are as written, or keep requests out until they are."""
    streams: tuple[Stream, ...] = ()


def rules_of(route: Route, referrer: Referrer, known: Known, settings: MeshSettings) -> Rules:
    """The entries of all rules, not yet in order."""
    meta = route.metadata
    origin = meta.reference(type(route).__name__)
    entries: list[RankedEntry] = []
    refused: list[str] = []
    unresolved: list[Unresolved] = []
    valid = 0

    def service(given: routes.BackendObject) -> tuple[str, int] | None:
        found = resolve(given, referrer, known, settings)
        if isinstance(found, Unresolved):
            unresolved.append(found)
            return None
        return found

    given_rules: tuple[_Rule, ...] = route.spec.rules
    for index, rule in enumerate(given_rules):
        said: list[str] = []
        try:
            action = _action(rule, service)
            _as_a_consumer(action, referrer)
            action = _with_session(action, known)
        except (BadFilter, BadValue) as problem:
            said.append(f"{problem} (requests are answered with 500)")
            action = Action(status=500)
        name = f"{meta.namespace}/{meta.name}/{rule.name or index}"
        for place, ranked in _matches(rule, said):
            entries.append(RankedEntry(ranked.rank, (index, place), _entry(name, ranked, action, origin)))
        refused += [f"rules[{index}].{each}" for each in said]
        valid += not said or _keeps_out(rule)
    return Rules(tuple(entries), tuple(refused), tuple(dict.fromkeys(unresolved)), valid)


def _keeps_out(rule: _Rule) -> bool:
    """Whether requests would pass, with nobody asked, if a route of such rules did not count."""
    of_backends = (each.filters for each in rule.backend_refs)
    return any(each.type == "ExternalAuth" for filters in (rule.filters, *of_backends) for each in filters)


def _with_session(action: Action, known: Known) -> Action:
    """With what its backends say about sessions, where the route says nothing and they all say the same."""
    if action.session is not None:
        return action
    services = [known.service(each.service) for each in action.backends if each.service]
    sessions = {each.session if each is not None else None for each in services}
    found = sessions.pop() if len(sessions) == 1 else None
    return action if found is None else msgspec.structs.replace(action, session=found)


def _as_a_consumer(action: Action, referrer: Referrer) -> None:
    """Raises BadValue for what the route of another namespace must not do."""
    if referrer.parent is not None and referrer.is_consumer:
        text = consumers.changes(action, referrer.consumer, referrer.parent)
        if text:
            raise BadValue(text)


class BadValue(ValueError):
    """A field that cannot be carried out; its text says which, and why."""


def _entry(name: str, ranked: Ranked, action: Action, origin: ObjectRef) -> Entry:
    return Entry(name=name, match=ranked.match, action=action, origin=origin)


def _matches(rule: _Rule, said: list[str]) -> Iterable[tuple[int, Ranked]]:
    """The matches that can be made, with their places; without any in the rule one that is everything."""
    for index, given in enumerate(
        rule.matches or ((routes.HttpMatch() if _is_http(rule) else routes.GrpcMatch()),)
    ):
        try:
            made = http_match(given) if isinstance(given, routes.HttpMatch) else grpc_match(given)
        except BadMatch as problem:
            said.append(f"matches[{index}].{problem}")
            continue
        if not http_bounds.matches_something(made.match):
            said.append(f"matches[{index}]: no request can match it")
            continue
        yield index, made


def _is_http(rule: _Rule) -> bool:
    return isinstance(rule, routes.HttpRule)


def _action(rule: _Rule, service: Callable[[routes.BackendObject], tuple[str, int] | None]) -> Action:
    """Raises BadFilter, BadValue."""
    filters = filters_of(rule.filters, service)
    if filters.nobody_to_ask:
        return Action(status=500)
    backends = tuple(_backends(rule.backend_refs, service))
    request, backend, retry = _limits(rule) if isinstance(rule, routes.HttpRule) else (None, None, None)
    action = Action(
        backends=backends if filters.redirect is None else (),
        redirect=filters.redirect,
        rewrite=filters.rewrite,
        request_headers=filters.request_headers,
        response_headers=filters.response_headers,
        mirrors=filters.mirrors,
        cors=filters.cors,
        external_auth=filters.external_auth,
        request_timeout=request,
        backend_timeout=backend,
        retry=retry,
        session=session_of(rule.session_persistence),
    )
    if text := http_bounds.problem(action):
        raise BadValue(text)
    return action


def _backends(
    given: Iterable[routes.BackendRef], service: Callable[[routes.BackendObject], tuple[str, int] | None]
) -> Iterable[Backend]:
    for index, each in enumerate(given):
        found = service(each.object)
        if not each.weight:
            continue
        try:
            filters = filters_of(each.filters, service)
        except BadFilter as problem:
            raise BadFilter(f"backendRefs[{index}].{problem}") from None
        if filters.mirrors or filters.cors or filters.external_auth or filters.nobody_to_ask:
            raise BadFilter(
                f"backendRefs[{index}].filters: only headers, URLs and redirects can be changed here"
            )
        yield _backend(found, each.weight, filters)


def _backend(found: tuple[str, int] | None, weight: int, filters: Filters) -> Backend:
    redirect: Redirect | None = filters.redirect
    rewrite: Rewrite | None = filters.rewrite
    service, port = found or ("", 0)
    return Backend(
        service=service,
        port=port,
        weight=weight,
        request_headers=filters.request_headers,
        response_headers=filters.response_headers,
        rewrite=rewrite,
        redirect=redirect,
    )


def _limits(rule: routes.HttpRule) -> tuple[int | None, int | None, Retry | None]:
    """Timeout of the request and of each try, and retries."""
    timeouts = rule.timeouts
    retry = rule.retry and Retry(
        attempts=RETRY_ATTEMPTS if rule.retry.attempts is None else rule.retry.attempts,
        codes=rule.retry.codes,
        backoff=_duration(rule.retry.backoff, "retry.backoff") or 0,
    )
    return (
        _duration(timeouts.request, "timeouts.request"),
        _duration(timeouts.backend_request, "timeouts.backendRequest"),
        retry if retry and retry.attempts else None,
    )


def session_of(given: routes.Persistence | None) -> SessionPersistence | None:
    """None when it is not given. Raises BadValue."""
    if given is None:
        return None
    if given.type not in ("Cookie", "Header"):
        raise BadValue(f"sessionPersistence.type: {given.type!r} is neither Cookie nor Header")
    is_cookie = given.type == "Cookie"
    is_permanent = is_cookie and given.cookie_config.lifetime_type == "Permanent"
    lifetime = _duration(given.absolute_timeout, "sessionPersistence.absoluteTimeout") or 0
    if lifetime and not is_permanent:
        # Only such a cookie says when it ends.
        raise BadValue("sessionPersistence.absoluteTimeout: needs a cookie with lifetimeType Permanent")
    if is_permanent and not lifetime:
        raise BadValue("sessionPersistence.absoluteTimeout: a Permanent cookie needs it")
    return SessionPersistence(given.session_name or "ambit-session", is_cookie=is_cookie, lifetime=lifetime)


def _duration(text: str, field: str) -> int | None:
    """None when it is not given. Raises BadValue."""
    if not text:
        return None
    found = milliseconds(text)
    if found is None:
        raise BadValue(f"{field}: {text!r} is no duration such as 1h30m or 250ms")
    return found
