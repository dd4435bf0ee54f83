"""Services that are bound to a waypoint without pods: callers' own nodes route requests to them.

Last of all that is done to a service: what closes its waypoint, or is not known to, leaves a waypoint that nobody has,
and nodes refuse what is to go there. So it is with policies and rules about tokens, which no node enforces, and with
TLS to backends, which no node speaks.
"""

from collections.abc import Iterable

import msgspec

from ambit.graph.collection import Collection
from ambit.graph.engine import Context
from ambit.ingest.unenforced import forbids
from ambit.model.jwt import TokenPolicy
from ambit.model.proxy import Proxy, ProxyKind, ServiceRoutes
from ambit.model.request_policy import RequestPolicy
from ambit.model.service import Service


class Inline:
    """Which waypoints are inline, the tables of what is bound to them, and what they cannot do."""

    def __init__(
        self,
        services: Collection[Service],
        proxies: Collection[Proxy],
        tables: Collection[ServiceRoutes],
        tokens: Collection[TokenPolicy],
        policies: Collection[RequestPolicy],
    ) -> None:
        self._services = services
        self._by_host = proxies.index(_host)
        self._tables = tables
        self._by_target = tokens.index(_targets)
        self._policies = policies.index(lambda each: _targets(each) if forbids(each) else [])

    def service(self, context: Context, given: Service) -> Service:
        """The service with its tables instead of its waypoint, when that is inline."""
        waypoint = given.waypoint
        if waypoint is None:
            return given
        found = context.lookup(self._by_host, f"{waypoint.namespace}/{waypoint.hostname}")
        if not found or self._has_rules(context, given, found[0]):
            return given
        found_tables = (
            context.get(self._tables, f"{given.key}:{port}")
            for port in sorted({each.service for each in given.ports})
        )
        tables = tuple(each for each in found_tables if each is not None)
        if given.backend_tls or any(self._speaks_tls(context, key, port) for key, port in _backends(tables)):
            return given
        return msgspec.structs.replace(given, waypoint=None, inline=tables)

    def _speaks_tls(self, context: Context, key: str, port: int) -> bool:
        found = context.get(self._services, key)
        return found is not None and port in found.backend_tls

    def _has_rules(self, context: Context, given: Service, proxy: Proxy) -> bool:
        kind = "Service" if given.is_kubernetes else "ServiceEntry"
        named = (f"{kind} {given.namespace}/{given.name}", f"Gateway {proxy.key}", _CLASSES)
        return any(
            context.lookup(self._by_target, each) or context.lookup(self._policies, each) for each in named
        )


_CLASSES = "GatewayClass"


def _host(proxy: Proxy) -> list[str]:
    return [f"{proxy.key.partition('/')[0]}/{proxy.service}"] if proxy.kind is ProxyKind.INLINE else []


def _backends(tables: Iterable[ServiceRoutes]) -> set[tuple[str, int]]:
    actions = [entry.action for table in tables for host in table.hosts for entry in host.entries]
    called = {(each.service, each.port) for action in actions for each in action.backends}
    return called | {(each.service, each.port) for action in actions for each in action.mirrors}


def _targets(policy: TokenPolicy | RequestPolicy) -> list[str]:
    """Of a GatewayClass all: more rather than fewer."""
    return [
        _CLASSES if each.kind == _CLASSES else f"{each.kind} {each.namespace}/{each.name}"
        for each in policy.targets
    ]
