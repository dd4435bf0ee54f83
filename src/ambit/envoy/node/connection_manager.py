"""The HTTP connection manager of an HBONE listener: authorise and deliver CONNECT streams.

Answers as ztunnel's: 401 denied by policy, 400 not CONNECT or not an address of this pod, 503 a port that is
never served, a name that is not the pod's, or a server that does not accept.
"""

import re
from collections.abc import Iterable
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from ambit.core.address import Address
from ambit.core.names import RESERVED_PORTS
from ambit.envoy import defaults, filter_state, http_rbac, names, tunnel_server
from ambit.envoy.logs import access_log
from ambit.envoy.node import host_names
from ambit.envoy.words import boolean, from_ads, pack, seconds, uint32

_Manager = http_connection_manager_pb2.HttpConnectionManager
_ANY_ADDRESS = r"[0-9.]+|\[[0-9a-f:.]+\]"
_NAME = "[a-z0-9.-]*[a-z][a-z0-9.-]*:[1-9][0-9]*"
_DENIED, _UNAUTHORIZED, _BAD_REQUEST, _UNAVAILABLE = 403, 401, 400, 503


def hbone(*, pod: str, addresses: Iterable[Address], is_named: bool = False, is_read: bool = False) -> Any:
    """Filters in the order in which a stream meets them: authorise (policy by ECDS), note the target,
    route to the pod's addresses. `is_named`: names of the pod's services become its addresses before all that.
    `is_read`: routes come separately (`table`), and the policy is another one."""
    target = filter_state.original_destination("%REQ(:authority)%")
    if not is_read:
        routes = _routes(_own(addresses), names.local_cluster(pod))
        return _manager(pod, names.policy(pod), [target], is_named=is_named, route_config=routes)
    from ambit.envoy.logs import request_log

    noted = [
        target,
        filter_state.dialled_address("%REQ(:authority)%"),
        filter_state.direct_client_address(),
        filter_state.caller(),
        request_log.client_baggage(),
        filter_state.trace("%REQ(TRACEPARENT)%"),
    ]
    source = http_connection_manager_pb2.Rds(
        config_source=from_ads(), route_config_name=names.hbone_listener(pod)
    )
    return _manager(pod, names.policy_of_readers(pod), noted, is_named=is_named, rds=source)


def table(*, pod: str, addresses: Iterable[Address], read: Iterable[int]) -> Any:
    """The table of a pod's listener: streams for the ports in `read` go where their requests are read."""
    own, subject = _own(addresses), names.pod_requests(pod)
    made = _routes(own, names.local_cluster(pod))
    made.name = names.hbone_listener(pod)
    made.validate_clusters.CopyFrom(boolean(False))
    [host] = made.virtual_hosts
    others = list(host.routes)
    del host.routes[:]
    host.routes.append(others[0])
    host.routes.extend(
        _delivery(f"({own}):{port}", names.into_service(subject, port)) for port in sorted(read)
    )
    host.routes.extend(others[1:])
    return made


def _own(addresses: Iterable[Address]) -> str:
    return "|".join(
        re.escape(f"[{address}]" if address.version == 6 else str(address)) for address in addresses
    )


def handed_on(*, pod: str, is_named: bool = False) -> Any:
    """As `hbone`, for a pod that takes streams for any address (`ambit.envoy.node.application_tunnel`)."""
    noted = [
        filter_state.dialled_address("%REQ(:authority)%"),
        filter_state.direct_client_address(),
        filter_state.caller(),
    ]
    routes = _routes(_ANY_ADDRESS, names.handed(pod))
    return _manager(pod, names.policy(pod), noted, is_named=is_named, route_config=routes)


def _manager(pod: str, policy: str, noted: list[Any], *, is_named: bool, **routes: Any) -> Any:
    manager = tunnel_server.manager(
        "hbone",
        local_reply_config=_local_replies(),
        **routes,
        http_filters=[
            *([host_names.filter_of(pod)] if is_named else []),
            http_rbac.filter_of(policy),
            filter_state.http_filter(*noted),
            http_connection_manager_pb2.HttpFilter(
                name="envoy.filters.http.router",
                typed_config=pack(
                    router_pb2.Router(dynamic_stats=boolean(False), suppress_envoy_headers=True)
                ),
            ),
        ],
        access_log=[access_log.every(names.LOG_INBOUND)],
        access_log_options=_Manager.HcmAccessLogOptions(
            access_log_flush_interval=seconds(defaults.LOG_PERIOD)
        ),
    )
    return listener_components_pb2.Filter(
        name="envoy.filters.network.http_connection_manager", typed_config=pack(manager)
    )


def _routes(own: str, cluster: str) -> Any:
    """Streams for `own` (a regular expression of addresses) go to `cluster`. Only the usual spelling of an address and
    port is served: policy compares texts, so a port with a leading zero must not get past it."""
    reserved = "|".join(str(port) for port in sorted(RESERVED_PORTS))
    return route_pb2.RouteConfiguration(
        name="hbone",
        virtual_hosts=[
            route_components_pb2.VirtualHost(
                name="hbone",
                domains=["*"],
                routes=[
                    _answer(_connect(f"({own}):({reserved})"), _UNAVAILABLE),
                    _delivery(f"({own}):[1-9][0-9]*", cluster),
                    _answer(_connect(_NAME), _UNAVAILABLE),
                    _answer(_connect(), _BAD_REQUEST),
                    _answer(route_components_pb2.RouteMatch(prefix=""), _BAD_REQUEST),
                ],
            )
        ],
    )


def _delivery(authority: str, cluster: str) -> Any:
    return route_components_pb2.Route(
        match=_connect(authority),
        route=route_components_pb2.RouteAction(
            cluster=cluster,
            timeout=seconds(0),
            upgrade_configs=[
                route_components_pb2.RouteAction.UpgradeConfig(
                    upgrade_type="CONNECT",
                    connect_config=route_components_pb2.RouteAction.UpgradeConfig.ConnectConfig(),
                )
            ],
        ),
    )


def _connect(authority: str = "") -> Any:
    match = route_components_pb2.RouteMatch(connect_matcher=route_components_pb2.RouteMatch.ConnectMatcher())
    if authority:
        match.headers.add(
            name=":authority",
            string_match=string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=authority)),
        )
    return match


def _answer(match: Any, status: int) -> Any:
    return route_components_pb2.Route(
        match=match, direct_response=route_components_pb2.DirectResponseAction(status=status)
    )


def _local_replies() -> Any:
    """RBAC's 403 becomes ztunnel's 401."""
    comparison = accesslog_pb2.ComparisonFilter(
        op=accesslog_pb2.ComparisonFilter.EQ,
        value=base_pb2.RuntimeUInt32(default_value=_DENIED, runtime_key="ambit.denied"),
    )
    return http_connection_manager_pb2.LocalReplyConfig(
        mappers=[
            http_connection_manager_pb2.ResponseMapper(
                filter=accesslog_pb2.AccessLogFilter(
                    status_code_filter=accesslog_pb2.StatusCodeFilter(comparison=comparison)
                ),
                status_code=uint32(_UNAUTHORIZED),
            )
        ]
    )
