"""Gateways of our classes as proxies, and what their status says (Istio: `gateway_collection.go`; Gateway API v1.6).

- A class is ours by its `controllerName`. The two that the control plane makes are known without their objects, too.
- A waypoint has one listener or more of protocol HBONE on port 15008; each other listener is refused.
- What it takes: `istio.io/waypoint-for` of the Gateway, else of its class, else services.
- Its address and the name of its Service are ours to choose: `spec.addresses` is refused.
- It is programmed when its Service has an address and one of its pods is ready.
- One of the inline class has no pods and no address: it is programmed when it is accepted, and takes services only.
"""

from collections.abc import Iterable

import msgspec

from ambit.core.identity import Identity
from ambit.core.names import (
    HBONE_PORT,
    INLINE_CLASS,
    INLINE_CONTROLLER,
    WAYPOINT_CLASSES,
    WAYPOINT_CONTROLLER,
    WAYPOINT_FOR_LABEL,
)
from ambit.ingest.gateway.conditions import ACCEPTED, CONFLICTED, PROGRAMMED, RESOLVED, no, version, yes
from ambit.ingest.gateway.edge import SET, EdgeGateway, EdgeSet, is_edge_class
from ambit.ingest.gateway.features import Place, supported
from ambit.ingest.gateway.foreign import Foreign
from ambit.ingest.gateway.listeners import KINDS_REFUSED, Admission, admission_of
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import Listener, Protocol, Proxy, ProxyKind, WaypointFor
from ambit.model.status import (
    Condition,
    GatewayStatus,
    ListenerSetStatus,
    ListenerStatus,
    ObjectStatus,
)
from ambit.objects import gateway

KIND = "Gateway"
_SERVED = frozenset({KINDS_REFUSED, "InvalidCACertificateRef", "InvalidCACertificateKind"})
"""What cannot be resolved of a listener that is accepted, and served nevertheless with what is left."""
_KINDS = {WAYPOINT_CONTROLLER: ProxyKind.WAYPOINT, INLINE_CONTROLLER: ProxyKind.INLINE}


class CompiledGateway(msgspec.Struct, frozen=True):
    """`proxy` is None for one that cannot be had; its conditions say why. Of one that is somebody else's there is
    `foreign` only."""

    proxy: Proxy | None
    admissions: tuple[Admission, ...]
    conditions: tuple[Condition, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()
    foreign: Foreign | None = None

    @property
    def hostname(self) -> str:
        """Of its Service; empty when it cannot be used."""
        if self.foreign is not None:
            return self.foreign.hostname
        return self.proxy.service if self.proxy is not None else ""

    @property
    def takes(self) -> WaypointFor:
        """Of one that can be used."""
        found = self.foreign or self.proxy
        return found.takes if found is not None else WaypointFor.NONE

    @property
    def problem(self) -> str:
        """Why it cannot be used, after its name."""
        return f"cannot be used: {self.foreign.problem}" if self.foreign is not None else "is not accepted"


def waypoint_kind(name: str, given: gateway.GatewayClass | None) -> ProxyKind | None:
    """Which of our waypoints the gateways of a class are, if any; `given` is the class as the cluster has it."""
    if given is None:
        found = INLINE_CONTROLLER if name == INLINE_CLASS else WAYPOINT_CONTROLLER
        controller = found if name in (*WAYPOINT_CLASSES, INLINE_CLASS) else ""
    else:
        controller = given.spec.controller_name
    return _KINDS.get(controller)


def class_status(given: gateway.GatewayClass) -> ObjectStatus | None:
    """With what it supports; None for a class that is not ours."""
    if waypoint_kind(given.metadata.name, given) is not None:
        place = Place.MESH
    elif is_edge_class(given.metadata.name, given):
        place = Place.GATEWAY
    else:
        return None
    return ObjectStatus(version(given.metadata, "GatewayClass"), (yes(ACCEPTED),), supported(place))


def compiled_waypoint(
    given: gateway.Gateway, of_class: gateway.GatewayClass | None, kind: ProxyKind, settings: MeshSettings
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
    if kind is ProxyKind.INLINE and takes in (WaypointFor.WORKLOAD, WaypointFor.ALL):
        text = (
            f"label {WAYPOINT_FOR_LABEL}: requests to services are routed inline, those to workloads are not"
        )
        problem = no(ACCEPTED, "Invalid", text)
    refusal = problem or _refusal(given, kind) or (_no_listener() if not good else None)
    conditions: list[Condition] = [refusal or yes(ACCEPTED)]
    if refusal is None and len(good) < len(listeners):
        conditions = [yes(ACCEPTED, "ListenersNotValid", "some listeners are refused, see theirs")]
    if given.spec.tls is not None and given.spec.tls.backend.client_certificate_ref is not None:
        text = (
            "spec.tls.backend.clientCertificateRef: a waypoint shows servers none but the mesh's certificate"
        )
        conditions.append(no(RESOLVED, "InvalidClientCertificateRef", text))
    proxy = None
    if refusal is None:
        proxy = Proxy(
            key=meta.key,
            kind=kind,
            identity=Identity(settings.trust_domain, meta.namespace, meta.name),
            service=settings.hostname(meta.name, meta.namespace),
            origin=meta.reference(KIND),
            takes=takes,
            listeners=tuple(Listener(each.name, each.port, Protocol.HBONE) for each, _ in good),
        )
    admissions = tuple(admission_of(each) for each, _ in good)
    return CompiledGateway(proxy, admissions, tuple(conditions), tuple(listeners))


def gateway_status(
    given: gateway.Gateway,
    compiled: CompiledGateway | EdgeGateway,
    listeners: Iterable[ListenerStatus],
    addresses: Iterable[str],
    *,
    is_ready: bool,
) -> GatewayStatus:
    """`addresses` are those of its Service, `listeners` what is known of them but whether they are programmed."""
    known = tuple(addresses)
    wanted = given.spec.wanted_addresses
    missing = [each for each in wanted if each not in known]
    if wanted and len(wanted) == len(given.spec.addresses):
        known = tuple(each for each in known if each in wanted)
    if compiled.proxy is None:
        programmed = no(PROGRAMMED, "Invalid", "it is not accepted")
    elif compiled.proxy.parameters.problem:
        text = "its parameters cannot be used: what was made of it before goes on as it is"
        programmed = no(PROGRAMMED, "Invalid", text)
    elif compiled.proxy.kind is ProxyKind.INLINE:
        programmed, known = yes(PROGRAMMED), ()
    elif missing:
        text = f"spec.addresses: {', '.join(missing)} was not given to its Service"
        programmed = no(PROGRAMMED, "AddressNotUsable", text)
    elif not known:
        programmed = no(PROGRAMMED, "AddressNotAssigned", "its Service has no address yet")
    elif not is_ready:
        programmed = no(PROGRAMMED, "Pending", "none of its pods is ready")
    else:
        programmed = yes(PROGRAMMED)
    sets = sum(each.accepted for each in compiled.sets) if isinstance(compiled, EdgeGateway) else 0
    said = _with_programmed(listeners, programmed)
    if (
        programmed.holds
        and said
        and not sets
        and not any(_holds(each.conditions, PROGRAMMED) for each in said)
    ):
        programmed = no(PROGRAMMED, "Invalid", "no listener can be used, see their conditions")
    conditions = (*compiled.conditions, programmed)
    return GatewayStatus(version(given.metadata, KIND), conditions, said, known, sets)


def listener_set_status(
    given: gateway.ListenerSet,
    own: EdgeSet,
    of_gateway: tuple[Condition, ...],
    listeners: Iterable[ListenerStatus],
) -> ListenerSetStatus:
    """`of_gateway` is what its Gateway says of itself; `listeners` is what is known of them but whether they are
    programmed."""
    programmed = next(each for each in of_gateway if each.type == PROGRAMMED)
    if not own.allowed:
        text = f"Gateway {given.gateway} does not allow it: see its spec.allowedListeners"
        conditions = (no(ACCEPTED, "NotAllowed", text), no(PROGRAMMED, "NotAllowed", text))
    elif not _holds(of_gateway, ACCEPTED):
        text = f"Gateway {given.gateway} is not accepted"
        conditions = (no(ACCEPTED, "ParentNotAccepted", text), no(PROGRAMMED, "ParentNotProgrammed", text))
    elif not own.accepted:
        text = "no listener can be used, see their conditions"
        conditions = (no(ACCEPTED, "ListenersNotValid", text), no(PROGRAMMED, "ListenersNotValid", text))
    else:
        whole = all(each.usable for each in own.listeners)
        text = "some listeners cannot be used, see theirs"
        accepted = yes(ACCEPTED) if whole else yes(ACCEPTED, "ListenersNotValid", text)
        pending = no(PROGRAMMED, "Pending", programmed.message)
        conditions = (accepted, programmed if programmed.holds else pending)
    return ListenerSetStatus(
        version(given.metadata, SET), conditions, _with_programmed(listeners, programmed)
    )


def _with_programmed(
    listeners: Iterable[ListenerStatus], of_gateway: Condition
) -> tuple[ListenerStatus, ...]:
    return tuple(
        msgspec.structs.replace(each, conditions=(*each.conditions, _programmed(each, of_gateway)))
        for each in listeners
    )


def _programmed(listener: ListenerStatus, of_gateway: Condition) -> Condition:
    conflict = next((each for each in listener.conditions if each.type == CONFLICTED and each.holds), None)
    if conflict is not None:
        return no(PROGRAMMED, conflict.reason, conflict.message)
    if not _holds(listener.conditions, ACCEPTED):
        return no(PROGRAMMED, "Invalid", "it is not accepted")
    if any(
        each.type == RESOLVED and not each.holds and each.reason not in _SERVED
        for each in listener.conditions
    ):
        return no(PROGRAMMED, "Invalid", "something that it refers to cannot be used")
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


def _refusal(given: gateway.Gateway, kind: ProxyKind) -> Condition | None:
    if kind is ProxyKind.INLINE and given.spec.infrastructure.parameters_ref is not None:
        text = "spec.infrastructure.parametersRef: nothing is made of an inline waypoint"
        return no(ACCEPTED, "InvalidParameters", text)
    if given.spec.addresses:
        return no(ACCEPTED, "UnsupportedAddress", "spec.addresses: a waypoint has the address of its Service")
    return None


def _no_listener() -> Condition:
    text = f"no listener is accepted; a waypoint needs one of protocol HBONE on port {HBONE_PORT}"
    return no(ACCEPTED, "ListenersNotValid", text)


def _holds(conditions: Iterable[Condition], kind: str) -> bool:
    return any(each.type == kind and each.holds for each in conditions)
