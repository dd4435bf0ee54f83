"""Which workloads serve a service, and on which ports: what selectors of any API family come to."""

import msgspec

from ambit.graph.collection import Index
from ambit.graph.engine import Context
from ambit.ingest.selection import label_entries, selector_entry, selects
from ambit.model.workload import Port


class TargetPort(msgspec.Struct, frozen=True):
    """A service port and where it leads on an endpoint: a number, or the name of a container port."""

    name: str
    service: int
    target: int | str


class ServiceTarget(msgspec.Struct, frozen=True):
    """The part of a service that decides which workloads of its namespace serve it, and on which ports.

    `ports` is complete unless some `named` ones must be resolved on each pod.
    """

    key: str
    namespace: str
    name: str
    selector: dict[str, str]
    targets: tuple[TargetPort, ...]
    ports: tuple[Port, ...]
    named: bool = False


def filed(target: ServiceTarget) -> list[str]:
    """Where a target is filed, for `chosen` to find it; one without a selector nowhere."""
    return [selector_entry(target.namespace, target.selector)] if target.selector else []


def chosen(
    context: Context, index: Index[ServiceTarget], namespace: str, labels: dict[str, str]
) -> list[ServiceTarget]:
    """The targets whose selectors match these labels; `index` is made by `filed`."""
    return [
        target
        for entry in label_entries(namespace, labels)
        for target in context.lookup(index, entry)
        if selects(target.selector, labels)
    ]
