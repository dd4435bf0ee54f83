"""What proxies' configuration is made of beside workloads and services, found by the proxy it is for. No I/O."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from ambit.control.view import LiveView
from ambit.core.finding import ObjectRef
from ambit.envoy.names import gateway_listener, gateway_port
from ambit.ingest.istio.tokens import KIND as TOKEN_KIND
from ambit.ingest.mesh import MeshDelta
from ambit.model.http import Host
from ambit.model.jwt import KeySource, Target, TokenPolicy
from ambit.model.proxy import KeyPair, Listener, ListenerRoutes, Protocol, Proxy, ProxyKind, ServiceRoutes
from ambit.model.request_policy import RequestPolicy
from ambit.model.service import Service
from ambit.model.streams import Datagrams
from ambit.model.telemetry import TelemetryPolicy
from ambit.model.workload import Workload
from ambit.plan import targets

if TYPE_CHECKING:
    from ambit.plan.l7 import gateway, waypoint


class Touched(msgspec.Struct, frozen=True):
    """Whom a batch concerns: proxies by key, by the place of their Service, by the keys of what they depend on, by
    the targets of policies, by rules about tokens; `everybody` of them."""

    proxies: frozenset[str]
    places: frozenset[tuple[str, str]]
    dependencies: frozenset[str]
    targets: frozenset[Target]
    tokens: tuple[TokenPolicy, ...]
    everybody: bool


class PlanInputs:
    """Kept up to date by `take`. `view` is the mesh; `kept` are the keys of what a waypoint serves although it is not
    bound to it any more, by its Service."""

    def __init__(self) -> None:
        self.view = LiveView()
        self.kept: Callable[[tuple[str, str]], Collection[str]] = lambda _: ()
        self.keys: Mapping[KeySource, str] = {}
        """Of tokens, as fetched."""
        self._proxies: dict[str, Proxy] = {}
        self._routes: dict[str, ServiceRoutes] = {}
        self._listeners: dict[str, dict[str, ListenerRoutes]] = {}
        """By gateway, and name of the listener."""
        self._certificates: dict[str, tuple[KeyPair, ...]] = {}
        """Of gateways, by their keys."""
        self._datagrams: dict[str, Datagrams] = {}
        self._authorization: dict[str, RequestPolicy] = {}
        self._authorization_of: dict[Target, set[str]] = {}
        """Keys of policies by whom they are for."""
        self._bound: dict[tuple[str, str], set[str]] = {}
        """Keys of services and uids of workloads, by namespace and host name of the waypoint's Service."""
        self._tokens: dict[str, TokenPolicy] = {}
        self._telemetry: dict[str, TelemetryPolicy] = {}

    def proxy(self, key: str) -> Proxy | None:
        """The proxy of this Gateway, while there is one."""
        return self._proxies.get(key)

    def take(self, delta: MeshDelta) -> Touched:
        """Follows a batch; whom it concerns."""
        places = self._bind(delta)
        dependencies = self.view.take(delta)
        self._proxies.update(delta.proxies.upserts)
        for key in delta.proxies.removals:
            self._proxies.pop(key, None)
        return Touched(
            frozenset((*delta.proxies.upserts, *delta.proxies.removals, *self._take_listeners(delta))),
            frozenset(places),
            frozenset((*dependencies, *self._take_routes(delta), *self._take_datagrams(delta))),
            frozenset(self._take_authorization(delta)),
            tuple(self._take_tokens(delta)),
            self._take_telemetry(delta),
        )

    def named_by(self, origin: ObjectRef) -> frozenset[Target]:
        """Whom a policy or a rule about tokens is for."""
        key = f"{origin.namespace}/{origin.name}"
        is_about_tokens = origin.kind == TOKEN_KIND
        policy = self._tokens.get(key) if is_about_tokens else self._authorization.get(key)
        return frozenset(policy.targets) if policy is not None else frozenset()

    def tokens_of(self, proxy: Proxy) -> list[TokenPolicy]:
        """Rules about tokens that the proxy keeps."""
        return [each for _, each in sorted(self._tokens.items()) if self.concerns(each, proxy)]

    def concerns(self, policy: TokenPolicy, proxy: Proxy) -> bool:
        """Whether the policy is for the proxy as a whole, or for a service that is bound to it."""
        bound = (self.view.service(key) for key in self._served(proxy))
        return targets.concern(policy.targets, proxy) or any(
            targets.concern(policy.targets, proxy, service) for service in bound if service is not None
        )

    def hosts_of(self, proxy: Proxy, table: str) -> tuple[Host, ...]:
        """Those of a table of requests, by its name, as they are written."""
        if proxy.kind is ProxyKind.GATEWAY:
            listeners = self._listeners.get(proxy.key, {})
            here = [each.name for each in proxy.listeners if table_of(each) == table]
            return tuple(host for name in here if name in listeners for host in listeners[name].hosts)
        _, _, port_of = table.partition("|")
        routes = self._routes.get(":".join(port_of.rsplit("|", 1)))
        return routes.hosts if routes is not None else ()

    def bound_to(self, proxy: Proxy) -> "waypoint.Bound":
        """What a waypoint serves; nothing, once the Gateway is gone: its proxy refuses what still comes."""
        from ambit.plan.l7 import waypoint

        if proxy.key not in self._proxies:
            return waypoint.Bound()
        keys = self._served(proxy)
        services = tuple(each for key in keys if (each := self.view.service(key)) is not None)
        workloads = tuple(found for key in keys if (found := self.view.workload(key)) is not None)
        return waypoint.Bound(
            services,
            self._routes_of(services),
            workloads,
            tuple(self.tokens_of(proxy)),
            self._authorization_for(targets.of(proxy, services)),
            self.keys,
            tuple(self._telemetry.values()),
        )

    def attached_to(self, proxy: Proxy) -> "gateway.Attached":
        """What a gateway serves; a Gateway that is gone has no routes any more."""
        from ambit.plan.l7 import gateway

        listeners = self._listeners.get(proxy.key, {})
        return gateway.Attached(
            {each.name: listeners[each.name] for each in proxy.listeners if each.name in listeners},
            tuple(self.tokens_of(proxy)),
            self.keys,
            self._certificates.get(proxy.key, ()),
            tuple(self._telemetry.values()),
            self._datagrams,
            self._authorization_for(targets.of(proxy, ())),
        )

    def _served(self, proxy: Proxy) -> list[str]:
        """Keys of what is bound to it, or was a moment ago."""
        place = place_of(proxy)
        return sorted({*self._bound.get(place, ()), *self.kept(place)})

    def _authorization_for(self, named: Iterable[Target]) -> tuple[RequestPolicy, ...]:
        keys = {key for target in named for key in self._authorization_of.get(target, ())}
        return tuple(self._authorization[key] for key in sorted(keys))

    def _routes_of(self, services: Iterable[Service]) -> Mapping[str, ServiceRoutes]:
        return {
            key: routes
            for service in services
            for port in service.ports
            if (routes := self._routes.get(key := f"{service.key}:{port.service}")) is not None
        }

    def _bind(self, delta: MeshDelta) -> set[tuple[str, str]]:
        """Notes who is bound to what; the places that have others bound to them now."""
        moved: set[tuple[str, str]] = set()
        for changes, find in ((delta.services, self.view.service), (delta.workloads, self.view.workload)):
            for key in (*changes.removals, *changes.upserts):
                former, now = _waypoints_of(find(key)), _waypoints_of(changes.upserts.get(key))
                for place in former - now:
                    self._bound.get(place, set()).discard(key)
                for place in now - former:
                    self._bound.setdefault(place, set()).add(key)
                moved |= former ^ now
        return moved

    def _take_tokens(self, delta: MeshDelta) -> list[TokenPolicy]:
        """Those that are others now, as they were and as they are."""
        former = (*delta.tokens.removals, *delta.tokens.upserts)
        changed = [self._tokens[key] for key in former if key in self._tokens]
        changed += delta.tokens.upserts.values()
        for key in delta.tokens.removals:
            self._tokens.pop(key, None)
        self._tokens.update(delta.tokens.upserts)
        return changed

    def _take_telemetry(self, delta: MeshDelta) -> bool:
        """Whether proxies may have other things to tell: all, for these change seldom."""
        for key in delta.telemetry.removals:
            self._telemetry.pop(key, None)
        self._telemetry.update(delta.telemetry.upserts)
        return bool(delta.telemetry)

    def _take_routes(self, delta: MeshDelta) -> set[str]:
        """Keys of the services whose tables are others now."""
        touched: set[str] = set()
        for key in delta.routes.removals:
            former = self._routes.pop(key, None)
            if former is not None:
                touched.add(former.service)
        for key, routes in delta.routes.upserts.items():
            self._routes[key] = routes
            touched.add(routes.service)
        return touched

    def _take_datagrams(self, delta: MeshDelta) -> set[str]:
        """Keys of the services behind whose UDP ports are others now."""
        gone = [each for key in delta.datagrams.removals if (each := self._datagrams.pop(key, None))]
        self._datagrams.update(delta.datagrams.upserts)
        return {each.service for each in (*gone, *delta.datagrams.upserts.values())}

    def _take_listeners(self, delta: MeshDelta) -> set[str]:
        """Keys of the gateways whose listeners have other routes or certificates now."""
        for key in delta.listener_routes.removals:
            gateway, _, listener = key.rpartition("#")
            self._listeners.get(gateway, {}).pop(listener, None)
        for routes in delta.listener_routes.upserts.values():
            self._listeners.setdefault(routes.gateway, {})[routes.listener] = routes
        changed = (*delta.listener_routes.removals, *delta.listener_routes.upserts)
        touched = {key.rpartition("#")[0] for key in changed}
        for key in delta.certificates.removals:
            self._certificates.pop(key, None)
        for key, shown in delta.certificates.upserts.items():
            self._certificates[key] = shown.pairs
        touched.update(delta.certificates.removals, delta.certificates.upserts)
        for gateway in touched:
            if not self._listeners.get(gateway):
                self._listeners.pop(gateway, None)
        return touched

    def _take_authorization(self, delta: MeshDelta) -> set[Target]:
        """Whom policies are for that are others now."""
        named: set[Target] = set()
        changes = delta.request_policies
        for key in (*changes.removals, *changes.upserts):
            former, now = self._authorization.pop(key, None), changes.upserts.get(key)
            for target in former.targets if former is not None else ():
                self._authorization_of[target].discard(key)
                named.add(target)
            if now is not None:
                self._authorization[key] = now
                for target in now.targets:
                    self._authorization_of.setdefault(target, set()).add(key)
                named.update(now.targets)
        return named


def table_of(listener: Listener) -> str:
    """The name of the table that requests to a gateway's listener are in: by TLS its own, else its port's."""
    if listener.protocol is Protocol.HTTP:
        return gateway_port(listener.port)
    return gateway_listener(listener.port, listener.name)


def place_of(proxy: Proxy) -> tuple[str, str]:
    """Namespace and host name of a waypoint's Service."""
    return proxy.key.partition("/")[0], proxy.service


def _waypoints_of(value: Service | Workload | None) -> frozenset[tuple[str, str]]:
    """The waypoint, and its canary if there is one."""
    if value is None:
        return frozenset()
    found = [each.gateway for each in value.weighted_waypoints] if isinstance(value, Service) else []
    found += [value.waypoint] if value.waypoint is not None else []
    return frozenset((each.namespace, each.hostname) for each in found)
