"""The conditions of the Gateway API that we write (v1.6: `gatewayclass_types.go`, `gateway_types.go`,
`httproute_types.go`), and those of Istio."""

from ambit.core.finding import ObjectRef
from ambit.model.status import Condition, Version
from ambit.objects.meta import ObjectMeta

ACCEPTED = "Accepted"
PROGRAMMED = "Programmed"
CONFLICTED = "Conflicted"
RESOLVED = "ResolvedRefs"
PARTIALLY_INVALID = "PartiallyInvalid"
WAYPOINT_BOUND = "istio.io/WaypointBound"
WAYPOINT_ACCEPTED = "WaypointAccepted"
"""Of a policy with targets."""
KEYS_FETCHED = "ambit.io/KeysFetched"
"""Of a RequestAuthentication whose keys are somewhere else."""


def yes(kind: str, reason: str = "", message: str = "") -> Condition:
    return Condition(kind, "True", reason or kind, message)


def no(kind: str, reason: str, message: str) -> Condition:
    return Condition(kind, "False", reason, message)


def version(meta: ObjectMeta, kind: str) -> Version:
    return Version(ObjectRef(kind, meta.namespace, meta.name), meta.uid, meta.generation)
