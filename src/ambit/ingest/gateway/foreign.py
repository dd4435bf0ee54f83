"""Waypoints that are somebody else's: Gateways of classes that are not ours (Istio: `ambient/waypoints.go`).

- The annotation `ambient.istio.io/waypoint-inbound-binding` of the Gateway, else of its class, has the node of its pods
  end tunnels and hand on what is in them: `PROXY/15088` to that port, with the PROXY protocol in front of the bytes;
  `NONE/15088` without; without a port to the one that was asked for.
- One without it that has a listener of protocol HBONE on 15008 ends tunnels itself. Every other Gateway is no waypoint.
- Its pods and its Service carry the label `gateway.networking.k8s.io/gateway-name` (GEP-1762); it acts as the service
  accounts of its pods. Of several Services the one with the Gateway's name counts, else the first by name.
- It takes what `istio.io/waypoint-for` says, from namespaces that `allowedRoutes` of the listener lets in; without such
  a listener from its own.
- Nothing is made of it, and nothing is written to its status.
- Nobody here knows whether it enforces policies for requests. Unless `ambit.io/enforces-policies: "true"` says so, what
  they protect is closed (`ambit.ingest.waypoints.unenforced`).
"""

from collections.abc import Iterable

import msgspec

from ambit.core.identity import Identity
from ambit.core.names import (
    ENFORCES_ANNOTATION,
    HBONE_PORT,
    INBOUND_BINDING_ANNOTATION,
    RESERVED_PORTS,
    WAYPOINT_FOR_LABEL,
)
from ambit.ingest.gateway.listeners import Admission, admission_of
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import Protocol, WaypointFor
from ambit.model.workload import ApplicationTunnel, TunnelledAs
from ambit.objects import gateway, kube

_OWN_NAMESPACE = Admission("Same")


class Foreign(msgspec.Struct, frozen=True):
    """A waypoint by the key of its Gateway. `hostname` is its Service's; with a `problem` it cannot be used."""

    key: str
    of_class: str
    hostname: str = ""
    takes: WaypointFor = WaypointFor.NONE
    tunnel: ApplicationTunnel | None = None
    callers: tuple[str, ...] = ()
    """Principals that it acts as."""
    enforces: bool = False
    admissions: tuple[Admission, ...] = ()
    problem: str = ""


def foreign_waypoint(
    given: gateway.Gateway,
    of_class: gateway.GatewayClass | None,
    services: Iterable[kube.Service],
    pods: Iterable[kube.Pod],
    settings: MeshSettings,
) -> Foreign | None:
    """A Gateway of a class that is not ours, with what carries its label; None for one that is no waypoint."""
    meta = given.metadata
    binding = _annotation(INBOUND_BINDING_ANNOTATION, given, of_class)
    if not binding and not _listeners(given, None):
        return None
    named = Foreign(meta.key, given.spec.gateway_class_name)
    try:
        tunnel = _tunnel(binding) if binding else None
        takes = _takes(given, of_class)
    except ValueError as problem:
        return msgspec.structs.replace(named, problem=str(problem))
    service = min(
        services, key=lambda each: (each.metadata.name != meta.name, each.metadata.name), default=None
    )
    if service is None:
        text = f"no Service carries its label gateway.networking.k8s.io/gateway-name={meta.name}"
        return msgspec.structs.replace(named, problem=text, tunnel=tunnel)
    accounts = sorted({each.service_account for each in pods if not each.finished})
    return msgspec.structs.replace(
        named,
        hostname=settings.hostname(service.metadata.name, meta.namespace),
        takes=takes,
        tunnel=tunnel,
        callers=tuple(Identity(settings.trust_domain, meta.namespace, each).principal for each in accounts),
        enforces=says_that_it_enforces(given, of_class),
        admissions=tuple(map(admission_of, _listeners(given, tunnel))) or (_OWN_NAMESPACE,),
    )


def says_that_it_enforces(*objects: gateway.Gateway | gateway.GatewayClass | None) -> bool:
    """Whether policies for requests are somebody else's: the first of the objects that says so counts."""
    return _annotation(ENFORCES_ANNOTATION, *objects) == "true"


def _annotation(name: str, *objects: gateway.Gateway | gateway.GatewayClass | None) -> str:
    """Of the first object that has it."""
    said = (each.metadata.annotations.get(name) for each in objects if each is not None)
    return next((each for each in said if each), "")


def _tunnel(text: str) -> ApplicationTunnel:
    """Raises ValueError."""
    word, _, number = text.partition("/")
    is_number = number.isascii() and number.isdigit() and len(number) < 6 and 0 < int(number) < 1 << 16
    if word not in TunnelledAs.__members__ or ("/" in text and not is_number):
        raise ValueError(
            f"annotation {INBOUND_BINDING_ANNOTATION}: {text!r} is neither PROXY/PORT nor NONE/PORT"
        )
    if is_number and int(number) in RESERVED_PORTS:
        raise ValueError(f"annotation {INBOUND_BINDING_ANNOTATION}: {text!r} has a port of the mesh's own")
    return ApplicationTunnel(TunnelledAs[word], int(number or 0))


def _takes(given: gateway.Gateway, of_class: gateway.GatewayClass | None) -> WaypointFor:
    """Raises ValueError."""
    on_class = of_class.metadata.labels.get(WAYPOINT_FOR_LABEL, "") if of_class is not None else ""
    text = given.metadata.labels.get(WAYPOINT_FOR_LABEL) or on_class or WaypointFor.SERVICE.value
    try:
        return WaypointFor(text)
    except ValueError:
        known = ", ".join(each.value for each in WaypointFor)
        raise ValueError(f"label {WAYPOINT_FOR_LABEL}: {text!r} is none of {known}") from None


def _listeners(given: gateway.Gateway, tunnel: ApplicationTunnel | None) -> list[gateway.Listener]:
    """Those that what is for a waypoint comes to."""
    bound = tunnel.port if tunnel is not None else 0
    return [
        each
        for each in given.spec.listeners
        if (each.protocol, each.port) == (Protocol.HBONE.value, HBONE_PORT) or (bound and each.port == bound)
    ]
