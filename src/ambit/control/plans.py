"""What each connected proxy gets, kept up to date: a change is planned for the proxies that it concerns. No I/O.

What plans are made with is imported when the first proxy comes: Envoy's messages are half as much again as all that a
control plane without proxies needs.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ambit.ca.revocation import BadRevocation, revoked_in
from ambit.ca.trust import Trust
from ambit.control.view import LiveView
from ambit.daemon.logs import event
from ambit.ingest.mesh import MeshDelta
from ambit.model.proxy import Proxy, ServiceRoutes
from ambit.model.service import Service
from ambit.model.workload import Workload
from ambit.plan.values import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, NodeSettings, PlannedResource
from ambit.xds.frames import Resource
from ambit.xds.store import Changed, Publication, Store

if TYPE_CHECKING:
    from ambit.plan import waypoint

log = logging.getLogger("ambit.control.plans")

ORDER = (SECRET, CLUSTER, ENDPOINTS, LISTENER, ROUTES)
"""Types in the order in which additions must arrive."""


class Plan:
    """One proxy's resources, and what they depend on."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.store = Store()
        self.depends_on: frozenset[str] = frozenset()


class Plans:
    """`trust` is what the mesh trusts now, None while that is not known."""

    def __init__(self, settings: NodeSettings, trust: Callable[[], Trust | None]) -> None:
        self._settings = settings
        self._trust = trust
        self._view = LiveView()
        self._proxies: dict[str, Proxy] = {}
        self._routes: dict[str, ServiceRoutes] = {}
        self._bound: dict[tuple[str, str], set[str]] = {}
        """Keys of services and uids of workloads, by namespace and host name of the waypoint's Service."""
        self._plans: dict[str, Plan] = {}

    def proxy(self, key: str) -> Proxy | None:
        """The proxy of this Gateway."""
        return self._proxies.get(key)

    def open(self, proxy: Proxy) -> Store:
        """The resources of a proxy, kept up to date from now on."""
        plan = self._plans.get(proxy.key)
        if plan is None:
            plan = Plan(proxy)
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
        concerned.update(key for key, plan in self._plans.items() if plan.depends_on & touched)
        return self._publications(concerned)

    def retrust(self) -> dict[str, Publication]:
        """What other roots change."""
        return self._publications(self._plans)

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

    def _bind(self, delta: MeshDelta) -> set[str]:
        """Notes who is bound to what; keys of the proxies that have others bound to them now."""
        moved: set[tuple[str, str]] = set()
        for changes, find in ((delta.services, self._view.service), (delta.workloads, self._view.workload)):
            for key in (*changes.removals, *changes.upserts):
                former, now = _waypoint_of(find(key)), _waypoint_of(changes.upserts.get(key))
                if former == now:
                    continue
                if former is not None:
                    self._bound.get(former, set()).discard(key)
                    moved.add(former)
                if now is not None:
                    self._bound.setdefault(now, set()).add(key)
                    moved.add(now)
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
        from ambit.plan import waypoint

        bound = self._bound_to(plan.proxy)
        plan.depends_on = waypoint.depends_on(bound) | {each.key for each in bound.services}
        made = waypoint.resources(plan.proxy, bound, self._view, self._settings)
        wanted: dict[str, dict[str, Resource]] = {each: {} for each in ORDER}
        for each in (*self._trusted(), *made):
            wanted[each.type_url][each.name] = _resource(each)
        changes = []
        for type_url, resources in wanted.items():
            gone = plan.store.resources(type_url).keys() - resources.keys()
            changes.append(plan.store.update(type_url, resources, gone))
        return [each for each in changes if each]

    def _bound_to(self, proxy: Proxy) -> "waypoint.Bound":
        """Nothing, once the Gateway is gone: its proxy refuses what still comes."""
        from ambit.plan import waypoint

        if proxy.key not in self._proxies:
            return waypoint.Bound()
        keys = sorted(self._bound.get(_place(proxy), ()))
        services = tuple(each for key in keys if (each := self._view.service(key)) is not None)
        workloads = tuple(found for key in keys if (found := self._view.workload(key)) is not None)
        return waypoint.Bound(services, self._routes_of(services), workloads)

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


def _waypoint_of(value: Service | Workload | None) -> tuple[str, str] | None:
    address = value.waypoint if value is not None else None
    return (address.namespace, address.hostname) if address is not None else None


def _place(proxy: Proxy) -> tuple[str, str]:
    return proxy.key.partition("/")[0], proxy.service


def _resource(planned: PlannedResource) -> Resource:
    """Whoever reads a proxy's resources gets all of them: its agent keeps what Envoy asks for later."""
    return Resource(name=planned.name, version=planned.version, body=planned.body)
