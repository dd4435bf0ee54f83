"""Which providers print requests to a service at a proxy, by all that is said about it (Istio: `Telemetry`)."""

from collections.abc import Iterable

from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.telemetry import Level, LogPolicy, Printer, RequestLog
from ambit.model.workload import Workload
from ambit.plan import targets


def logs_of(
    policies: Iterable[LogPolicy], proxy: Proxy, subject: Service | Workload | None = None
) -> tuple[RequestLog, ...]:
    """By name of the provider. What is nearer replaces what is farther, as far as it names providers; without any it
    changes those in force."""
    found: dict[str, RequestLog] = {}
    for level in Level:
        here = [each for each in policies if each.level is level and concerns(each, proxy, subject)]
        if here:
            found = _changed(found, min(here, key=lambda each: (each.created, each.key)), proxy)
    return tuple(found[name] for name in sorted(found))


def concerns(policy: LogPolicy, proxy: Proxy, subject: Service | Workload | None = None) -> bool:
    """Whether it says anything about requests to `subject` at the proxy; without one, about any."""
    match policy.level:
        case Level.NAMESPACE:
            return policy.namespace == proxy.identity.namespace
        case Level.TARGET:
            return targets.concern(policy.targets, proxy, subject)
        case _:
            return True


def _changed(found: dict[str, RequestLog], policy: LogPolicy, proxy: Proxy) -> dict[str, RequestLog]:
    is_edge = proxy.kind is ProxyKind.GATEWAY
    rules = [each for each in policy.rules if (each.at_gateways if is_edge else each.at_waypoints)]
    inherited = [each.printer for each in found.values()]
    made = {} if any(rule.printers and not rule.disabled for rule in rules) else dict(found)
    for rule in rules:
        for printer in rule.printers or inherited or ([] if rule.disabled else [Printer()]):
            if rule.disabled:
                made.pop(printer.name, None)
            else:
                made[printer.name] = RequestLog(printer, rule.filter)
    return made
