"""Filters of requests, in the order in which a request meets them, and what single routes say to them.

A filter does nothing unless a route has a configuration for it. The order and its reasons:

1. What was asked, kept for the access log before anything changes it; messages of gRPC, counted also when refused.
2. Who calls, for those who are asked: `x-forwarded-client-cert` is true from here on.
3. Somebody else who authorizes: before tokens, which he may put there.
4. Tokens: who a request is from, before anybody decides about it; preflight requests, which carry none, pass.
5. Authorization: by who the caller is, what the token says and what is asked for.
6. CORS: answers preflight requests, which carry no credentials and are for nobody behind.
7. Whom a route has requests shown to: he gets none that is refused anyway, and what he says is no matter of policies.
8. Stateful session: chooses the endpoint, so after all that may answer instead.
9. Router: ends the chain.
"""

import re
from typing import Any

from envoy.config.core.v3 import extension_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.extensions.filters.http.grpc_stats.v3 import config_pb2 as grpc_stats_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2
from envoy.extensions.http.stateful_session.header.v3 import header_pb2
from envoy.type.http.v3 import cookie_pb2 as http_cookie_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from ambit.envoy import http_rbac, names
from ambit.envoy.http import authorizers, jwt
from ambit.envoy.http import headers as http_headers
from ambit.envoy.logs import request_log
from ambit.envoy.words import boolean, pack, seconds
from ambit.model.http import Action, Cors, SessionPersistence

_CORS = "envoy.filters.http.cors"
_SESSION = "envoy.filters.http.stateful_session"
_ROUTER = "envoy.filters.http.router"
_ANY = "*"


def chain(subject: str, port: int, *, places: int = 1, by: str = "") -> list[Any]:
    """The filters of a connection manager whose routes are `ambit.envoy.http.routes`', and whose policies are for
    `port` of `subject` (`names.tokens`). There are this many `places` for others who authorize. With `by`, the proxy's
    identity, it is said who calls."""
    said = [http_headers.client_certificate_filter(by)] if by else []
    return [
        *_told(*([authorizers.places(places)] if places > 1 else [])),
        *said,
        *(authorizers.filter_of(names.asks(subject, port, each)) for each in range(places)),
        jwt.filter_of(subject),
        http_rbac.filter_of(names.allowed(subject, port)),
        *of_routes(),
    ]


def of_pod(subject: str, port: int, *, places: int = 1, by: str) -> list[Any]:
    """Those of the chain that decide, of a port whose requests are read where the server is."""
    return [
        *_told(*([authorizers.places(places)] if places > 1 else [])),
        http_headers.client_certificate_filter(by),
        *(authorizers.filter_of(names.asks(subject, port, each)) for each in range(places)),
        jwt.filter_of(f"{subject}|{port}"),
        http_rbac.filter_of(names.allowed(subject, port)),
        router(),
    ]


def of_caller() -> list[Any]:
    """Those of the chain that do what routes say, where requests are read at the node that they come from."""
    return [*_told(), *of_routes()]


def of_routes() -> list[Any]:
    """Those of the chain that do what routes say."""
    return [
        _filter(_CORS, cors_pb2.Cors()),
        authorizers.of_routes(),
        _filter(_SESSION, stateful_session_pb2.StatefulSession()),
        router(),
    ]


def _told(*more: Any) -> list[Any]:
    return [
        request_log.asked_filter(*more),
        _filter(request_log.GRPC, grpc_stats_pb2.FilterConfig(emit_filter_state=True)),
    ]


def router() -> Any:
    return _filter(_ROUTER, router_pb2.Router(dynamic_stats=boolean(False), suppress_envoy_headers=True))


def configure(route: Any, action: Action, rule: str) -> None:
    """What the route says to filters before the router. `rule` is its name in telemetry."""
    if action.cors is not None:
        route.typed_per_filter_config[_CORS].CopyFrom(pack(_cors(action.cors)))
    asked = action.external_auth
    if asked is not None:
        cluster = names.provider(asked.service, asked.port, is_grpc=asked.authorizer.is_grpc)
        said = authorizers.by_route(asked.authorizer, cluster, rule)
        route.typed_per_filter_config[authorizers.BY_ROUTE].CopyFrom(pack(said))
    if action.session is not None:
        session = stateful_session_pb2.StatefulSessionPerRoute(stateful_session=_session(action.session))
        route.typed_per_filter_config[_SESSION].CopyFrom(pack(session))


def _cors(cors: Cors) -> Any:
    """For `*` Envoy answers with the method and the headers that were asked for: with credentials a browser would take
    `*` for a name, not a wildcard (Fetch standard 3.3.4). It does so only where `*` stands alone.
    """
    return cors_pb2.CorsPolicy(
        allow_origin_string_match=[_origin(each) for each in cors.origins],
        allow_methods=_words(cors.methods),
        allow_headers=_words(cors.headers),
        expose_headers=", ".join(cors.expose),
        max_age=str(cors.max_age_seconds),
        allow_credentials=boolean(cors.credentials),
        forward_not_matching_preflights=boolean(False),
    )


def _words(names: tuple[str, ...]) -> str:
    return _ANY if _ANY in names else ", ".join(names)


def _origin(pattern: str) -> Any:
    """`*` stands for any text, as in `https://*.example.com`."""
    if _ANY not in pattern:
        return string_pb2.StringMatcher(exact=pattern)
    regex = ".*".join(re.escape(each) for each in pattern.split(_ANY))
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=regex))


def _session(session: SessionPersistence) -> Any:
    """The endpoint's address is in the cookie or header; one that is gone is replaced."""
    if not session.is_cookie:
        state = header_pb2.HeaderBasedSessionState(name=session.name)
        kind = "header"
    else:
        cookie = http_cookie_pb2.Cookie(name=session.name, path="/")
        if session.lifetime:
            cookie.ttl.CopyFrom(seconds(session.lifetime / 1000))
        state = cookie_pb2.CookieBasedSessionState(cookie=cookie)
        kind = "cookie"
    return stateful_session_pb2.StatefulSession(
        session_state=extension_pb2.TypedExtensionConfig(
            name=f"envoy.http.stateful_session.{kind}", typed_config=pack(state)
        )
    )


def _filter(name: str, message: Any) -> Any:
    return http_connection_manager_pb2.HttpFilter(name=name, typed_config=pack(message))
