"""Tables of requests: `Host` and `Entry` as Envoy's virtual hosts and routes.

An entry is one route, unless its backends differ in path or redirect, which Envoy's weights cannot: then each
backend is a route of its own, taken by the same random number that weights are chosen by.

Envoy refuses a whole table for one route that it cannot carry out, so such a route never gets there: its requests are
answered with 500.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.matcher.v3 import string_pb2
from envoy.type.v3 import percent_pb2

from ambit.envoy import defaults, names
from ambit.envoy.http import filters, headers, paths
from ambit.envoy.http import match as http_match
from ambit.envoy.words import boolean, pack, seconds, uint32
from ambit.model import http_bounds
from ambit.model.http import (
    Action,
    Backend,
    Entry,
    Host,
    Mirror,
    RequestMatch,
    Retry,
    Rewrite,
    SessionPersistence,
)

_MILLION = 1_000_000
_UNDOABLE, _BAD_REQUEST = 500, 400
_ANY = "*"
_ALTERNATIVE, _A_DAY = "alt-svc", 86_400
"""RFC 7838; 24 hours are what holds when nothing is said."""
_UNSENT = "connect-failure,refused-stream,reset-before-request"
"""A request that no backend has seen is always tried again: it costs nobody anything."""
_FAILED = f"{_UNSENT},reset,retriable-status-codes"
_Route = route_components_pb2.Route


def table(
    name: str, hosts: Sequence[Host], *, port: int, scheme: str = "http", more: "TableOptions | None" = None
) -> Any:
    """The RouteConfiguration `name` for requests that came to `port`. For large tables that change a little:
    `ambit.envoy.http.serialised_table`."""
    made = empty_table(name, more or TableOptions())
    for host in joined(hosts):
        found = [route for entry in host.entries for route in routes_of(entry, scheme, port)]
        made.virtual_hosts.add(
            name=host.domains[0], domains=host.domains, routes=[*first_routes(host), *found]
        )
    return made


class TableOptions(msgspec.Struct, frozen=True):
    """Of a table as a whole. With `by`, the identity of this proxy, backends are told who called
    (`x-forwarded-client-cert`); what the request says of that itself never counts. With `quic_port` clients are told
    that this takes HTTP/3. Headers that are `withheld` are in no answer of a backend."""

    by: str = ""
    quic_port: int = 0
    withheld: tuple[str, ...] = ()


def empty_table(name: str, more: TableOptions) -> Any:
    """The RouteConfiguration `name` without hosts."""
    made = route_pb2.RouteConfiguration(
        name=name,
        ignore_port_in_host_matching=True,
        validate_clusters=boolean(False),
        response_headers_to_remove=more.withheld,
    )
    if more.by:
        # Once more: a route may have changed it.
        made.request_headers_to_add.append(headers.client_certificate(more.by))
    if more.quic_port:
        value = f'h3=":{more.quic_port}"; ma={_A_DAY}'
        made.response_headers_to_add.append(headers.option(_ALTERNATIVE, value))
    return made


def joined(hosts: Iterable[Host]) -> list[Host]:
    """Those with the very same entries as one, so that a route with many host names is written once; and one for all
    other names, whose requests reach `first_routes` only."""
    domains: dict[tuple[int, ...], list[str]] = {}
    entries: dict[tuple[int, ...], tuple[Entry, ...]] = {}
    for host in hosts:
        key = tuple(map(id, host.entries))
        domains.setdefault(key, []).extend(host.domains)
        entries[key] = host.entries
    found = [Host(tuple(domains[key]), each) for key, each in entries.items()]
    return found if any(_ANY in each.domains for each in found) else [*found, Host((_ANY,), ())]


def first_routes(host: Host) -> list[Any]:
    """Envoy's routes before those of entries: a request with two `Host` headers is answered with 400 (RFC 9112 section
    3.2). Envoy joins their values with a comma, which no domain but a wildcard matches."""
    if not any(each.startswith(_ANY) for each in host.domains):
        return []
    joined_hosts = string_pb2.StringMatcher(contains=",")
    matcher = route_components_pb2.HeaderMatcher(name=":authority", string_match=joined_hosts)
    match = route_components_pb2.RouteMatch(prefix="/", headers=[matcher])
    return [
        _Route(match=match, direct_response=route_components_pb2.DirectResponseAction(status=_BAD_REQUEST))
    ]


def to_service(service: str, port: int, session: SessionPersistence | None = None) -> tuple[Host, ...]:
    """The table of a service without routes: every request goes to its endpoints."""
    action = Action(backends=(Backend(service, port),), session=session)
    return (Host(("*",), (Entry(f"{service}:{port}", RequestMatch(), action),)),)


def routes_of(entry: Entry, scheme: str, port: int) -> Iterable[Any]:
    """Envoy's routes of one entry."""
    if not http_bounds.matches_something(entry.match):
        return
    action = entry.action
    if http_bounds.problem(action):
        action = Action(status=_UNDOABLE)
        entry = msgspec.structs.replace(entry, action=action)
    if action.redirect is not None:
        wanted = paths.redirect(action.redirect, entry.match.path, scheme=scheme, port=port)
        yield _route(entry, entry.name, redirect=wanted)
    elif not any(each.weight for each in action.backends):
        answer = route_components_pb2.DirectResponseAction(status=action.status)
        yield _route(entry, entry.name, direct_response=answer)
    elif not any(each.redirect or (each.rewrite and each.rewrite.path) for each in action.backends):
        yield _route(entry, entry.name, route=_forward(entry, action.backends))
    else:
        yield from _divided(entry, scheme, port)


def _divided(entry: Entry, scheme: str, port: int) -> Iterable[Any]:
    """One route for each backend. Each takes the requests below its bound that no route before it took."""
    backends = [each for each in entry.action.backends if each.weight]
    total, bound = sum(each.weight for each in backends), 0
    for index, backend in enumerate(backends):
        bound += backend.weight
        if backend.redirect is not None:
            wanted = paths.redirect(backend.redirect, entry.match.path, scheme=scheme, port=port)
            route = _route(entry, f"{entry.name}#{index}", redirect=wanted)
        else:
            route = _route(entry, f"{entry.name}#{index}", route=_forward(entry, [backend]))
        if bound < total:
            route.match.runtime_fraction.CopyFrom(
                base_pb2.RuntimeFractionalPercent(default_value=_fraction(bound, total))
            )
        yield route


def _route(entry: Entry, name: str, **what: Any) -> Any:
    route = _Route(name=name, match=http_match.route_match(entry.match), **what)
    if not route.HasField("redirect"):
        headers.change_requests(route, entry.action.request_headers)
    headers.change_responses(route, entry.action.response_headers)
    filters.configure(route, entry.action, entry.name)
    return route


def _forward(entry: Entry, backends: Sequence[Backend]) -> Any:
    action = entry.action
    route = route_components_pb2.RouteAction(
        # A share whose backend does not exist has a cluster that does not exist.
        cluster_not_found_response_code=route_components_pb2.RouteAction.INTERNAL_SERVER_ERROR,
        timeout=seconds((action.request_timeout or 0) / 1000),
        retry_policy=_retry(action.retry, action.backend_timeout),
        request_mirror_policies=map(_mirror, action.mirrors),
    )
    if len(backends) == 1 and _is_plain(backends[0]):
        route.cluster = _cluster(backends[0])
    else:
        route.weighted_clusters.clusters.extend(_share(each) for each in backends if each.weight)
    rewrite = action.rewrite or Rewrite()
    if len(backends) == 1 and backends[0].rewrite is not None and backends[0].rewrite.path is not None:
        rewrite = Rewrite(rewrite.hostname, backends[0].rewrite.path)
    host = rewrite.hostname or headers.new_host(action.request_headers)
    if host:
        route.host_rewrite_literal = host
    if rewrite.path is not None:
        paths.rewrite(route, rewrite.path, entry.match.path)
    return route


def _is_plain(backend: Backend) -> bool:
    changed = backend.request_headers or backend.response_headers
    return not changed and not (backend.rewrite and backend.rewrite.hostname)


def _share(backend: Backend) -> Any:
    share = route_components_pb2.WeightedCluster.ClusterWeight(
        name=_cluster(backend), weight=uint32(backend.weight)
    )
    headers.change_requests(share, backend.request_headers)
    headers.change_responses(share, backend.response_headers)
    rewrite = backend.rewrite or Rewrite()
    host = rewrite.hostname or headers.new_host(backend.request_headers)
    if host:
        share.host_rewrite_literal = host
    return share


def _cluster(backend: Backend) -> str:
    return names.service_cluster(backend.service, backend.port) if backend.service else names.UNRESOLVED


def _mirror(mirror: Mirror) -> Any:
    return route_components_pb2.RouteAction.RequestMirrorPolicy(
        cluster=names.service_cluster(mirror.service, mirror.port),
        runtime_fraction=base_pb2.RuntimeFractionalPercent(
            default_value=_fraction(mirror.numerator, mirror.denominator)
        ),
        disable_shadow_host_suffix_append=True,
    )


def _fraction(parts: int, whole: int) -> Any:
    return percent_pb2.FractionalPercent(
        numerator=round(min(1.0, parts / whole) * _MILLION), denominator=percent_pb2.FractionalPercent.MILLION
    )


def _retry(retry: Retry | None, backend_timeout: int | None) -> Any:
    policy = route_components_pb2.RetryPolicy(
        retry_on=_FAILED if retry else _UNSENT,
        num_retries=uint32(retry.attempts if retry else defaults.UNSENT_RETRIES),
        retriable_status_codes=retry.codes if retry else (),
        retry_host_predicate=[
            route_components_pb2.RetryPolicy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=pack(previous_hosts_pb2.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=defaults.OTHER_HOST_ATTEMPTS,
    )
    if backend_timeout:
        policy.per_try_timeout.CopyFrom(seconds(backend_timeout / 1000))
    if retry is not None and retry.backoff:
        least = max(retry.backoff, defaults.LEAST_BACKOFF)
        policy.retry_back_off.base_interval.CopyFrom(seconds(least / 1000))
        policy.retry_back_off.max_interval.CopyFrom(seconds(least * defaults.BACKOFF_GROWTH / 1000))
    return policy
