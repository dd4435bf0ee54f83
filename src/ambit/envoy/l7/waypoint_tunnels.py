"""The listener of a waypoint: tunnels of any caller of the mesh, each led to the service it is for.

Answers: 403 who is denied before anything is read, 404 what is not bound here, 400 what is no CONNECT, 503 a listener
that is not there yet.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from ambit.core.names import HBONE_PORT
from ambit.envoy import (
    defaults,
    filter_state,
    http_rbac,
    names,
    sockets,
    tls,
    tunnel_server,
    waypoint_services,
)
from ambit.envoy.http import filters as http_filters
from ambit.envoy.logs import request_log, stream_log
from ambit.envoy.words import ANY_V4, ANY_V6, boolean, from_ads, pack, seconds, socket_address, uint32

Way = tuple[str, int]
"""The key of a service, or the uid of a workload, and a port."""
_UpgradeConfig = route_components_pb2.RouteAction.UpgradeConfig
_BAD_REQUEST, _NOT_FOUND = 400, 404
_ANY = "*"
_USUAL = ".+:[1-9][0-9]*"
_NOT_BOUND = "not bound to this waypoint"


def listener(*, secret: str, families: Iterable[int]) -> Any:
    """15008 of the waypoint's pod, in these address families: mutual TLS with anybody of a trusted domain."""
    hosts = [host for version, host in ((4, ANY_V4), (6, ANY_V6)) if version in set(families)]
    chain = listener_components_pb2.FilterChain(name=names.HBONE, filters=[_manager()])
    chain.transport_socket.CopyFrom(tls.server_socket(secret))
    return listener_pb2.Listener(
        name=names.HBONE,
        address=socket_address(hosts[0], HBONE_PORT),
        additional_addresses=[
            listener_pb2.AdditionalAddress(address=socket_address(host, HBONE_PORT)) for host in hosts[1:]
        ],
        traffic_direction="INBOUND",
        per_connection_buffer_limit_bytes=uint32(defaults.BUFFER_LIMIT),
        filter_chains=[chain],
        socket_options=sockets.keepalive(),
    )


def table(ways: Mapping[Way, Iterable[str]], judged: Callable[[Any], None] = lambda _: None) -> Any:
    """The table of the listener: `ways` has the authorities of tunnels by what they lead into. An authority that ends
    in `*` stands for all ports, each in its usual spelling: what one with a leading zero leads to has a way of its own,
    with rules. `judged` adds to each virtual host (`names.into_service`) who may pass."""
    given = {way: tuple(authorities) for way, authorities in ways.items()}
    hosts = [
        route_components_pb2.VirtualHost(
            name=names.into_service(*way),
            domains=authorities,
            routes=[*_into(way, authorities), _bad()],
        )
        for way, authorities in given.items()
    ]
    for host in hosts:
        judged(host)
    nothing = route_components_pb2.Route(
        match=_connect(),
        direct_response=route_components_pb2.DirectResponseAction(
            status=_NOT_FOUND, body=base_pb2.DataSource(inline_string=_NOT_BOUND)
        ),
    )
    hosts.append(route_components_pb2.VirtualHost(name="*", domains=["*"], routes=[nothing, _bad()]))
    return route_pb2.RouteConfiguration(
        name=names.HBONE, virtual_hosts=hosts, validate_clusters=boolean(False)
    )


def _manager() -> Any:
    manager = tunnel_server.manager(
        names.HBONE,
        request_headers_timeout=seconds(defaults.HEADERS_TIMEOUT),
        access_log=[stream_log.denied()],
        rds=http_connection_manager_pb2.Rds(config_source=from_ads(), route_config_name=names.HBONE),
        http_filters=[
            http_rbac.silent(),
            filter_state.http_filter(
                filter_state.caller(),
                request_log.client_baggage(),
                stream_log.ruled(),
                filter_state.trace("%REQ(TRACEPARENT)%"),
                filter_state.client(),
                filter_state.peer(),
                filter_state.client_address(),
                filter_state.dialled_address("%REQ(:authority)%"),
            ),
            http_filters.router(),
        ],
    )
    return listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=pack(manager)
    )


def _connect() -> Any:
    return route_components_pb2.RouteMatch(connect_matcher=route_components_pb2.RouteMatch.ConnectMatcher())


def _into(way: Way, authorities: Sequence[str]) -> list[Any]:
    """Where the port is in the authority itself, no other spelling gets here: an expression costs memory."""
    match, others = _connect(), []
    if any(each.endswith(_ANY) for each in authorities):
        match.headers.add(
            name=":authority",
            string_match=string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=_USUAL)),
        )
        others = [_answer(_connect())]
    route = route_components_pb2.Route(
        name=names.into_service(*way),
        match=match,
        route=route_components_pb2.RouteAction(
            cluster=names.INTO,
            metadata_match=waypoint_services.leads_to(names.service_cluster(*way)),
            timeout=seconds(0),
            upgrade_configs=[
                _UpgradeConfig(upgrade_type="CONNECT", connect_config=_UpgradeConfig.ConnectConfig())
            ],
        ),
    )
    return [route, *others]


def _bad() -> Any:
    return _answer(route_components_pb2.RouteMatch(prefix=""))


def _answer(match: Any) -> Any:
    return route_components_pb2.Route(
        match=match,
        direct_response=route_components_pb2.DirectResponseAction(status=_BAD_REQUEST),
    )
