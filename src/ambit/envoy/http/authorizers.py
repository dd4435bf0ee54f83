"""Somebody else who authorizes requests: places in the chain of filters, each for one whom some requests are shown to.

A place is an extension of its own (ECDS), so that a policy holds for open connections at once. It is a list of rules;
the first that a request matches says by which filter it is shown to its authorizer. So whom nothing matches passes
without any other filter having run. Each authorizer has a place: in a list of several filters Envoy leaves out what
comes after the first that has to wait (1.40).

After these is the place of routes, which does nothing unless the route that a request meets says whom to ask.
"""

from collections.abc import Iterable
from typing import Any

from envoy.config.core.v3 import (
    base_pb2,
    config_source_pb2,
    grpc_service_pb2,
    http_uri_pb2,
)
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.http.composite.v3 import composite_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from envoy.type.v3 import http_status_pb2

from ambit.envoy import filter_state, http_rbac, matchers
from ambit.envoy.words import extension, from_ads, pack, seconds
from ambit.model.policy import Exact, Prefix, Suffix
from ambit.model.provider import Authorizer, BodyInCheck, HeaderNames, Others, OverHttp

BY_ROUTE = "ambit.by-route"
"""Name of the place of routes."""
DENIED, FAILED = "ext_authz_denied", "ext_authz_error"
"""Beginnings of the details of answers: the authorizer said no, or could not be asked."""
QUESTION = "x-ambit-question"
"""A header that all questions have."""
_PLACES = "ambit.places"
_PSEUDO_HEADERS = (":authority", ":method", ":path", ":protocol", ":scheme", ":status")
_COMPOSITE = extension("envoy.filters.http.composite", composite_pb2.Composite())
_TYPES = tuple(
    f"type.googleapis.com/{each.DESCRIPTOR.full_name}"
    for each in (extension_matcher_pb2.ExtensionWithMatcher, rbac_pb2.RBAC)
)
_QUESTION = base_pb2.HeaderValue(key=QUESTION, value="1")
Row = tuple[matchers.Predicate, Any, str]
"""Which requests, what filter (`asking`, `refusing`) they meet, and the name of the rule that says so."""


def filter_of(name: str) -> Any:
    """The place of the extension `name` in a chain of filters."""
    return http_connection_manager_pb2.HttpFilter(
        name=name,
        config_discovery=config_source_pb2.ExtensionConfigSource(
            config_source=from_ads(), type_urls=sorted(_TYPES)
        ),
    )


def place(name: str, rows: Iterable[Row]) -> Any:
    """The extension `name`. Rows are tried in order; without any it does nothing."""
    found = [row for row in rows if row[0] is not False]
    if not found:
        return extension(name, rbac_pb2.RBAC())
    listed = matchers.first_match(
        ((predicate, _through(rule, message)) for predicate, message, rule in found), None
    )
    return extension(
        name, extension_matcher_pb2.ExtensionWithMatcher(extension_config=_COMPOSITE, xds_matcher=listed)
    )


def of_routes() -> Any:
    """The place of routes in a chain of filters."""
    nobody = extension_matcher_pb2.ExtensionWithMatcher(
        extension_config=_COMPOSITE, xds_matcher=matchers.first_match((), None)
    )
    return http_connection_manager_pb2.HttpFilter(name=BY_ROUTE, typed_config=pack(nobody))


def by_route(authorizer: Authorizer, cluster: str, rule: str) -> Any:
    """What a route says to its place: all requests are shown to him. `rule` is who says so."""
    everything = matchers.first_match([(True, _through(rule, asking(authorizer, cluster)))], None)
    return extension_matcher_pb2.ExtensionWithMatcherPerRoute(xds_matcher=everything)


def places(count: int) -> Any:
    """Has the chain of filters that a request meets tell how many places it has, for `has_places`."""
    return filter_state.text(_PLACES, str(count))


def has_places(count: int) -> matchers.Predicate:
    """Whether the chain has said that it has this many."""
    return matchers.filter_state(_PLACES, str(count))


def is_question() -> matchers.Predicate:
    """Whether a request says that it is one. Whoever says so of his own is refused more, never less."""
    return matchers.header(QUESTION, r"\C*")


def refusing(rule: str) -> Any:
    """A filter that answers 403."""
    return http_rbac.deciding((), (False, rule))


def asking(authorizer: Authorizer, cluster: str) -> Any:
    """A filter that shows a request to its authorizer, by this cluster, and waits for the answer."""
    made = ext_authz_pb2.ExtAuthz(
        transport_api_version=config_source_pb2.V3,
        failure_mode_allow=authorizer.fail_open,
        clear_route_cache=authorizer.clear_route_cache,
        status_on_error=http_status_pb2.HttpStatus(code=authorizer.status_on_error),
        validate_mutations=True,
    )
    if authorizer.body is not None:
        made.with_request_body.CopyFrom(_body(authorizer.body))
    if authorizer.http is None:
        made.grpc_service.CopyFrom(
            grpc_service_pb2.GrpcService(
                envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(
                    cluster_name=cluster, authority=authorizer.service.hostname
                ),
                timeout=seconds(authorizer.timeout / 1000),
                initial_metadata=[_QUESTION],
            )
        )
        if authorizer.check:
            made.allowed_headers.CopyFrom(_names(authorizer.check))
        return made
    made.http_service.CopyFrom(_http(authorizer, authorizer.http, cluster))
    if authorizer.http.check:
        made.allowed_headers.CopyFrom(_names(authorizer.http.check))
    return made


def _http(authorizer: Authorizer, given: OverHttp, cluster: str) -> Any:
    made = ext_authz_pb2.HttpService(
        server_uri=http_uri_pb2.HttpUri(
            uri=f"http://{authorizer.service.hostname}",
            cluster=cluster,
            timeout=seconds(authorizer.timeout / 1000),
        ),
        path_prefix=given.path_prefix,
    )
    made.authorization_request.headers_to_add.append(_QUESTION)
    for name, value in given.added:
        # Else it would be a format of access logs.
        header = base_pb2.HeaderValue(key=name, value=value.replace("%", "%%"))
        made.authorization_request.headers_to_add.append(header)
    answer = made.authorization_response
    for held, chosen in (
        (answer.allowed_upstream_headers, given.upstream_on_allow),
        (answer.allowed_client_headers, given.downstream_on_deny),
        (answer.allowed_client_headers_on_success, given.downstream_on_allow),
    ):
        if chosen:
            held.CopyFrom(_names(chosen))
    return made


def _names(given: HeaderNames) -> Any:
    return string_pb2.ListStringMatcher(patterns=map(_name, given))


def _name(given: Exact | Prefix | Suffix | Others) -> Any:
    match given:
        case Exact(text):
            return string_pb2.StringMatcher(exact=text)
        case Prefix(text):
            return string_pb2.StringMatcher(prefix=text)
        case Suffix(text):
            return string_pb2.StringMatcher(suffix=text)
        case Others(names):
            regex = regex_pb2.RegexMatcher(regex=matchers.none_of((*names, *_PSEUDO_HEADERS)))
            return string_pb2.StringMatcher(safe_regex=regex)


def _body(given: BodyInCheck) -> Any:
    return ext_authz_pb2.BufferSettings(
        max_request_bytes=given.max_bytes,
        allow_partial_message=given.allow_partial,
        pack_as_bytes=given.as_bytes,
    )


def _through(rule: str, message: Any) -> Any:
    """The rule's name is what the access log tells."""
    taken = composite_pb2.ExecuteFilterAction(typed_config=extension(rule, message))
    return matchers.action("composite", taken)
