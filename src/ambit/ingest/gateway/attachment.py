"""Routes whose parent is a service (GEP-1426): on which services and ports, with which rules.

- A Service as parent must have addresses of its own; a ServiceEntry as parent means each of its hosts.
- `port`, or `sectionName` as the name of a port, chooses one port; without them it is all.
- `hostnames` mean nothing here: what counts is the service that was called.
- A service without a waypoint has nobody who would apply a route: the route is not accepted.
- On a port with routes of several kinds GRPCRoutes count and HTTPRoutes do not.
- A waypoint's Gateway as parent takes no routes; a parent that is not ours has nothing of ours in its status.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from ambit.ingest.gateway.conditions import ACCEPTED, PARTIALLY_INVALID, RESOLVED, no, version, yes
from ambit.ingest.gateway.references import Known, Referrer
from ambit.ingest.gateway.rules import RankedEntry, Route, Rules, kind_of, rules_of
from ambit.ingest.settings import MeshSettings
from ambit.model.service import Service
from ambit.model.status import Condition, Parent, ParentStatus, RouteStatus
from ambit.objects.gateway import GROUP
from ambit.objects.routes import ParentRef

NO_WAYPOINT = "NoWaypoint"
"""Our own reason of `Accepted`."""


class Frontend(msgspec.Struct, frozen=True):
    """A service as a parent: the ports that carry names, and whether a waypoint takes what is sent to it."""

    service: Service
    port_names: dict[str, int] = {}
    is_headless: bool = False


class Parents(Protocol):
    """What there is to attach to."""

    def of_service(self, namespace: str, name: str) -> Frontend | None:
        """A Kubernetes Service."""

    def of_entry(self, namespace: str, name: str) -> list[Frontend]:
        """The hosts of a ServiceEntry."""

    def is_waypoint(self, namespace: str, name: str) -> bool:
        """Whether a Gateway is a waypoint of ours."""

    def has_grpc(self, service: str, port: int) -> bool:
        """Whether a GRPCRoute has been attached to this port."""


class Attachment(msgspec.Struct, frozen=True):
    """Rules on ports of a service. `consumer` is the namespace whose requests alone they concern, or empty."""

    service: str
    ports: tuple[int, ...]
    entries: tuple[RankedEntry, ...]
    consumer: str = ""


class CompiledRoute(msgspec.Struct, frozen=True):
    """`age` sorts routes whose entries are of one rank."""

    age: tuple[str, str, str]
    attachments: tuple[Attachment, ...]
    status: RouteStatus


def attach(route: Route, parents: Parents, known: Known, settings: MeshSettings) -> CompiledRoute:
    """A route on all its parents that are ours."""
    meta = route.metadata
    attachments: list[Attachment] = []
    statuses: list[ParentStatus] = []
    for reference in dict.fromkeys(route.spec.parent_refs):
        outcome = _attached(route, reference, parents, known, settings)
        if outcome is not None:
            found, conditions = outcome
            attachments += found
            statuses.append(ParentStatus(_parent(reference), conditions))
    status = RouteStatus(version(meta, kind_of(route)), tuple(statuses))
    return CompiledRoute(meta.age, tuple(attachments), status)


_Outcome = tuple[list[Attachment], tuple[Condition, ...]]


def _attached(
    route: Route, reference: ParentRef, parents: Parents, known: Known, settings: MeshSettings
) -> _Outcome | None:
    """None for a parent that is not ours."""
    namespace = reference.namespace or route.metadata.namespace
    name = f"{namespace}/{reference.name}"
    match (reference.group, reference.kind):
        case ("", "Service"):
            frontend = parents.of_service(namespace, reference.name)
            frontends = [frontend] if frontend is not None else []
        case ("networking.istio.io", "ServiceEntry"):
            frontends = parents.of_entry(namespace, reference.name)
        case (group, "Gateway") if group == GROUP and parents.is_waypoint(namespace, reference.name):
            text = f"Gateway {name} is a waypoint: name the Service as parent, not its waypoint"
            return _refused("NotAllowedByListeners", text)
        case _:
            return None
    if not frontends:
        return _refused("NoMatchingParent", f"{reference.kind} {name} does not exist")
    return _on_services(route, reference, frontends, parents, known, settings)


def _refused(reason: str, text: str) -> _Outcome:
    return [], (no(ACCEPTED, reason, text), yes(RESOLVED))


def _on_services(
    route: Route,
    reference: ParentRef,
    frontends: Iterable[Frontend],
    parents: Parents,
    known: Known,
    settings: MeshSettings,
) -> _Outcome:
    """On all hosts of one parent; the first that refuses speaks for it."""
    attachments: list[Attachment] = []
    conditions: tuple[Condition, ...] = ()
    for frontend in frontends:
        service = frontend.service
        referrer = Referrer(kind_of(route), route.metadata.namespace, service)
        if not service.is_visible_to(referrer.namespace):
            return _refused("NoMatchingParent", f"{reference.kind} {reference.name} does not exist")
        ports, problem = _ports(frontend, reference)
        if problem is not None:
            return [], (problem, yes(RESOLVED))
        if kind_of(route) != "GRPCRoute":
            taken = tuple(port for port in ports if parents.has_grpc(service.key, port))
            ports = tuple(port for port in ports if port not in taken)
            if not ports:
                return _refused("Conflicted", f"a GRPCRoute has port {', '.join(map(str, taken))} already")
        rules = rules_of(route, referrer, known, settings)
        conditions = _conditions(rules, len(route.spec.rules))
        if conditions[0].holds:
            consumer = referrer.namespace if referrer.is_consumer else ""
            attachments.append(Attachment(service.key, ports, rules.entries, consumer))
    return attachments, conditions


def _ports(frontend: Frontend, reference: ParentRef) -> tuple[tuple[int, ...], Condition | None]:
    """The ports that a reference means, or why it means none."""
    service = frontend.service
    named = f"{reference.kind} {service.namespace}/{reference.name}"
    if frontend.is_headless:
        text = f"{named} has no address, so nobody's requests are known to be for it"
        return (), no(ACCEPTED, "UnsupportedValue", text)
    ports = tuple(port.service for port in service.ports)
    if reference.section_name:
        ports = tuple(each for each in ports if each == frontend.port_names.get(reference.section_name))
    if reference.port:
        ports = tuple(each for each in ports if each == reference.port)
    if not ports:
        return (), no(ACCEPTED, "NoMatchingParent", f"{named} has no such port")
    if service.waypoint is None:
        text = f"{named} has no waypoint, which would apply it: give it the label istio.io/use-waypoint"
        return (), no(ACCEPTED, NO_WAYPOINT, text)
    return ports, None


def _conditions(rules: Rules, count: int) -> tuple[Condition, ...]:
    """`Accepted` first."""
    found: list[Condition] = []
    text = "; ".join(rules.refused)
    if rules.refused and not rules.valid:
        found.append(no(ACCEPTED, "UnsupportedValue", text))
    else:
        found.append(yes(ACCEPTED))
    if rules.unresolved:
        first = rules.unresolved[0]
        found.append(no(RESOLVED, first.reason, "; ".join(each.text for each in rules.unresolved)))
    else:
        found.append(yes(RESOLVED))
    if rules.refused and rules.valid:
        message = f"Dropped Rule: {count - rules.valid} of {count} are not as written: {text}"
        found.append(yes(PARTIALLY_INVALID, "UnsupportedValue", message))
    return tuple(found)


def _parent(given: ParentRef) -> Parent:
    return Parent(given.group, given.kind, given.name, given.namespace, given.section_name, given.port)
