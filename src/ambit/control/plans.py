"""What each connected proxy gets, kept up to date: a change is planned for the proxies that it concerns. No I/O.

What plans are made with is imported when the first proxy comes: Envoy's messages are half as much again as all that a
control plane without proxies needs.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from ambit.ca.revocation import BadRevocation, revoked_in
from ambit.ca.trust import Trust
from ambit.control.held_routes import HeldRoutes
from ambit.control.quarantine import Quarantine, Refusal
from ambit.control.view import LiveView
from ambit.core.finding import ObjectRef
from ambit.core.memo import Memo
from ambit.daemon.logs import event
from ambit.envoy.names import gateway_listener, gateway_port, service_cluster
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
from ambit.plan.values import (
    CLUSTER,
    ENDPOINTS,
    EXTENSION,
    LISTENER,
    ROUTES,
    SECRET,
    NodeSettings,
    PlannedResource,
)
from ambit.xds.frames import Resource, Response
from ambit.xds.store import Changed, Publication, Store

if TYPE_CHECKING:
    from ambit.plan import waypoint

log = logging.getLogger("ambit.control.plans")

ORDER = (SECRET, CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTES)
"""Types in the order in which additions must arrive."""
_TABLE_REFUSED = "Envoy refused the table of this route, and what was there before stays"
_ROUTE_REFUSED = (
    "Envoy refuses this route: what its matches did before stays, requests that are new are answered with 500"
)


class Plan:
    """One proxy's resources, and what they depend on."""

    def __init__(self, proxy: Proxy, find: Callable[[Proxy, str], tuple[Host, ...]]) -> None:
        """`find` has the hosts of a proxy's table as they are written."""
        self.proxy = proxy
        self.store = Store()
        self.memo = Memo()
        self.depends_on: frozenset[str] = frozenset()
        self.quarantine = Quarantine()
        self.held = HeldRoutes(lambda table: find(self.proxy, table))
        self.targets: frozenset[Target] = frozenset()
        """Whom policies may be for that this proxy enforces."""


class Plans:
    """`trust` is what the mesh trusts now, None while that is not known."""

    kept: Callable[[tuple[str, str]], Collection[str]]

    def __init__(self, settings: NodeSettings, trust: Callable[[], Trust | None]) -> None:
        self.kept = lambda _: ()
        """Keys of what a waypoint serves although it is not bound to it any more; by its Service, as `_bound`."""
        self._settings = settings
        self._trust = trust
        self._view = LiveView()
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
        self._keys: dict[KeySource, str] = {}
        self._plans: dict[str, Plan] = {}

    @property
    def view(self) -> LiveView:
        """The mesh as plans read it."""
        return self._view

    def proxy(self, key: str) -> Proxy | None:
        """The proxy of this Gateway."""
        return self._proxies.get(key)

    def open(self, proxy: Proxy) -> Store:
        """The resources of a proxy, kept up to date from now on."""
        plan = self._plans.get(proxy.key)
        if plan is None:
            plan = Plan(proxy, self._hosts_of)
            self._renew(plan)
            self._plans[proxy.key] = plan
        return plan.store

    def close(self, key: str) -> None:
        """Nobody reads the resources of this proxy any more."""
        self._plans.pop(key, None)

    def take(self, delta: MeshDelta) -> dict[str, Publication]:
        """What this batch changes for connected proxies, by their keys."""
        concerned = {*delta.proxies.upserts, *delta.proxies.removals}
        concerned.update(self._bind(delta))
        touched = self._view.take(delta)
        self._proxies.update(delta.proxies.upserts)
        for key in delta.proxies.removals:
            self._proxies.pop(key, None)
        touched.update(self._take_routes(delta))
        touched.update(self._take_datagrams(delta))
        concerned.update(self._take_listeners(delta))
        concerned.update(self._take_tokens(delta))
        concerned.update(self._take_telemetry(delta))
        concerned.update(key for key, plan in self._plans.items() if plan.depends_on & touched)
        named = self._take_authorization(delta)
        concerned.update(key for key, plan in self._plans.items() if plan.targets & named)
        return self._publications(concerned)

    def retrust(self) -> dict[str, Publication]:
        """What other roots change."""
        return self._publications(self._plans)

    def release(self, places: Collection[tuple[str, str]]) -> dict[str, Publication]:
        """What waypoints are told that `kept` has less for."""
        return self._publications(
            [key for key, plan in self._plans.items() if _place(plan.proxy) in places] if places else ()
        )

    def revisions(self, place: tuple[str, str]) -> dict[str, dict[str, int]]:
        """How new the resources of the connected waypoint at this Service are, by its key and by type."""
        return {
            key: {each: plan.store.revision(each) for each in ORDER}
            for key, plan in self._plans.items()
            if _place(plan.proxy) == place
        }

    def revision(self, key: str, type_url: str) -> int:
        """How new the resources of this connected proxy are; 0 while it has none of the type."""
        plan = self._plans.get(key)
        return plan.store.revision(type_url) if plan is not None else 0

    def rekey(self, keys: Mapping[KeySource, str]) -> dict[str, Publication]:
        """What keys of tokens change that have been fetched; `keys` are all there are."""
        changed = {each for each in {*keys, *self._keys} if keys.get(each) != self._keys.get(each)}
        self._keys = dict(keys)
        return self._publications(
            key
            for key, plan in self._plans.items()
            if any(rule.source in changed for policy in self._tokens_of(plan.proxy) for rule in policy.rules)
        )

    def enforcing(self, origin: ObjectRef) -> set[str]:
        """Keys of the connected proxies that a policy or rule about tokens is for."""
        key = f"{origin.namespace}/{origin.name}"
        is_about_tokens = origin.kind == TOKEN_KIND
        policy = self._tokens.get(key) if is_about_tokens else self._authorization.get(key)
        named = frozenset(policy.targets) if policy is not None else frozenset()
        return {
            key
            for key, plan in self._plans.items()
            if named & (plan.targets or frozenset(targets.of(plan.proxy, ())))
        }

    def acknowledged(self, key: str, response: Response) -> dict[str, Publication] | None:
        """An Envoy of this proxy took these resources: what it gets next, None when nothing depended on it."""
        plan = self._plans.get(key)
        if plan is None:
            return None
        plan.quarantine.acknowledged(response)
        answers = [plan.held.taken(name) for name in _current(plan, response)]
        return self._publications([key]) if any(answers) else None

    def rejected(self, key: str, response: Response, error: str) -> dict[str, Publication]:
        """An Envoy of this proxy refused some of these resources: what it gets instead, and others."""
        plan = self._plans.get(key)
        refused = plan.quarantine.rejected(response, error) if plan is not None else []
        if plan is None or not refused:
            return {}
        for name in _current(plan, response):
            if (ROUTES, name) in refused:
                plan.held.refused(name, error)
        return self._publications([key])

    def refused(self, key: str) -> Mapping[tuple[str, str], Refusal]:
        """What Envoys of this proxy have refused, by type and name, and what it is."""
        plan = self._plans.get(key)
        if plan is None:
            return {}
        routes = {(ROUTES, str(each)): Refusal("", error) for each, error in plan.held.errors.items()}
        return {**plan.quarantine.refused, **routes}

    def refused_routes(self) -> dict[ObjectRef, str]:
        """The routes that proxies' Envoys have refused, or in whose table something else is, and what became of
        them."""
        found = {
            entry.origin: f"{_TABLE_REFUSED}: {refusal.error}"
            for plan in self._plans.values()
            for (type_url, name), refusal in plan.quarantine.refused.items()
            if type_url == ROUTES and not plan.held.is_searched(name)
            for host in self._hosts_of(plan.proxy, name)
            for entry in host.entries
            if entry.origin is not None
        }
        for plan in self._plans.values():
            found |= {each: f"{_ROUTE_REFUSED}: {error}" for each, error in plan.held.errors.items()}
        return found

    def _hosts_of(self, proxy: Proxy, table: str) -> tuple[Host, ...]:
        """Those of a table of requests, by its name, as they are written."""
        if proxy.kind is ProxyKind.GATEWAY:
            listeners = self._listeners.get(proxy.key, {})
            here = [each.name for each in proxy.listeners if _table_of(each) == table]
            return tuple(host for name in here if name in listeners for host in listeners[name].hosts)
        _, _, port_of = table.partition("|")
        routes = self._routes.get(":".join(port_of.rsplit("|", 1)))
        return routes.hosts if routes is not None else ()

    def _take_tokens(self, delta: MeshDelta) -> set[str]:
        """Keys of the proxies whose rules about tokens are others now."""
        changed = [self._tokens[key] for key in delta.tokens.removals if key in self._tokens]
        changed += [self._tokens[key] for key in delta.tokens.upserts if key in self._tokens]
        changed += delta.tokens.upserts.values()
        for key in delta.tokens.removals:
            self._tokens.pop(key, None)
        self._tokens.update(delta.tokens.upserts)
        return {
            key
            for key, plan in self._plans.items()
            if changed and any(self._concerns(policy, plan.proxy) for policy in changed)
        }

    def _take_telemetry(self, delta: MeshDelta) -> set[str]:
        """Keys of the proxies that may have other things to tell: all, for these change seldom."""
        for key in delta.telemetry.removals:
            self._telemetry.pop(key, None)
        self._telemetry.update(delta.telemetry.upserts)
        return set(self._plans) if delta.telemetry else set()

    def _tokens_of(self, proxy: Proxy) -> list[TokenPolicy]:
        return [each for _, each in sorted(self._tokens.items()) if self._concerns(each, proxy)]

    def _concerns(self, policy: TokenPolicy, proxy: Proxy) -> bool:
        """Whether the policy is for the proxy as a whole, or for a service that is bound to it."""
        bound = (self._view.service(key) for key in self._served(proxy))
        return targets.concern(policy.targets, proxy) or any(
            targets.concern(policy.targets, proxy, service) for service in bound if service is not None
        )

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

    def _bind(self, delta: MeshDelta) -> set[str]:
        """Notes who is bound to what; keys of the proxies that have others bound to them now."""
        moved: set[tuple[str, str]] = set()
        for changes, find in ((delta.services, self._view.service), (delta.workloads, self._view.workload)):
            for key in (*changes.removals, *changes.upserts):
                former, now = _waypoints_of(find(key)), _waypoints_of(changes.upserts.get(key))
                for place in former - now:
                    self._bound.get(place, set()).discard(key)
                for place in now - former:
                    self._bound.setdefault(place, set()).add(key)
                moved |= former ^ now
        return {plan.proxy.key for plan in self._plans.values() if _place(plan.proxy) in moved}

    def _publications(self, concerned: Iterable[str]) -> dict[str, Publication]:
        """What one proxy cannot be told is no reason to tell nodes and other proxies nothing more: it keeps what it has
        until something of it changes."""
        found = {}
        for key in list(concerned):
            plan = self._plans.get(key)
            if plan is None:
                continue
            plan.proxy = self._proxies.get(key, plan.proxy)
            try:
                changes = self._renew(plan)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is that proxy's only
                event(
                    log, logging.ERROR, "a proxy cannot be told what changed", gateway=key, reason=repr(error)
                )
                continue
            if changes:
                found[key] = Publication(plan.store, changes)
        return found

    def _renew(self, plan: Plan) -> list[Changed]:
        plan.held.renew()
        made = self._of_gateway(plan) if plan.proxy.kind is ProxyKind.GATEWAY else self._of_waypoint(plan)
        wanted: dict[str, dict[str, Resource]] = {each: {} for each in ORDER}
        former = {type_url: plan.store.resources(type_url) for type_url in ORDER}
        for each in (*self._trusted(), *made):
            there = former[each.type_url].get(each.name)
            same = there is not None and there.version == each.version
            resource = there if there is not None and same else _resource(each)
            wanted[each.type_url][each.name] = plan.quarantine.chosen(each.type_url, resource)
        plan.quarantine.keep((type_url, name) for type_url, resources in wanted.items() for name in resources)
        changes = []
        for type_url, resources in wanted.items():
            gone = plan.store.resources(type_url).keys() - resources.keys()
            changes.append(plan.store.update(type_url, resources, gone))
        return [each for each in changes if each]

    def _of_waypoint(self, plan: Plan) -> tuple[PlannedResource, ...]:
        from ambit.plan import waypoint

        bound = self._bound_to(plan.proxy)
        routes = {
            key: msgspec.structs.replace(
                each, hosts=plan.held.of(service_cluster(each.service, each.port), each.hosts)
            )
            for key, each in bound.routes.items()
        }
        bound = msgspec.structs.replace(bound, routes=routes)
        plan.targets = frozenset(targets.of(plan.proxy, bound.services))
        plan.depends_on = waypoint.depends_on(plan.proxy, bound, plan.memo) | {
            each.key for each in bound.services
        }
        return waypoint.resources(plan.proxy, bound, self._view, self._settings, plan.memo)

    def _of_gateway(self, plan: Plan) -> tuple[PlannedResource, ...]:
        """A Gateway that is gone has no routes any more."""
        from ambit.plan import gateway

        key = plan.proxy.key
        plan.targets = frozenset(targets.of(plan.proxy, ()))
        attached = gateway.Attached(
            {
                each.name: msgspec.structs.replace(routes, hosts=plan.held.of(_table_of(each), routes.hosts))
                for each in plan.proxy.listeners
                if (routes := self._listeners.get(key, {}).get(each.name)) is not None
            },
            tuple(self._tokens_of(plan.proxy)),
            self._keys,
            self._certificates.get(key, ()),
            tuple(self._telemetry.values()),
            self._datagrams,
            self._authorization_for(plan.targets),
        )
        plan.depends_on = gateway.depends_on(plan.proxy, attached, self._view)
        return gateway.resources(plan.proxy, attached, self._view, self._settings, plan.memo)

    def _bound_to(self, proxy: Proxy) -> "waypoint.Bound":
        """Nothing, once the Gateway is gone: its proxy refuses what still comes."""
        from ambit.plan import waypoint

        if proxy.key not in self._proxies:
            return waypoint.Bound()
        keys = self._served(proxy)
        services = tuple(each for key in keys if (each := self._view.service(key)) is not None)
        workloads = tuple(found for key in keys if (found := self._view.workload(key)) is not None)
        return waypoint.Bound(
            services,
            self._routes_of(services),
            workloads,
            tuple(self._tokens_of(proxy)),
            self._authorization_for(targets.of(proxy, services)),
            self._keys,
            tuple(self._telemetry.values()),
        )

    def _served(self, proxy: Proxy) -> list[str]:
        """Keys of what is bound to it, or was a moment ago."""
        place = _place(proxy)
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

    def _trusted(self) -> Iterable[PlannedResource]:
        """Roots and revocation lists for Envoy, and what its agent has to know."""
        from ambit.plan import authority, node_proxy

        trust = self._trust()
        bundle = trust.roots + trust.revoked if trust is not None else ""
        yield node_proxy.trust_bundle(dict.fromkeys(self._settings.trust_domains, bundle))
        if trust is not None:
            revoked = tuple(sorted(str(serial) for _, serial in _revoked(trust)))
            yield authority.resource(authority.AuthorityNote(trust.signer, revoked))


def _revoked(trust: Trust) -> set[tuple[bytes, int]]:
    """Nothing when the lists cannot be read: Envoy says so then."""
    try:
        return revoked_in(trust.revoked)
    except BadRevocation:
        return set()


def _table_of(listener: Listener) -> str:
    """The name of the table that requests to a gateway's listener are in: by TLS its own, else its port's."""
    if listener.protocol is Protocol.HTTP:
        return gateway_port(listener.port)
    return gateway_listener(listener.port, listener.name)


def _current(plan: Plan, response: Response) -> list[str]:
    """The tables among these resources that nothing else has been published for meanwhile."""
    if response.type_url != ROUTES:
        return []
    now = plan.store.resources(ROUTES)
    return [
        each.name
        for each in response.resources
        if each.name in now and now[each.name].version == each.version
    ]


def _waypoints_of(value: Service | Workload | None) -> frozenset[tuple[str, str]]:
    """The waypoint, and its canary if there is one."""
    if value is None:
        return frozenset()
    found = [each.gateway for each in value.weighted_waypoints] if isinstance(value, Service) else []
    found += [value.waypoint] if value.waypoint is not None else []
    return frozenset((each.namespace, each.hostname) for each in found)


def _place(proxy: Proxy) -> tuple[str, str]:
    return proxy.key.partition("/")[0], proxy.service


def _resource(planned: PlannedResource) -> Resource:
    """Whoever reads a proxy's resources gets all of them: its agent keeps what Envoy asks for later."""
    return Resource(name=planned.name, version=planned.version, body=planned.body)
