"""Routes on their parents: services (GEP-1426), on which ports; Gateways at the edge, on which listeners.

- A Service as parent must have addresses of its own; a ServiceEntry as parent means each of its hosts.
- `port`, or `sectionName` as the name of a port, chooses one port; without them it is all.
- `hostnames` mean nothing here: what counts is the service that was called.
- A service without a waypoint has nobody who would apply a route: the route is not accepted. One whose waypoint is
  somebody else's is no parent of ours.
- On a port with routes of several kinds one kind counts: GRPCRoute, else HTTPRoute, TLSRoute, TCPRoute (GEP-1426).
- TLSRoutes and TCPRoutes are for ports that are not said to speak HTTP, and for callers of all namespaces.
- Routes of another namespace than their Service's: `ambit.ingest.gateway.consumers`.
- The mesh carries no UDP, so a UDPRoute has no Service as parent.
- A waypoint's Gateway as parent takes no routes; a parent that is not ours has nothing of ours in its status.
- Gateways at the edge: `ambit.ingest.gateway.gateway_parents`.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

from ambit.core.names import GATEWAY_CONTROLLER, WAYPOINT_CONTROLLER
from ambit.ingest.gateway import consumers
from ambit.ingest.gateway.conditions import ACCEPTED, PARTIALLY_INVALID, RESOLVED, no, version, yes
from ambit.ingest.gateway.edge import SET, Front
from ambit.ingest.gateway.gateway_parents import Guest, choose
from ambit.ingest.gateway.references import Known, Referrer
from ambit.ingest.gateway.rules import RankedEntry, Rules, rules_of
from ambit.ingest.gateway.streams import StreamRoute, stream_rules
from ambit.ingest.settings import MeshSettings
from ambit.model.service import HTTP, Service
from ambit.model.status import Condition, Parent, ParentStatus, RouteStatus
from ambit.model.streams import Stream
from ambit.objects.gateway import GROUP
from ambit.objects.routes import GRPCRoute, HTTPRoute, ParentRef
from ambit.objects.stream_routes import TCPRoute, TLSRoute, UDPRoute

Route = HTTPRoute | GRPCRoute | StreamRoute
KINDS: tuple[type[Route], ...] = (GRPCRoute, HTTPRoute, TLSRoute, TCPRoute, UDPRoute)
"""In the order in which they go before each other on a port."""
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

    def is_foreign(self, service: Service) -> bool:
        """Whether the service's waypoint is somebody else's."""

    def is_inline(self, service: Service) -> bool:
        """Whether the service's waypoint has no pods."""

    def taken(self, kind: str, service: str, port: int, consumer: str) -> str:
        """The kind of a route on this port that goes before routes of `kind`; empty when there is none. What a
        namespace says for its own requests (`consumer`) goes before nobody else's."""

    def edge(self, namespace: str, name: str) -> Front | None:
        """A Gateway of ours at the edge."""

    def edge_of_set(self, namespace: str, name: str) -> Front | None:
        """A ListenerSet at a Gateway of ours at the edge."""

    def labels(self, namespace: str) -> dict[str, str]:
        """A namespace's labels."""


class Attachment(msgspec.Struct, frozen=True):
    """Rules on ports of a service, for the `parent` that the route names. `consumer` is the namespace whose requests
    alone they concern, or empty."""

    service: str
    ports: tuple[int, ...]
    entries: tuple[RankedEntry, ...]
    parent: Parent
    consumer: str = ""
    streams: tuple[Stream, ...] = ()


class ListenerAttachment(msgspec.Struct, frozen=True):
    """Rules of a route of this kind on a listener of a gateway (by its key), for these host names."""

    kind: str
    gateway: str
    listener: str
    hostnames: tuple[str, ...]
    entries: tuple[RankedEntry, ...]
    streams: tuple[Stream, ...] = ()


class CompiledRoute(msgspec.Struct, frozen=True):
    """`age` sorts routes whose entries are of one rank."""

    age: tuple[str, str, str]
    attachments: tuple[Attachment, ...]
    status: RouteStatus
    listeners: tuple[ListenerAttachment, ...] = ()


def kind_of(route: Route) -> str:
    return type(route).__name__


def rules_for(route: Route, referrer: Referrer, known: Known, settings: MeshSettings) -> Rules:
    """The rules of a route of any kind."""
    if isinstance(route, HTTPRoute | GRPCRoute):
        return rules_of(route, referrer, known, settings)
    return stream_rules(route, referrer, known, settings)


def attach(route: Route, parents: Parents, known: Known, settings: MeshSettings) -> CompiledRoute:
    """A route on all its parents that are ours."""
    meta = route.metadata
    attachments: list[Attachment] = []
    listeners: list[ListenerAttachment] = []
    statuses: list[ParentStatus] = []
    for reference in dict.fromkeys(route.spec.parent_refs):
        front = _edge(route, reference, parents)
        if front is not None:
            on_listeners, conditions = _on_gateway(route, reference, front, parents, known, settings)
            listeners += on_listeners
            statuses.append(ParentStatus(_parent(reference), conditions, GATEWAY_CONTROLLER))
            continue
        outcome = _attached(route, reference, parents, known, settings)
        if outcome is not None:
            found, conditions = outcome
            if not conditions[0].holds:
                conditions = (conditions[0], _resolved(route, known, settings))
            attachments += found
            statuses.append(ParentStatus(_parent(reference), conditions, WAYPOINT_CONTROLLER))
    status = RouteStatus(version(meta, kind_of(route)), tuple(statuses))
    return CompiledRoute(meta.age, tuple(attachments), status, tuple(listeners))


def _resolved(route: Route, known: Known, settings: MeshSettings) -> Condition:
    """Whether the references of a route lead somewhere, whatever its parent says."""
    rules = rules_for(route, Referrer(kind_of(route), route.metadata.namespace), known, settings)
    return _conditions(rules, len(route.spec.rules))[1]


def _edge(route: Route, reference: ParentRef, parents: Parents) -> Front | None:
    """The Gateway at the edge that a reference names, or the ListenerSet of one."""
    namespace = reference.namespace or route.metadata.namespace
    match (reference.group, reference.kind):
        case (group, "Gateway") if group == GROUP:
            return parents.edge(namespace, reference.name)
        case (group, kind) if group == GROUP and kind == SET:
            return parents.edge_of_set(namespace, reference.name)
        case _:
            return None


def _on_gateway(
    route: Route,
    reference: ParentRef,
    front: Front,
    parents: Parents,
    known: Known,
    settings: MeshSettings,
) -> tuple[list[ListenerAttachment], tuple[Condition, ...]]:
    namespace = reference.namespace or route.metadata.namespace
    hostnames = () if isinstance(route, TCPRoute | UDPRoute) else route.spec.hostnames
    guest = Guest(kind_of(route), route.metadata.namespace, hostnames)
    rules = rules_for(route, Referrer(guest.kind, guest.namespace), known, settings)
    conditions = _conditions(rules, len(route.spec.rules))
    chosen = choose(front, reference, namespace, guest, parents.labels)
    if isinstance(chosen, Condition):
        return [], (chosen, *conditions[1:])
    if not conditions[0].holds:
        return [], conditions
    attached = [
        ListenerAttachment(
            guest.kind,
            front.gateway,
            each.listener.id,
            each.hostnames,
            rules.entries,
            streams=rules.streams,
        )
        for each in chosen
    ]
    return attached, conditions


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
    if all(parents.is_foreign(each.service) for each in frontends):
        return None  # who has the waypoint has its routes, and says so
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
        if refusal := _no_stream(route, referrer, service, ports):
            return _refused("UnsupportedValue", refusal)
        if not isinstance(route, HTTPRoute | GRPCRoute) and parents.is_inline(service):
            text = f"the waypoint of {reference.name} is inline, which is for requests: use one with pods"
            return _refused("UnsupportedValue", text)
        consumer = referrer.consumer
        ports, refusal = _speaking(route, ports, service, consumer)
        if refusal:
            return _refused("UnsupportedValue", refusal)
        taken = {
            port: kind
            for port in ports
            if (kind := parents.taken(kind_of(route), service.key, port, consumer))
        }
        ports = tuple(port for port in ports if port not in taken)
        if not ports:
            text = ", ".join(f"a {kind} has port {port} already" for port, kind in taken.items())
            return _refused("Conflicted", text)
        rules = rules_for(route, referrer, known, settings)
        if consumer:
            actions = (each.entry.action for each in rules.entries)
            ports, refusal = consumers.called_alone(actions, ports, service)
            if refusal:
                return _refused("UnsupportedValue", refusal)
        conditions = _conditions(rules, len(route.spec.rules))
        if conditions[0].holds:
            parent, entries = _parent(reference), rules.entries
            if consumer:
                entries = tuple(_from_namespace(each, consumer) for each in entries)
            attachments.append(Attachment(service.key, ports, entries, parent, consumer, rules.streams))
    return attachments, conditions


def _from_namespace(ranked: RankedEntry, namespace: str) -> RankedEntry:
    """The entry for requests from this namespace alone."""
    match = msgspec.structs.replace(ranked.entry.match, source_namespaces=(namespace,))
    return msgspec.structs.replace(ranked, entry=msgspec.structs.replace(ranked.entry, match=match))


def _speaking(
    route: Route, ports: tuple[int, ...], service: Service, consumer: str
) -> tuple[tuple[int, ...], str]:
    """The ports that a route can be for by what they speak, and why it is for none."""
    if not isinstance(route, HTTPRoute | GRPCRoute):
        return tuple(port for port in ports if service.app_protocols.get(port) not in HTTP), ""
    return consumers.speaking(ports, service) if consumer else (ports, "")


def _no_stream(route: Route, referrer: Referrer, service: Service, ports: Iterable[int]) -> str:
    """Why a route of bytes is none for these ports of a service; empty when it is, and for routes of requests."""
    if isinstance(route, HTTPRoute | GRPCRoute):
        return ""
    kind = kind_of(route)
    if isinstance(route, UDPRoute):
        return "the mesh carries no UDP: a UDPRoute needs a Gateway as parent"
    if referrer.is_consumer:
        return consumers.no_bytes(kind, service)
    protocols = service.app_protocols
    if all(protocols.get(port) in HTTP for port in ports):
        return (
            f"port {', '.join(map(str, ports))} speaks HTTP, which a {kind} would not read: use an HTTPRoute"
        )
    return ""


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
        some = f"{count - rules.valid} of {count} are not as written" if count > rules.valid else "in part"
        message = f"Dropped Rule: {some}: {text}"
        found.append(yes(PARTIALLY_INVALID, "UnsupportedValue", message))
    return tuple(found)


def _parent(given: ParentRef) -> Parent:
    return Parent(given.group, given.kind, given.name, given.namespace, given.section_name, given.port)
