"""What the compiler has to say in the status of objects, as values. Times and merging are the writer's."""

from typing import Literal

import msgspec

from ambit.core.finding import ObjectRef
from ambit.core.names import WAYPOINT_CONTROLLER


class Condition(msgspec.Struct, frozen=True):
    """A metav1.Condition without its times and generation."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""

    @property
    def holds(self) -> bool:
        return self.status == "True"


class Version(msgspec.Struct, frozen=True):
    """The very object that was compiled: no other one of its name, no newer generation."""

    origin: ObjectRef
    uid: str
    generation: int


class ObjectStatus(msgspec.Struct, frozen=True):
    """Of an object that has conditions. `features`: of a GatewayClass, the sorted names of what it supports."""

    version: Version
    conditions: tuple[Condition, ...]
    features: tuple[str, ...] = ()
    by_nodes: bool = False
    """It is a policy that nodes enforce as well; what they say of it is said by somebody else."""


class Parent(msgspec.Struct, frozen=True):
    """A route's parentRef as it is written; what is not written is empty or 0."""

    group: str
    kind: str
    name: str
    namespace: str = ""
    section_name: str = ""
    port: int = 0


class ParentStatus(msgspec.Struct, frozen=True):
    """`controller` is the `controllerName` of the class that the parent's proxy is of."""

    parent: Parent
    conditions: tuple[Condition, ...]
    controller: str = WAYPOINT_CONTROLLER


class RouteStatus(msgspec.Struct, frozen=True):
    """Of those parents of a route that are ours."""

    version: Version
    parents: tuple[ParentStatus, ...]


class PolicyStatus(msgspec.Struct, frozen=True):
    """Of a policy, for each Gateway that it concerns."""

    version: Version
    ancestors: tuple[ParentStatus, ...]


class ListenerStatus(msgspec.Struct, frozen=True):
    name: str
    conditions: tuple[Condition, ...]
    kinds: tuple[str, ...] = ()
    """Kinds of routes that it takes."""
    attached: int = 0
    """Routes that it has accepted."""


class GatewayStatus(msgspec.Struct, frozen=True):
    """`addresses` are IP addresses or host names."""

    version: Version
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...] = ()
    addresses: tuple[str, ...] = ()
    sets: int = 0
    """ListenerSets that add listeners to it."""


class ListenerSetStatus(msgspec.Struct, frozen=True):
    version: Version
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...] = ()


Status = ObjectStatus | RouteStatus | PolicyStatus | GatewayStatus | ListenerSetStatus
