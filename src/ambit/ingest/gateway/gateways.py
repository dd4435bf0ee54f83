"""Gateways of our classes as proxies, and what their status says (Istio: `gateway_collection.go`; Gateway API v1.6).

- A class is ours by its `controllerName`. The two that the control plane makes are known without their objects, too.
- A waypoint has one listener or more of protocol HBONE on port 15008; each other listener is refused.
- What it takes: `istio.io/waypoint-for` of the Gateway, else of its class, else services.
- Its address, parameters and name of the Service are ours to choose: `spec.addresses` and `parametersRef` are refused.
- It is programmed when its Service has an address and one of its pods is ready.
"""

from collections.abc import Iterable

import msgspec

from ambit.core.identity import Identity
from ambit.core.names import HBONE_PORT, WAYPOINT_CLASSES, WAYPOINT_CONTROLLER, WAYPOINT_FOR_LABEL
from ambit.core.selector import Selector
from ambit.ingest.gateway.conditions import ACCEPTED, CONFLICTED, PROGRAMMED, RESOLVED, no, version, yes
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import Listener, Protocol, Proxy, ProxyKind, WaypointFor
from ambit.model.status import Condition, GatewayStatus, ListenerStatus, ObjectStatus
from ambit.objects import gateway

KIND = "Gateway"


class Admission(msgspec.Struct, frozen=True):
    """Whom a listener lets in, by namespace."""

    sources: str
    selector: Selector = Selector()

    def admits(self, own: str, namespace: str, labels: dict[str, str]) -> bool:
        """Whether objects of a namespace with these labels may be bound to a gateway of namespace `own`."""
        match self.sources:
            case "All":
                return True
            case "Selector":
                return self.selector.matches(labels)
            case _:
                return own == namespace


class CompiledGateway(msgspec.Struct, frozen=True):
    """`proxy` is None for one that cannot be had; its conditions say why."""

    proxy: Proxy | None
    admissions: tuple[Admission, ...]
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]


def is_waypoint_class(name: str, given: gateway.GatewayClass | None) -> bool:
    """Whether gateways of a class are our waypoints; `given` is the class as the cluster has it."""
    if given is None:
        return name in WAYPOINT_CLASSES
    return given.spec.controller_name == WAYPOINT_CONTROLLER


def class_status(given: gateway.GatewayClass) -> ObjectStatus | None:
    """None for a class that is not ours."""
    if not is_waypoint_class(given.metadata.name, given):
        return None
    return ObjectStatus(version(given.metadata, "GatewayClass"), (yes(ACCEPTED),))


def compiled_waypoint(
    given: gateway.Gateway, of_class: gateway.GatewayClass | None, settings: MeshSettings
) -> CompiledGateway:
    """A Gateway of a waypoint class."""
    meta = given.metadata
    listeners = [_listener(each) for each in given.spec.listeners]
    good = [
        (each, status)
        for each, status in zip(given.spec.listeners, listeners, strict=True)
        if _holds(status.conditions, ACCEPTED)
    ]
    takes, problem = _takes(given, of_class)
    refusal = problem or _refusal(given) or (_no_listener() if not good else None)
    conditions: list[Condition] = [refusal or yes(ACCEPTED)]
    if refusal is None and len(good) < len(listeners):
        conditions = [yes(ACCEPTED, "ListenersNotValid", "some listeners are refused, see theirs")]
    proxy = None
    if refusal is None:
        proxy = Proxy(
            key=meta.key,
            kind=ProxyKind.WAYPOINT,
            identity=Identity(settings.trust_domain, meta.namespace, meta.name),
            service=settings.hostname(meta.name, meta.namespace),
            origin=meta.reference(KIND),
            takes=takes,
            listeners=tuple(Listener(each.name, each.port, Protocol.HBONE) for each, _ in good),
        )
    admissions = tuple(
        Admission(each.allowed_routes.namespaces.sources, each.allowed_routes.namespaces.selector)
        for each, _ in good
    )
    return CompiledGateway(proxy, admissions, tuple(conditions), tuple(listeners))


def gateway_status(
    given: gateway.Gateway, compiled: CompiledGateway, addresses: Iterable[str], *, is_ready: bool
) -> GatewayStatus:
    """`addresses` are those of its Service."""
    known = tuple(addresses)
    if compiled.proxy is None:
        programmed = no(PROGRAMMED, "Invalid", "it is not accepted")
    elif not known:
        programmed = no(PROGRAMMED, "AddressNotAssigned", "its Service has no address yet")
    elif not is_ready:
        programmed = no(PROGRAMMED, "Pending", "none of its pods is ready")
    else:
        programmed = yes(PROGRAMMED)
    listeners = tuple(
        msgspec.structs.replace(each, conditions=(*each.conditions, _programmed(each, programmed)))
        for each in compiled.listeners
    )
    return GatewayStatus(version(given.metadata, KIND), (*compiled.conditions, programmed), listeners, known)


def _programmed(listener: ListenerStatus, of_gateway: Condition) -> Condition:
    if not _holds(listener.conditions, ACCEPTED):
        return no(PROGRAMMED, "Invalid", "it is not accepted")
    return (
        of_gateway
        if of_gateway.reason in (PROGRAMMED, "Invalid")
        else no(PROGRAMMED, "Pending", of_gateway.message)
    )


def _listener(given: gateway.Listener) -> ListenerStatus:
    conflicted = no(CONFLICTED, "NoConflicts", "")
    if given.protocol != Protocol.HBONE.value:
        text = f"a waypoint speaks HBONE, not {given.protocol}"
        refused = no(ACCEPTED, "UnsupportedProtocol", text)
    elif given.port != HBONE_PORT:
        refused = no(
            ACCEPTED, "PortUnavailable", f"a waypoint listens on port {HBONE_PORT}, not {given.port}"
        )
    else:
        return ListenerStatus(given.name, (yes(ACCEPTED), conflicted, yes(RESOLVED)))
    return ListenerStatus(given.name, (refused, conflicted, yes(RESOLVED)))


def _takes(
    given: gateway.Gateway, of_class: gateway.GatewayClass | None
) -> tuple[WaypointFor, Condition | None]:
    on_class = of_class.metadata.labels.get(WAYPOINT_FOR_LABEL, "") if of_class is not None else ""
    text = given.metadata.labels.get(WAYPOINT_FOR_LABEL) or on_class or WaypointFor.SERVICE.value
    try:
        return WaypointFor(text), None
    except ValueError:
        known = ", ".join(each.value for each in WaypointFor)
        problem = no(ACCEPTED, "Invalid", f"label {WAYPOINT_FOR_LABEL}: {text!r} is none of {known}")
        return WaypointFor.NONE, problem


def _refusal(given: gateway.Gateway) -> Condition | None:
    parameters = given.spec.infrastructure.parameters_ref
    if parameters is not None:
        text = f"spec.infrastructure.parametersRef: {parameters.kind} {parameters.name} cannot be used"
        return no(ACCEPTED, "InvalidParameters", text)
    if given.spec.addresses:
        return no(ACCEPTED, "UnsupportedAddress", "spec.addresses: a waypoint has the address of its Service")
    return None


def _no_listener() -> Condition:
    text = f"no listener is accepted; a waypoint needs one of protocol HBONE on port {HBONE_PORT}"
    return no(ACCEPTED, "ListenersNotValid", text)


def _holds(conditions: Iterable[Condition], kind: str) -> bool:
    return any(each.type == kind and each.holds for each in conditions)
