"""Which waypoint takes the traffic of an object (Istio: `ambient/waypoints.go`).

1. The label `istio.io/use-waypoint` of the object counts, else that of its namespace; `none` stops. Beside it
   `istio.io/use-waypoint-namespace` names another namespace.
2. What a waypoint does not take (`istio.io/waypoint-for`) is not bound to it: said for a label of the object's own,
   a matter of course for a namespace's.
3. A waypoint that does not exist, or lets nobody of this namespace in, is named nevertheless: nobody is sent past a
   waypoint that was asked for. Istio sends them past it.
4. What belongs to a waypoint or an east-west gateway has none; a Service or pod that is of the very waypoint that it
   asks for neither.
5. A ServiceEntry that the mesh's settings confine to its namespace has no waypoint of another one: connections are
   refused. Istio sends them past it.
6. The label `ambit.io/fail-open: "true"` of the object, else of its namespace, is the written exception: connections go
   past a waypoint that cannot be had, or of which no pod is ready.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

import msgspec

from ambit.core.names import (
    FAIL_OPEN_LABEL,
    GATEWAY_NAME_LABEL,
    HBONE_PORT,
    MANAGED_EAST_WEST,
    MANAGED_LABEL,
    MANAGED_WAYPOINT,
    UNUSABLE_WAYPOINT,
    USE_WAYPOINT_LABEL,
    USE_WAYPOINT_NAMESPACE_LABEL,
    WAYPOINT_NONE,
)
from ambit.ingest.gateway.conditions import WAYPOINT_BOUND, no, yes
from ambit.ingest.gateway.gateways import CompiledGateway
from ambit.ingest.settings import MeshSettings
from ambit.model.proxy import WaypointFor
from ambit.model.status import Condition
from ambit.model.workload import GatewayAddress


class Traffic(Enum):
    """How callers address an object; the value is what of waypoints takes that."""

    SERVICE = frozenset({WaypointFor.SERVICE, WaypointFor.ALL})
    WORKLOAD = frozenset({WaypointFor.WORKLOAD, WaypointFor.ALL})


class Wish(msgspec.Struct, frozen=True):
    """A waypoint that labels ask for. `is_own`: the object's own label, not its namespace's."""

    namespace: str
    name: str
    is_own: bool = True

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Binding(msgspec.Struct, frozen=True):
    """`condition` is None when nothing is to be said."""

    waypoint: GatewayAddress | None = None
    condition: Condition | None = None


class Namespaces(Protocol):
    """What namespaces say, and which waypoints there are."""

    def wish(self, namespace: str) -> Wish | None:
        """What a namespace asks for, for objects that ask for nothing."""

    def lets_past(self, namespace: str) -> bool:
        """Whether a namespace lets connections past waypoints that cannot be used."""

    def labels(self, namespace: str) -> dict[str, str]:
        """A namespace's labels."""

    def waypoint(self, key: str) -> CompiledGateway | None:
        """A waypoint by `<namespace>/<name>`."""

    def is_ready(self, key: str) -> bool:
        """Whether a pod of a waypoint is."""


def wish(labels: Mapping[str, str], namespace: str, *, is_own: bool = True) -> Wish | None:
    """What the labels of an object of a namespace ask for; of a Namespace itself the same, not as its own."""
    name = labels.get(USE_WAYPOINT_LABEL, "")
    if not name:
        return None
    if name == WAYPOINT_NONE:
        return Wish("", WAYPOINT_NONE, is_own)
    return Wish(labels.get(USE_WAYPOINT_NAMESPACE_LABEL) or namespace, name, is_own)


def bind(
    labels: Mapping[str, str],
    namespace: str,
    traffic: Traffic,
    known: Namespaces,
    settings: MeshSettings,
    *,
    confined: bool = False,
) -> Binding:
    """The waypoint of an object with these labels; `confined`: only one of its own namespace."""
    found = _bound(labels, namespace, traffic, known, settings, confined=confined)
    if found.waypoint is None or not lets_past(labels, known.lets_past(namespace)):
        return found
    wanted = wish(labels, namespace) or known.wish(namespace)
    assert wanted is not None, "what is bound asked for it"
    if found.condition is not None and found.condition.holds and known.is_ready(wanted.key):
        return found
    text = f"waypoint {wanted.key} cannot be used: connections go past it, as {FAIL_OPEN_LABEL} says"
    return Binding(None, no(WAYPOINT_BOUND, "WaypointNotReady", text))


def lets_past(labels: Mapping[str, str], of_namespace: bool = False) -> bool:
    """Whether labels of an object, else of its namespace, let connections past a waypoint that cannot be used."""
    own = labels.get(FAIL_OPEN_LABEL)
    return own == "true" if own else of_namespace


def _bound(
    labels: Mapping[str, str],
    namespace: str,
    traffic: Traffic,
    known: Namespaces,
    settings: MeshSettings,
    *,
    confined: bool,
) -> Binding:
    if labels.get(MANAGED_LABEL) in (MANAGED_WAYPOINT, MANAGED_EAST_WEST):
        return Binding()
    wanted = wish(labels, namespace) or known.wish(namespace)
    if wanted is None or wanted.name == WAYPOINT_NONE:
        return Binding()
    if wanted.key == f"{namespace}/{labels.get(GATEWAY_NAME_LABEL)}":
        return Binding()
    found = known.waypoint(wanted.key)
    takes = _takes(found, wanted)
    if takes not in traffic.value:
        if not wanted.is_own:
            return Binding()
        text = f"waypoint {wanted.key} takes traffic of kind {takes.value}, not of {traffic.name.lower()}s"
        return Binding(None, no(WAYPOINT_BOUND, "UnsupportedTrafficType", text))
    hostname = settings.hostname(wanted.name, wanted.namespace)
    refused = f"{wanted.name}.{wanted.namespace}.{UNUSABLE_WAYPOINT}"
    if confined and wanted.namespace != namespace:
        text = f"waypoint {wanted.key} is not in {namespace}, which alone sees the hosts: connections are refused"
        condition = no(WAYPOINT_BOUND, "CrossNamespaceWaypointForbidden", text)
        return Binding(_address(wanted, refused), condition)
    if found is None or not found.hostname:
        why = "does not exist" if found is None else found.problem
        condition = no(
            WAYPOINT_BOUND, "WaypointMissing", f"waypoint {wanted.key} {why}: connections are refused"
        )
        is_foreign = found is not None and found.foreign is not None
        return Binding(_address(wanted, refused if is_foreign else hostname), condition)
    if not _admitted(found, wanted, namespace, known):
        text = f"waypoint {wanted.key} lets nobody of namespace {namespace} in: connections are refused"
        return Binding(_address(wanted, refused), no(WAYPOINT_BOUND, "AttachmentDenied", text))
    text = f"bound to waypoint {wanted.key}"
    return Binding(_address(wanted, found.hostname), yes(WAYPOINT_BOUND, "WaypointAccepted", text))


def _takes(found: CompiledGateway | None, wanted: Wish) -> WaypointFor:
    """One that does not exist takes what asks for it by itself, and of a namespace what waypoints usually take."""
    if found is not None and found.hostname:
        return found.takes
    return WaypointFor.ALL if wanted.is_own else WaypointFor.SERVICE


def _address(wanted: Wish, hostname: str) -> GatewayAddress:
    return GatewayAddress(HBONE_PORT, namespace=wanted.namespace, hostname=hostname)


def _admitted(found: CompiledGateway, wanted: Wish, namespace: str, known: Namespaces) -> bool:
    by_labels = any(each.sources == "Selector" for each in found.admissions)
    labels = known.labels(namespace) if by_labels else {}
    return any(each.admits(wanted.namespace, namespace, labels) for each in found.admissions)
