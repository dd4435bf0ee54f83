"""Which providers print requests to a service at a proxy, by all that is said about it (Istio: `AccessLogging`)."""

from collections.abc import Iterable

from ambit.model.proxy import Proxy, ProxyKind
from ambit.model.service import Service
from ambit.model.telemetry import LogRule, Printer, RequestLog, TelemetryPolicy
from ambit.model.workload import Workload
from ambit.plan.telemetry.entries import in_force


def logs_of(
    policies: Iterable[TelemetryPolicy], proxy: Proxy, subject: Service | Workload | None = None
) -> tuple[RequestLog, ...]:
    """By name of the provider. What is nearer replaces what is farther, as far as it names providers; without any it
    changes those in force."""
    found: dict[str, RequestLog] = {}
    for rules in in_force(policies, proxy, subject, lambda each: each.logs):
        found = _changed(found, rules, proxy)
    return tuple(found[name] for name in sorted(found))


def _changed(found: dict[str, RequestLog], given: Iterable[LogRule], proxy: Proxy) -> dict[str, RequestLog]:
    is_edge = proxy.kind is ProxyKind.GATEWAY
    rules = [each for each in given if (each.at_gateways if is_edge else each.at_waypoints)]
    inherited = [each.printer for each in found.values()]
    made = {} if any(rule.printers and not rule.disabled for rule in rules) else dict(found)
    for rule in rules:
        for printer in rule.printers or inherited or ([] if rule.disabled else [Printer()]):
            if rule.disabled:
                made.pop(printer.name, None)
            else:
                made[printer.name] = RequestLog(printer, rule.filter)
    return made
