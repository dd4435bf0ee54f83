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
from ambit.control.l7.held_routes import HeldRoutes
from ambit.control.l7.plan_inputs import PlanInputs, Touched, place_of, table_of
from ambit.control.l7.quarantine import Quarantine, Refusal
from ambit.core.finding import ObjectRef
from ambit.core.memo import Memo
from ambit.daemon.logs import event
from ambit.envoy.names import service_cluster
from ambit.ingest.mesh import MeshDelta
from ambit.model.http import Host
from ambit.model.jwt import KeySource, Target
from ambit.model.proxy import Proxy, ProxyKind
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
    pass

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

    def __init__(self, settings: NodeSettings, trust: Callable[[], Trust | None]) -> None:
        self.inputs = PlanInputs()
        self._settings = settings
        self._trust = trust
        self._plans: dict[str, Plan] = {}

    def open(self, proxy: Proxy) -> Store:
        """The resources of a proxy, kept up to date from now on."""
        plan = self._plans.get(proxy.key)
        if plan is None:
            plan = Plan(proxy, self.inputs.hosts_of)
            self._renew(plan)
            self._plans[proxy.key] = plan
        return plan.store

    def close(self, key: str) -> None:
        """Nobody reads the resources of this proxy any more."""
        self._plans.pop(key, None)

    def take(self, delta: MeshDelta) -> dict[str, Publication]:
        """What this batch changes for connected proxies, by their keys."""
        touched = self.inputs.take(delta)
        return self._publications(key for key, plan in self._plans.items() if self._concerns(touched, plan))

    def _concerns(self, touched: Touched, plan: Plan) -> bool:
        return (
            touched.everybody
            or plan.proxy.key in touched.proxies
            or place_of(plan.proxy) in touched.places
            or not plan.depends_on.isdisjoint(touched.dependencies)
            or not plan.targets.isdisjoint(touched.targets)
            or any(self.inputs.concerns(each, plan.proxy) for each in touched.tokens)
        )

    def retrust(self) -> dict[str, Publication]:
        """What other roots change."""
        return self._publications(self._plans)

    def release(self, places: Collection[tuple[str, str]]) -> dict[str, Publication]:
        """What waypoints are told that `kept` has less for."""
        return self._publications(
            [key for key, plan in self._plans.items() if place_of(plan.proxy) in places] if places else ()
        )

    def revisions(self, place: tuple[str, str]) -> dict[str, dict[str, int]]:
        """How new the resources of the connected waypoint at this Service are, by its key and by type."""
        return {
            key: {each: plan.store.revision(each) for each in ORDER}
            for key, plan in self._plans.items()
            if place_of(plan.proxy) == place
        }

    def revision(self, key: str, type_url: str) -> int:
        """How new the resources of this connected proxy are; 0 while it has none of the type."""
        plan = self._plans.get(key)
        return plan.store.revision(type_url) if plan is not None else 0

    def rekey(self, keys: Mapping[KeySource, str]) -> dict[str, Publication]:
        """What keys of tokens change that have been fetched; `keys` are all there are."""
        former = self.inputs.keys
        changed = {each for each in {*keys, *former} if keys.get(each) != former.get(each)}
        self.inputs.keys = dict(keys)
        return self._publications(
            key
            for key, plan in self._plans.items()
            if any(
                rule.source in changed
                for policy in self.inputs.tokens_of(plan.proxy)
                for rule in policy.rules
            )
        )

    def enforcing(self, origin: ObjectRef) -> set[str]:
        """Keys of the connected proxies that a policy or rule about tokens is for."""
        named = self.inputs.named_by(origin)
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
            for host in self.inputs.hosts_of(plan.proxy, name)
            for entry in host.entries
            if entry.origin is not None
        }
        for plan in self._plans.values():
            found |= {each: f"{_ROUTE_REFUSED}: {error}" for each, error in plan.held.errors.items()}
        return found

    def _publications(self, concerned: Iterable[str]) -> dict[str, Publication]:
        """What one proxy cannot be told is no reason to tell nodes and other proxies nothing more: it keeps what it has
        until something of it changes."""
        found = {}
        for key in list(concerned):
            plan = self._plans.get(key)
            if plan is None:
                continue
            plan.proxy = self.inputs.proxy(key) or plan.proxy
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
        is_refused = bool(plan.quarantine.refused)
        for each in (*self._trusted(), *made):
            there = former[each.type_url].get(each.name)
            same = there is not None and there.version == each.version
            resource = there if there is not None and same else _resource(each)
            if is_refused:
                resource = plan.quarantine.chosen(each.type_url, resource)
            wanted[each.type_url][each.name] = resource
        plan.quarantine.keep((type_url, name) for type_url, resources in wanted.items() for name in resources)
        changes = []
        for type_url, resources in wanted.items():
            gone = plan.store.resources(type_url).keys() - resources.keys()
            changes.append(plan.store.update(type_url, resources, gone))
        return [each for each in changes if each]

    def _of_waypoint(self, plan: Plan) -> tuple[PlannedResource, ...]:
        from ambit.plan.l7 import waypoint

        bound = self.inputs.bound_to(plan.proxy)
        routes = {
            key: msgspec.structs.replace(
                each, hosts=plan.held.of(service_cluster(each.service, each.port), each.hosts)
            )
            for key, each in bound.routes.items()
        }
        bound = msgspec.structs.replace(bound, routes=routes)
        plan.targets = frozenset(targets.of(plan.proxy, bound.services))
        plan.depends_on = waypoint.depends_on(plan.proxy, bound, plan.memo)
        return waypoint.resources(plan.proxy, bound, self.inputs.view, self._settings, plan.memo)

    def _of_gateway(self, plan: Plan) -> tuple[PlannedResource, ...]:
        from ambit.plan.l7 import gateway

        attached = self.inputs.attached_to(plan.proxy)
        tables = {each.name: table_of(each) for each in plan.proxy.listeners}
        routes = {
            name: msgspec.structs.replace(each, hosts=plan.held.of(tables[name], each.hosts))
            for name, each in attached.routes.items()
        }
        attached = msgspec.structs.replace(attached, routes=routes)
        plan.targets = frozenset(targets.of(plan.proxy, ()))
        plan.depends_on = gateway.depends_on(plan.proxy, attached, self.inputs.view)
        return gateway.resources(plan.proxy, attached, self.inputs.view, self._settings, plan.memo)

    def _trusted(self) -> Iterable[PlannedResource]:
        """Roots and revocation lists for Envoy, and what its agent has to know."""
        from ambit.plan import authority
        from ambit.plan.node import node_proxy

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


def _resource(planned: PlannedResource) -> Resource:
    """Whoever reads a proxy's resources gets all of them: its agent keeps what Envoy asks for later."""
    return Resource(name=planned.name, version=planned.version, body=planned.body)
