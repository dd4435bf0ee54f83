"""Which entries of all Telemetry objects are about a proxy, or about requests to one service at it."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from ambit.model.proxy import Proxy
from ambit.model.service import Service
from ambit.model.telemetry import Level, TelemetryPolicy
from ambit.model.workload import Workload
from ambit.plan import targets

Entry = TypeVar("Entry")


def in_force(
    policies: Iterable[TelemetryPolicy],
    proxy: Proxy,
    subject: Service | Workload | None,
    entries: Callable[[TelemetryPolicy], tuple[Entry, ...]],
) -> Iterator[tuple[Entry, ...]]:
    """The entries of one kind that count on each level, the farthest first."""
    given = [each for each in policies if entries(each)]
    for level in Level:
        here = [each for each in given if each.level is level and concerns(each, proxy, subject)]
        if here:
            yield entries(min(here, key=lambda each: (each.created, each.key)))


def concerns(policy: TelemetryPolicy, proxy: Proxy, subject: Service | Workload | None = None) -> bool:
    """Whether it says anything about requests to `subject` at the proxy; without one, about any."""
    match policy.level:
        case Level.NAMESPACE:
            return policy.namespace == proxy.identity.namespace
        case Level.TARGET:
            return targets.concern(policy.targets, proxy, subject)
        case _:
            return True
