"""What routes refer to: services, by reference, and whether they may.

A route may send requests to services of its own namespace, and to those of others that let it by a ReferenceGrant.
GEP-1426 asks for no grant in a mesh, because there every caller can reach every service. Here it is a waypoint that
calls, with its own identity: a route of another namespace must not make use of what that may. The parent itself needs
no grant.
"""

from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

from ambit.ingest.gateway import consumers
from ambit.ingest.settings import MeshSettings
from ambit.model.service import Service
from ambit.objects.gateway import GROUP, ReferenceGrant
from ambit.objects.routes import BackendObject

_UDP_ROUTE = "UDPRoute"
"""Its backends are other ports than those of all other kinds: those of UDP, which services of Kubernetes alone have."""
Reason = Literal["BackendNotFound", "InvalidKind", "RefNotPermitted"]


class Unresolved(msgspec.Struct, frozen=True):
    """Why a reference leads nowhere, as `ResolvedRefs` says it."""

    reason: Reason
    text: str


class Known(Protocol):
    """What there is to refer to."""

    def service(self, key: str) -> Service | None:
        """By `<namespace>/<hostname>`."""

    def has_datagrams(self, key: str, port: int) -> bool:
        """Whether a service has this port of UDP."""

    def hosts(self, hostname: str) -> list[Service]:
        """Services of all namespaces with this hostname."""

    def grants(self, namespace: str) -> list[ReferenceGrant]:
        """The grants of a namespace."""


class Referrer(msgspec.Struct, frozen=True):
    """The route that refers, for one of its parents: a service, or None for a gateway."""

    kind: str
    namespace: str
    parent: Service | None = None

    @property
    def is_consumer(self) -> bool:
        """Whether the route changes only what its own namespace sends (GEP-1426, "Namespace boundaries")."""
        return bool(self.consumer)

    @property
    def consumer(self) -> str:
        """The namespace whose requests alone the route concerns, or empty."""
        return consumers.consumer(self.namespace, self.parent)


def resolve(
    given: BackendObject, referrer: Referrer, known: Known, settings: MeshSettings
) -> tuple[str, int] | Unresolved:
    """Key of the service and port that a reference names."""
    match (given.group, given.kind):
        case ("", "Service"):
            return _service(given, referrer, known, settings)
        case ("networking.istio.io", "Hostname") if referrer.kind != _UDP_ROUTE:
            return _hostname(given, referrer, known)
        case _:
            kind = f"{given.kind}.{given.group}" if given.group else given.kind
            return Unresolved("InvalidKind", f"{kind} {given.name} is no kind that requests can be sent to")


def is_granted(grants: Iterable[ReferenceGrant], referrer: Referrer, given: BackendObject) -> bool:
    """Whether a grant in the service's namespace lets the route refer to it (Gateway API `ReferenceGrantSpec`)."""
    return is_granted_to(grants, referrer.kind, referrer.namespace, given.group, given.kind, given.name)


def is_granted_to(
    grants: Iterable[ReferenceGrant],
    by_kind: str,
    by_namespace: str,
    group: str,
    kind: str,
    name: str,
    by_group: str = GROUP,
) -> bool:
    """Whether one of these grants lets objects of this kind and namespace, of the Gateway API or `by_group`, refer to
    an object."""
    return any(
        any(
            (source.group, source.kind, source.namespace) == (by_group, by_kind, by_namespace)
            for source in grant.spec.sources
        )
        and any((to.group, to.kind) == (group, kind) and to.name in ("", name) for to in grant.spec.to)
        for grant in grants
    )


def _service(
    given: BackendObject, referrer: Referrer, known: Known, settings: MeshSettings
) -> tuple[str, int] | Unresolved:
    namespace = given.namespace or referrer.namespace
    key = f"{namespace}/{settings.hostname(given.name, namespace)}"
    named = f"Service {namespace}/{given.name}"
    is_free = namespace == referrer.namespace or (referrer.parent is not None and key == referrer.parent.key)
    # Before anything is said of what is there: that is the other namespace's to tell.
    if not is_free and not is_granted(known.grants(namespace), referrer, given):
        source = f"{referrer.kind} of namespace {referrer.namespace}"
        text = f"{named} needs a ReferenceGrant in its namespace for {source}"
        return Unresolved("RefNotPermitted", text)
    service = known.service(key)
    if service is None:
        return Unresolved("BackendNotFound", f"{named} does not exist, or is an ExternalName")
    if referrer.kind == _UDP_ROUTE:
        if given.port and known.has_datagrams(key, given.port):
            return key, given.port
        return Unresolved("BackendNotFound", f"{named} has no port {given.port} of UDP")
    return _with_port(service, given, named)


def _hostname(given: BackendObject, referrer: Referrer, known: Known) -> tuple[str, int] | Unresolved:
    """A host of a ServiceEntry: of the route's namespace, else one that is shown to it. A consumer's route gets its own
    namespace's only, since another's waypoint calls."""
    found = [
        each
        for each in known.hosts(given.name.lower())
        if not each.is_kubernetes
        and each.is_visible_to(referrer.namespace)
        and (each.namespace == referrer.namespace or not referrer.is_consumer)
    ]
    if not found:
        return Unresolved(
            "BackendNotFound", f"no ServiceEntry of namespace {referrer.namespace} has {given.name}"
        )
    best = min(found, key=lambda each: (each.namespace != referrer.namespace, not each.canonical, each.key))
    return _with_port(best, given, f"host {given.name}")


def _with_port(service: Service, given: BackendObject, named: str) -> tuple[str, int] | Unresolved:
    if not given.port:
        return Unresolved("BackendNotFound", f"{named} is named without a port")
    if all(port.service != given.port for port in service.ports):
        return Unresolved("BackendNotFound", f"{named} has no port {given.port}")
    return service.key, given.port
